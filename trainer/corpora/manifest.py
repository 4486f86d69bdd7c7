"""Any folder with a manifest.csv: your own recordings."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import get_args

from trainer.corpora.clip import Clip, CorpusError, Sex

MANIFEST = "manifest.csv"
REQUIRED = ("file", "speaker", "emotion")


def read(folder: Path) -> list[Clip]:
    """Read ``manifest.csv``: columns file, speaker, emotion; sex and language if known; others are ignored.

    Raises:
        CorpusError: a column or a value is missing, a file does not exist, a sex is unknown.
    """
    table = folder / MANIFEST
    with table.open(newline="", encoding="utf-8") as text:
        rows = csv.DictReader(text)
        missing = [column for column in REQUIRED if column not in (rows.fieldnames or ())]
        if missing:
            raise CorpusError(
                f"{table}: no column {', '.join(missing)}; wanted at least {', '.join(REQUIRED)}"
            )
        clips = [_clip(row, folder, f"{table} line {rows.line_num}") for row in rows]
    return sorted(clips, key=lambda clip: clip.path.name)


def _clip(row: dict[str, str], folder: Path, where: str) -> Clip:
    empty = [column for column in REQUIRED if not row[column]]
    if empty:
        raise CorpusError(f"{where}: {', '.join(empty)} is empty")
    path = folder / row["file"]
    if not path.is_file():
        raise CorpusError(f"{where}: {path} does not exist; correct the file column or remove the line")
    spoken = row.get("sex") or "unknown"
    sexes: dict[str, Sex] = {sex: sex for sex in get_args(Sex)}
    if spoken not in sexes:
        raise CorpusError(f"{where}: sex is {spoken!r}, wanted one of {', '.join(sexes)}")
    return Clip(
        path=path,
        corpus=folder.name,
        speaker=row["speaker"],
        sex=sexes[spoken],
        emotion=row["emotion"],
        language=row.get("language") or "und",
    )
