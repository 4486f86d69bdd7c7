"""CREMA-D: 7,442 clips, 91 actors, 6 emotions, English."""

from __future__ import annotations

import csv
import re
from pathlib import Path

from trainer.corpora.clip import Clip, Corpus, CorpusError, Sex, match_names

_NAME = re.compile(
    r"(?P<actor>1\d{3})_(?P<sentence>[A-Z]{3})_(?P<emotion>ANG|DIS|FEA|HAP|NEU|SAD)_(?P<level>LO|MD|HI|XX?)"
)
_EMOTIONS = {
    "ANG": "angry",
    "DIS": "disgust",
    "FEA": "fear",
    "HAP": "happy",
    "NEU": "neutral",
    "SAD": "sad",
}
_COLUMNS = ("ActorID", "Sex")
"""Of VideoDemographics.csv; others are not needed."""


def read(folder: Path) -> list[Clip]:
    """Read names such as ``1001_DFA_ANG_XX.wav``; the actors' sex is in VideoDemographics.csv."""
    named = match_names(folder, _NAME)
    sexes = _sexes(folder / "VideoDemographics.csv") if named else {}
    return [
        Clip(
            path=path,
            corpus="crema-d",
            speaker=name["actor"],
            sex=sexes.get(name["actor"], "unknown"),
            emotion=_EMOTIONS[name["emotion"]],
            language="en",
        )
        for path, name in named
    ]


def _sexes(table: Path) -> dict[str, Sex]:
    if not table.is_file():
        raise CorpusError(f"{table}: no such file; CREMA-D is published with it, copy it beside AudioWAV/")
    sexes: dict[str, Sex] = {"Male": "male", "Female": "female"}
    try:
        with table.open(newline="", encoding="utf-8-sig") as text:
            rows = csv.DictReader(text)
            if missing := [column for column in _COLUMNS if column not in (rows.fieldnames or ())]:
                raise CorpusError(
                    f"{table} line 1: no column {', '.join(missing)}; copy the file as it is published"
                )
            return {row["ActorID"]: sexes.get(row["Sex"], "unknown") for row in rows}
    except UnicodeDecodeError as error:
        raise CorpusError(
            f"{table}: byte {error.start} is not UTF-8; copy the file as it is published"
        ) from error
    except csv.Error as error:
        raise CorpusError(
            f"{table} line {rows.line_num + 1}: {error}; copy the file as it is published"
        ) from error


CORPUS = Corpus(
    name="crema-d",
    published="https://github.com/CheyneyComputerScience/CREMA-D; Cao et al., IEEE Trans. Affective "
    "Computing 5(4), 2014",
    licence="ODbL-1.0",
    sellable=True,
    layout="AudioWAV/1001_DFA_ANG_XX.wav and VideoDemographics.csv",
    read=read,
)
