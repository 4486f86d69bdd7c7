"""TESS, the Toronto Emotional Speech Set: 2,800 clips, 2 women, 7 emotions, English."""

from __future__ import annotations

import re
from pathlib import Path

from trainer.corpora.clip import Clip, Corpus, match_names

_NAME = re.compile(
    r"(?P<speaker>OAF?|YAF)_(?P<word>[a-z]+)_(?P<emotion>angry|disgust|fear|happy|neutral|ps|sad)"
)


def read(folder: Path) -> list[Clip]:
    """Read names such as ``OAF_back_angry.wav``; ``ps`` is pleasant surprise. One begins with ``OA``."""
    return [
        Clip(
            path=path,
            corpus="tess",
            speaker="tess_YAF" if name["speaker"] == "YAF" else "tess_OAF",
            sex="female",
            emotion="surprise" if name["emotion"] == "ps" else name["emotion"],
            language="en",
        )
        for path, name in match_names(folder, _NAME)
    ]


CORPUS = Corpus(
    name="tess",
    published="https://doi.org/10.5683/SP2/E8H2MF; Pichora-Fuller and Dupuis, 2020",
    licence="CC-BY-NC-ND-4.0",
    sellable=False,
    layout="OAF_back_angry.wav",
    read=read,
)
