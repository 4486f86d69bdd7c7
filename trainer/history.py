"""What a training brought, epoch by epoch, as a CSV log."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import MISSING, astuple, dataclass, fields
from pathlib import Path

from serstream.errors import ConfigError
from trainer.whole import whole


@dataclass(frozen=True, slots=True)
class Epoch:
    """One pass, and one line of the log."""

    epoch: int
    """Counts from 1."""
    loss: float
    """Mean over the training batches, with smoothed labels and mixup."""
    valid_uar: float
    """Of the averaged weights on validation clips, 0 to 1; NaN: no speakers validate."""
    learning_rate: float
    """At the end of the epoch."""
    seconds: float
    """Wall clock, validation included."""
    loading: float
    """Share of the seconds in which the network waited for batches, 0 to 1."""
    train_uar: float = math.nan
    """Of its batches as they were scored while it learned, mixed windows by their larger part, 0 to 1; NaN:
    a log of before this was kept."""


def write(path: Path, epochs: Sequence[Epoch]) -> None:
    """Write the log as a whole."""
    with whole(path) as unfinished:
        with unfinished.open("w", newline="", encoding="utf-8") as text:
            rows = csv.writer(text)
            rows.writerow(field.name for field in fields(Epoch))
            rows.writerows(astuple(epoch) for epoch in epochs)


def read(path: Path) -> list[Epoch]:
    """Read a log back.

    Raises:
        ConfigError: it is not one.
    """
    try:
        with path.open(newline="", encoding="utf-8") as text:
            rows = csv.DictReader(text)
            known = [field.name for field in fields(Epoch)]
            if rows.fieldnames not in (known, [f.name for f in fields(Epoch) if f.default is MISSING]):
                raise ValueError(f"its columns are {rows.fieldnames}")
            return [
                Epoch(int(row.pop("epoch")), **{name: float(value) for name, value in row.items()})
                for row in rows
            ]
    except (csv.Error, TypeError, ValueError) as error:
        raise ConfigError(
            f"{path}: cannot read it: {error}; delete it and the .npz beside it, and run "
            "'serstream-train evaluate' again"
        ) from error
