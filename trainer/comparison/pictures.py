"""Confusion matrices and learning curves of the comparison."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from trainer.comparison.splits import PROTOCOLS, Protocol
from trainer.comparison.table import Row
from trainer.evaluation import macro_f1

DPI = 80
_COLOURS: dict[Protocol, str] = {"random": "tab:blue", "leak": "tab:red", "speakers": "tab:green"}


def draw_confusions(table: Sequence[Row], path: Path) -> None:
    """A row of three matrices per system: percent of each true label."""
    labels = next(iter(table[0].results.values()))[0].labels
    figure = Figure(figsize=(6.4, 1.9 * len(table)), layout="constrained")
    panels = figure.subplots(len(table), len(PROTOCOLS), squeeze=False)
    for row, line in zip(table, panels, strict=True):
        for protocol, axes in zip(PROTOCOLS, line, strict=True):
            _confusion(axes, row, protocol, labels)
        line[0].set_ylabel(row.name)
    figure.savefig(path, dpi=DPI)


def _confusion(axes: Axes, row: Row, protocol: Protocol, labels: Sequence[str]) -> None:
    axes.set_xticks(range(len(labels)), [label[:3] for label in labels], fontsize=6, rotation=90)
    axes.set_yticks(range(len(labels)), [label[:3] for label in labels], fontsize=6)
    if protocol in row.results:
        counts = row.counts(protocol)
        axes.imshow(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1), cmap="Blues", vmin=0, vmax=1)
        axes.set_title(f"{protocol}, F1 {100 * macro_f1(counts):.0f}", fontsize=8)


def draw_learning(table: Sequence[Row], path: Path) -> None:
    """One panel per network: training (line) and validation loss (dashes) of its first splits."""
    learned = [row for row in table if any(results[0].history for results in row.results.values())]
    if not learned:
        return
    columns = min(4, len(learned))
    lines = -(-len(learned) // columns)
    figure = Figure(figsize=(2.2 * columns, 1.9 * lines), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    for row, axes in zip(learned, panels, strict=False):
        for protocol, results in row.results.items():
            history = results[0].history
            epochs = range(1, len(history) + 1)
            colour = _COLOURS[protocol]
            axes.plot(epochs, [epoch.loss for epoch in history], color=colour, marker=".", label=protocol)
            axes.plot(epochs, [epoch.valid_loss for epoch in history], color=colour, linestyle="--")
        axes.set_title(row.name, fontsize=8)
        axes.tick_params(labelsize=6)
    for axes in panels[len(learned) :]:
        axes.set_visible(False)
    panels[0].legend(fontsize=6)
    figure.supxlabel("epoch", fontsize=8)
    figure.supylabel("cross-entropy", fontsize=8)
    figure.savefig(path, dpi=DPI)
