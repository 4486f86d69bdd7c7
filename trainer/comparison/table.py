"""What the comparison brought on one corpus, system by system."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainer.comparison.cells import Cell, Plan, Result
from trainer.comparison.splits import Protocol
from trainer.comparison.system import System
from trainer.corpora import Clip
from trainer.evaluation import Counts


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """A system on a corpus: what its protocols brought."""

    name: str
    system: System
    results: dict[Protocol, list[Result]]
    """Of the protocols that were run, a result for each split."""

    def counts(self, protocol: Protocol) -> Counts:
        """Test examples of all splits, rows are true labels."""
        stacked: Counts = np.sum([result.confusion for result in self.results[protocol]], axis=0)
        return stacked

    def accuracy(self, protocol: Protocol) -> float:
        """Percent."""
        counts = self.counts(protocol)
        return 100 * float(np.trace(counts) / counts.sum())


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """A corpus and the systems that have results on it."""

    corpus: str
    """Or several, joined with a plus sign."""
    clips: list[Clip]
    rows: list[Row]
    missing: list[str]
    """Titles of the systems that have none."""


def table(
    systems: dict[str, System],
    corpus: str,
    clips: list[Clip],
    protocols: Sequence[Protocol],
    plan: Plan,
    folder: Path,
) -> Table:
    """The results that are there."""
    found = []
    for name, system in systems.items():
        results = {
            protocol: Cell(name, system, corpus, clips, protocol, plan, folder).results()
            for protocol in protocols
        }
        there = {protocol: brought for protocol, brought in results.items() if brought}
        if there:
            found.append(Row(name, system, there))
    ran = {row.name for row in found}
    return Table(corpus, clips, found, [system.title for name, system in systems.items() if name not in ran])
