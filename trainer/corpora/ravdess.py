"""RAVDESS, the audio-only speech part: 1,440 clips, 24 speakers, 8 emotions, English."""

from __future__ import annotations

import re
from pathlib import Path

from trainer.corpora.clip import Clip, Corpus, match_names

_NAME = re.compile(
    r"03-01-(?P<emotion>0[1-8])-(?P<intensity>0[12])-(?P<statement>0[12])-(?P<repetition>0[12])"
    r"-(?P<actor>\d\d)"
)
_SONG = re.compile(r"03-02(-\d\d){5}")
_EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fear", "disgust", "surprise")


def read(folder: Path) -> list[Clip]:
    """Read names such as ``03-01-06-01-02-01-12.wav``.

    Modality (03 audio only), vocal channel (01 speech; songs are left out), emotion, intensity, statement,
    repetition, actor (odd: male).
    """
    return [
        Clip(
            path=path,
            corpus="ravdess",
            speaker=f"ravdess_{name['actor']}",
            sex="male" if int(name["actor"]) % 2 else "female",
            emotion=_EMOTIONS[int(name["emotion"]) - 1],
            language="en",
        )
        for path, name in match_names(folder, _NAME, beside=_SONG)
    ]


CORPUS = Corpus(
    name="ravdess",
    published="https://zenodo.org/record/1188976; Livingstone and Russo, PLoS ONE 13(5): e0196391, 2018",
    licence="CC-BY-NC-SA-4.0",
    sellable=False,
    layout="Actor_12/03-01-06-01-02-01-12.wav (Audio_Speech_Actors_01-24.zip)",
    read=read,
)
