"""SAVEE, Surrey Audio-Visual Expressed Emotion: 480 clips, 4 men, 7 emotions, English."""

from __future__ import annotations

import re
from pathlib import Path

from trainer.corpora.clip import Clip, Corpus, match_names

_NAME = re.compile(r"(?P<speaker>DC|JE|JK|KL)[_/](?P<emotion>sa|su|a|d|f|h|n)(?P<number>\d\d)")
_EMOTIONS = {
    "a": "angry",
    "d": "disgust",
    "f": "fear",
    "h": "happy",
    "n": "neutral",
    "sa": "sad",
    "su": "surprise",
}


def read(folder: Path) -> list[Clip]:
    """Read names such as ``DC_a01.wav`` or ``DC/a01.wav``."""
    return [
        Clip(
            path=path,
            corpus="savee",
            speaker=f"savee_{name['speaker']}",
            sex="male",
            emotion=_EMOTIONS[name["emotion"]],
            language="en",
        )
        for path, name in match_names(folder, _NAME)
    ]


CORPUS = Corpus(
    name="savee",
    published="http://kahlan.eps.surrey.ac.uk/savee; Haq and Jackson, 2010",
    licence="research only, on request",
    sellable=False,
    layout="DC_a01.wav or DC/a01.wav",
    read=read,
)
