"""The words of a corpus: a clip, and what is known about the corpus it comes from."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal, TypeAlias

from serstream.errors import SerstreamError

Sex: TypeAlias = Literal["female", "male", "unknown"]

logger = logging.getLogger(__name__)

AUDIO_SUFFIXES = (".wav", ".flac")
_NAMED = 5
"""Names of files that a warning gives; it counts the others."""


class CorpusError(SerstreamError):
    """A corpus is missing, or its files are not laid out as published."""


@dataclass(frozen=True, slots=True)
class Clip:
    """One recording of one acted emotion."""

    path: Path
    corpus: str
    speaker: str
    """Unique over all corpora: ``emodb_03``, ``1001`` of CREMA-D, ``my-calls/anna`` of own recordings."""
    sex: Sex
    emotion: str
    """One of: angry, boredom, calm, disgust, fear, happy, neutral, sad, surprise."""
    language: str
    """ISO 639-1."""

    @property
    def name(self) -> str:
        """File name without its suffix, the name that fold files use."""
        return self.path.stem

    def relabelled(self, label_map: Mapping[str, str]) -> Clip:
        """The same clip, under the label that its emotion counts as."""
        return replace(self, emotion=label_map.get(self.emotion, self.emotion))


@dataclass(frozen=True, slots=True)
class Corpus:
    """Where a corpus is published, under which terms, and how to read it."""

    name: str
    """Name of its folder."""
    published: str
    """Where to get it, and what to cite."""
    licence: str
    """SPDX expression where there is one."""
    sellable: bool
    """Whether weights trained on it may be used commercially."""
    layout: str
    """Files that are expected below the folder."""
    read: Callable[[Path], list[Clip]]
    """Takes the corpus folder, returns its clips sorted by name.

    Raises:
        CorpusError: no clip is found or one cannot be understood.
    """


def audio_files(folder: Path) -> Iterator[Path]:
    """Every .wav and .flac below a folder, sorted by name, and by path where names are the same."""
    paths = (path for path in folder.rglob("*") if path.suffix.lower() in AUDIO_SUFFIXES)
    yield from sorted(paths, key=lambda path: (path.name, path))


@lru_cache(maxsize=65_536)
def content(path: Path) -> bytes:
    """SHA-256 of a recording's file."""
    return hashlib.sha256(path.read_bytes()).digest()


def match_names(
    folder: Path, pattern: re.Pattern[str], beside: re.Pattern[str] | None = None
) -> list[tuple[Path, dict[str, str]]]:
    """Audio files whose whole stem (or parent folder / stem) matches, with the pattern's named groups.

    Of files with the same groups, which are one clip, the first counts. Warnings count what is left out, but
    for what is published ``beside`` and not meant.
    """
    found: dict[tuple[str, ...], tuple[Path, dict[str, str]]] = {}
    strange, copies = [], []
    for path in audio_files(folder):
        named = pattern.fullmatch(path.stem) or pattern.fullmatch(f"{path.parent.name}/{path.stem}")
        if not named:
            if not (beside and beside.fullmatch(path.stem)):
                strange.append(path)
        elif named.groups() in found:
            copies.append(path)
        else:
            found[named.groups()] = (path, named.groupdict())
    for paths, why in ((strange, "not named as published"), (copies, "copies of other clips")):
        if paths:
            names = ", ".join(str(path.relative_to(folder)) for path in paths[:_NAMED])
            more = ", ..." if len(paths) > _NAMED else ""
            logger.warning("%s: audio files left out, %s: %s (%s%s)", folder, why, len(paths), names, more)
    return list(found.values())
