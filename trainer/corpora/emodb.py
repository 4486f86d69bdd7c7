"""EMO-DB, the Berlin Database of Emotional Speech: 535 clips, 10 speakers, 7 emotions, German."""

from __future__ import annotations

import re
from pathlib import Path

from trainer.corpora.clip import Clip, Corpus, match_names

_NAME = re.compile(r"(?P<speaker>\d\d)(?P<text>[ab]\d\d)(?P<emotion>[WLEAFTN])(?P<version>[a-z])")
_EMOTIONS = {
    "W": "angry",
    "L": "boredom",
    "E": "disgust",
    "A": "fear",
    "F": "happy",
    "T": "sad",
    "N": "neutral",
}
_WOMEN = {"08", "09", "13", "14", "16"}


def read(folder: Path) -> list[Clip]:
    """Read names such as ``03a01Fa.wav``: speaker, text, emotion, version."""
    return [
        Clip(
            path=path,
            corpus="emo-db",
            speaker=f"emodb_{name['speaker']}",
            sex="female" if name["speaker"] in _WOMEN else "male",
            emotion=_EMOTIONS[name["emotion"]],
            language="de",
        )
        for path, name in match_names(folder, _NAME)
    ]


CORPUS = Corpus(
    name="emo-db",
    published="http://emodb.bilderbar.info; Burkhardt et al., A Database of German Emotional Speech, "
    "Interspeech 2005",
    licence="CC0-1.0",
    sellable=True,
    layout="wav/03a01Fa.wav (speaker 03, text a01, emotion F, version a)",
    read=read,
)
