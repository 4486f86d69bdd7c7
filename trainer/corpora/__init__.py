"""Readers: from the files of a corpus, as published, to clips."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from trainer.corpora import banglaser, cremad, emodb, manifest, ravdess, savee, tess
from trainer.corpora.clip import Clip, Corpus, CorpusError, Sex

__all__ = ["KNOWN", "Clip", "Corpus", "CorpusError", "about", "found", "read", "read_all"]

KNOWN = {module.CORPUS.name: module.CORPUS for module in (emodb, ravdess, cremad, tess, savee, banglaser)}
"""Published corpora, of which we know the licence and the layout."""

_NAME = re.compile(r"\w[\w.-]*")
"""What a corpus may be called: its folder has one spelling, and no list of corpora cuts it."""


def found(data: Path) -> list[str]:
    """Names of the corpora below a data folder: known ones, and folders with a manifest.

    A manifest that lists files without emotions, noises for example, is none of a corpus; one that makes no
    sense is, and `read` says what is wrong with it.
    """
    if not data.is_dir():
        raise CorpusError(f"data folder {data}: no such folder; give one with --data")
    names = sorted(folder.name for folder in data.iterdir() if folder.is_dir())
    return [name for name in names if name in KNOWN or _of_corpus(data / name / manifest.MANIFEST)]


def about(name: str, data: Path) -> Corpus:
    """What is known of a corpus, whether its clips are there or not.

    Raises:
        CorpusError: its ``corpus.toml`` makes no sense.
    """
    return KNOWN.get(name) or manifest.about(data / name)


def read(name: str, data: Path) -> list[Clip]:
    """Clips of one corpus, sorted by name.

    Raises:
        CorpusError: the corpus is not there, is not laid out as published, or its name is not one.
    """
    if not _NAME.fullmatch(name):
        raise CorpusError(
            f"corpus {name!r}: wanted the name of a folder below {data}, of letters, digits, '-', '_' and '.'"
        )
    if name in get_args(Sex):  # figures by corpus and by sex stand side by side
        raise CorpusError(
            f"corpus {name}: reports call the figures of a sex so; rename the folder, for example my-{name}"
        )
    folder, corpus = data / name, KNOWN.get(name)
    if corpus is not None:
        clips = corpus.read(folder) if folder.is_dir() else []
        if not clips:
            raise CorpusError(
                f"corpus {name}: no clips below {folder}; it is published at {corpus.published} "
                f"(licence: {corpus.licence}); wanted layout: {folder}/{corpus.layout}"
            )
        return clips
    if not (folder / manifest.MANIFEST).is_file():
        raise CorpusError(
            f"corpus {name}: no {folder / manifest.MANIFEST}; give a folder with one (columns "
            f"{', '.join(manifest.REQUIRED)}) or one of the known corpora: {', '.join(KNOWN)}"
        )
    return manifest.read(folder)


def read_all(names: Sequence[str], data: Path) -> list[Clip]:
    """Clips of several corpora.

    Raises:
        CorpusError: see `read`; or a corpus is named twice.
    """
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise CorpusError(f"corpus {twice[0]} is named twice, wanted each once")
    return [clip for name in names for clip in read(name, data)]


def _of_corpus(table: Path) -> bool:
    if not table.is_file():
        return False
    with table.open(newline="", encoding="utf-8-sig", errors="replace") as text:
        try:
            columns = [column.strip().casefold() for column in next(csv.reader(text), [])]
        except csv.Error:
            return True
    return "emotion" in columns or "file" not in columns
