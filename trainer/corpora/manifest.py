"""Any folder with a manifest.csv: your own recordings, or others of which a corpus.toml says the licence."""

from __future__ import annotations

import csv
import tomllib
import unicodedata
from pathlib import Path
from typing import get_args

import msgspec

from serstream.explain import explain
from trainer.corpora.clip import Clip, Corpus, CorpusError, Sex

MANIFEST = "manifest.csv"
REQUIRED = ("file", "speaker", "emotion")
TERMS = "corpus.toml"


class Terms(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``corpus.toml``; the keys mean what they do of a `Corpus`."""

    published: str
    licence: str
    sellable: bool


OWN = Terms(published="your own recordings", licence="no licence stated", sellable=True)
"""Of a folder without ``corpus.toml``."""


def about(folder: Path) -> Corpus:
    """What the folder's ``corpus.toml`` says of it.

    Raises:
        CorpusError: it cannot be read, is not TOML, or a key or value is not allowed.
    """
    terms, path = OWN, folder / TERMS
    if path.is_file():
        try:
            tables = tomllib.loads(path.read_text(encoding="utf-8"))
        except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise CorpusError(f"{path}: not TOML: {error}") from error
        try:
            terms = msgspec.convert(tables, Terms)
        except msgspec.ValidationError as error:
            raise CorpusError(f"{path}: {explain(error, tables, Terms)}") from error
    layout = f"{MANIFEST} and the files it lists"
    return Corpus(folder.name, terms.published, terms.licence, terms.sellable, layout, read)


def read(folder: Path) -> list[Clip]:
    """Read ``manifest.csv``: columns file, speaker, emotion; sex and language if known; others are ignored.

    Blanks around a cell do not count, nor rows of empty cells, nor the case of a sex or an emotion, nor how
    Unicode composes the letters of a name (but for files: a disk may tell both apart).

    Raises:
        CorpusError: it is not UTF-8 or no table separated by commas, it lists nothing, a column or a value
            is missing, a file does not exist or is listed twice, a sex is unknown, a speaker has two, or two
            speakers differ only by case.
    """
    table = folder / MANIFEST
    try:
        # Excel begins UTF-8 with a byte order mark.
        with table.open(newline="", encoding="utf-8-sig") as text:
            rows = csv.DictReader(text)
            clips = _clips(rows, folder, table)
    except UnicodeDecodeError as error:
        raise CorpusError(f"{table}: byte {error.start} is not UTF-8; save it as CSV UTF-8") from error
    except csv.Error as error:
        raise CorpusError(
            f"{table} line {rows.line_num + 1}: {error}; does nothing close a quote before it?"
        ) from error
    if not clips:
        raise CorpusError(f"{table}: lists no clip; wanted a line for each below the column names")
    return sorted(clips, key=lambda clip: clip.path.name)


def _clips(rows: csv.DictReader[str], folder: Path, table: Path) -> list[Clip]:
    columns = rows.fieldnames or ()
    missing = [column for column in REQUIRED if column not in columns]
    if missing and any(";" in column for column in columns):
        raise CorpusError(f"{table}: columns are separated by ';', wanted ','; save it as CSV with commas")
    if missing:
        raise CorpusError(f"{table}: no column {', '.join(missing)}; wanted at least {', '.join(REQUIRED)}")
    clips: dict[Path, Clip] = {}
    """By the file itself, however a line spells its path."""
    sexes: dict[str, Sex] = {}
    spelt: dict[str, str] = {}
    for row in rows:
        if not any(_said(row, column) for column in columns):
            continue
        where = f"{table} line {rows.line_num}"
        clip = _clip(row, folder, where)
        if clips.setdefault(clip.path.resolve(), clip) is not clip:
            raise CorpusError(f"{where}: {row['file']} is listed twice; remove one of the lines")
        name = _said(row, "speaker")
        if name != (first := spelt.setdefault(name.casefold(), name)):
            raise CorpusError(
                f"{where}: speaker is {name}, in an earlier line {first}; wanted one spelling of a "
                "name, or names that differ by more than case"
            )
        if sexes.setdefault(clip.speaker, clip.sex) != clip.sex:
            raise CorpusError(
                f"{where}: speaker {name} is {clip.sex}, in an earlier line "
                f"{sexes[clip.speaker]}; wanted one sex of a speaker, or two speakers"
            )
    return list(clips.values())


def _clip(row: dict[str, str], folder: Path, where: str) -> Clip:
    empty = [column for column in REQUIRED if not _said(row, column)]
    if empty:
        raise CorpusError(f"{where}: {', '.join(empty)} is empty")
    path = folder / row["file"].strip()
    try:
        there = path.is_file()
    except OSError as error:
        raise CorpusError(
            f"{where}: {row['file'][:40]}... is no name of a file: {error.strerror}; correct the file column"
        ) from error
    if not there:
        raise CorpusError(f"{where}: {path} does not exist; correct the file column or remove the line")
    spoken = _said(row, "sex") or "unknown"
    sexes: dict[str, Sex] = {sex: sex for sex in get_args(Sex)}
    if spoken.lower() not in sexes:
        raise CorpusError(f"{where}: sex is {spoken!r}, wanted one of {', '.join(sexes)}")
    return Clip(
        path=path,
        corpus=folder.name,
        speaker=f"{folder.name}/{_said(row, 'speaker')}",
        sex=sexes[spoken.lower()],
        emotion=_said(row, "emotion").lower(),
        language=_said(row, "language") or "und",
    )


def _said(row: dict[str, str], column: str) -> str:
    """A cell however it was typed; empty if there is none."""
    return unicodedata.normalize("NFC", row.get(column) or "").strip()
