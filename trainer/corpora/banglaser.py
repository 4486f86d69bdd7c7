"""BanglaSER: 1,467 clips, 34 speakers who are no actors, 5 emotions, Bangla."""

from __future__ import annotations

from pathlib import Path

from trainer.corpora import manifest
from trainer.corpora.clip import Clip, Corpus


def read(folder: Path) -> list[Clip]:
    """Read the manifest that was made for it: the names as published say no sex."""
    return manifest.read(folder) if (folder / manifest.MANIFEST).is_file() else []


CORPUS = Corpus(
    name="banglaser",
    published="Mendeley Data t9h6p943xy; Das et al., Data in Brief 42:108091, 2022; resampled to 16 kHz mono",
    licence="CC BY 4.0 to our knowledge (the licence line itself was not re-checked)",
    sellable=True,
    layout=f"{manifest.MANIFEST} (columns {', '.join(manifest.REQUIRED)}, sex) and the files it lists",
    read=read,
)
