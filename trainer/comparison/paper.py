"""The comparison on paper: one Markdown file with its pictures, from the results that are there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from trainer.comparison.cells import LEAK_COPIES, Cell, Plan, Result
from trainer.comparison.splits import PROTOCOLS, Protocol, n_splits
from trainer.comparison.system import System
from trainer.corpora import Clip
from trainer.evaluation import Counts, macro_f1, recalls

DPI = 80
_COLOURS: dict[Protocol, str] = {"random": "tab:blue", "leak": "tab:red", "speakers": "tab:green"}


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """A system on a corpus: what its protocols brought."""

    name: str
    system: System
    results: dict[Protocol, list[Result]]
    """Protocols that were run."""

    def counts(self, protocol: Protocol) -> Counts:
        """Test examples of all splits, rows are true labels."""
        stacked: Counts = np.sum([result.confusion for result in self.results[protocol]], axis=0)
        return stacked

    def accuracy(self, protocol: Protocol) -> float:
        """Percent."""
        counts = self.counts(protocol)
        return 100 * float(np.trace(counts) / counts.sum())


def rows(systems: dict[str, System], corpus: str, clips: list[Clip], plan: Plan, folder: Path) -> list[Row]:
    """One for each system that has results."""
    found = []
    for name, system in systems.items():
        results = {
            protocol: Cell(name, system, corpus, protocol, plan, folder).results(clips)
            for protocol in PROTOCOLS
        }
        there = {protocol: brought for protocol, brought in results.items() if brought}
        if there:
            found.append(Row(name, system, there))
    return found


def write(tables: dict[str, list[Row]], clips: dict[str, list[Clip]], plan: Plan, path: Path) -> None:
    """Write the comparison of every corpus, its pictures into a folder of its name beside it."""
    pictures = path.with_suffix("")
    pictures.mkdir(parents=True, exist_ok=True)
    corpora = " ".join(f"--corpus {corpus}" for corpus in tables)
    command = f"OMP_NUM_THREADS=1 serstream-train compare {corpora}{' --full' if plan.full else ''}"
    if plan.seed:
        command += f" --seed {plan.seed}"
    parts = [_INTRODUCTION]
    for corpus, table in tables.items():
        if not table:
            continue
        parts.append(_section(corpus, table, clips[corpus], plan, command, pictures.name))
        draw_confusions(table, pictures / f"{corpus}-confusion.png")
        draw_learning(table, pictures / f"{corpus}-learning.png")
    parts.append(_explained([row for table in tables.values() for row in table]))
    path.write_text("\n".join(parts), encoding="utf-8")


_INTRODUCTION = f"""# The studies' systems, under their own protocol and under an honest one

serstream grew out of five studies of speech emotion recognition. Their systems are recipes of the trainer
([trainer/recipes/studies](../trainer/recipes/studies)); `serstream-train compare` trains and tests each of
them three times on the same clips, and writes this page from what came out:

- **random clips**: test clips are drawn at random, as most of the studies did. The network has heard other
  clips of the speakers it is tested on.
- **copies on both sides**: clips and their augmented copies are drawn alike, so that the network is tested on
  copies of what it has learned, and the other way round. Where a study made no copies,
  {" and ".join(LEAK_COPIES)} are added.
- **speakers apart**: nobody who is tested was heard in training. Only this says what to expect of a new
  caller.

Figures are accuracy in percent, as the studies report, with the half-width of its binomial 95 % interval; in
brackets the mean recall of the classes. One training a split, so a few points between two systems mean
nothing. Where the table says fewer epochs or clips than the study had, a system would still learn: its
figures say how the protocols differ, not how good the system is. Features are computed at 16 kHz; networks
are trained in bfloat16 where that loses nothing; parameters are counted as Keras does, moving statistics of
batch normalisation included. The published 587,526 (E1), 1,620,102 (E2), 665,850 (B1's deep features) and 700
(B1's perceptron) hold for six labels.
"""


def _section(
    corpus: str, table: Sequence[Row], clips: list[Clip], plan: Plan, command: str, pictures: str
) -> str:
    speakers, emotions = ({getattr(clip, name) for clip in clips} for name in ("speaker", "emotion"))
    lines = [
        f"## {corpus}",
        "",
        f"{len(clips)} clips, {len(speakers)} speakers, {len(emotions)} emotions. `{command}`",
        "",
        "| system | parameters | epochs | splits | random clips | copies on both sides | speakers apart "
        "| reported |",
        "|---|---|---|---|---|---|---|---|",
        *(_line(row, clips, plan) for row in table),
        _means(table),
        "",
        _worth(table),
        "",
        f"![confusion matrices]({pictures}/{corpus}-confusion.png)",
        "",
        f"![learning curves]({pictures}/{corpus}-learning.png)",
        "",
    ]
    return "\n".join(lines)


def _line(row: Row, clips: list[Clip], plan: Plan) -> str:
    some = next(iter(row.results.values()))
    run = max(len(result.history) for results in row.results.values() for result in results)
    epochs = f"{run} of {row.system.training.epochs}" if run else "-"
    if limit := plan.clips(row.system):
        epochs += f", {limit} clips"
    splits = f"{len(some)} of {n_splits('random', clips, row.system.test_share)}"
    cells = " | ".join(_figure(row, protocol) for protocol in PROTOCOLS)
    size = f"{some[0].n_parameters:,}" if some[0].n_parameters else "-"
    return f"| {row.system.title} | {size} | {epochs} | {splits} | {cells} | {row.system.reported} |"


def _figure(row: Row, protocol: Protocol) -> str:
    if protocol not in row.results:
        return "not run"
    counts = row.counts(protocol)
    accuracy = row.accuracy(protocol) / 100
    half_width = 1.96 * np.sqrt(accuracy * (1 - accuracy) / counts.sum())
    return f"{100 * accuracy:.1f} ± {100 * half_width:.0f} ({100 * np.nanmean(recalls(counts)):.1f})"


def _means(table: Sequence[Row]) -> str:
    """Over the systems that have all three."""
    whole = [row for row in table if len(row.results) == len(PROTOCOLS)]
    if not whole:
        return ""
    means = " | ".join(
        f"**{np.mean([row.accuracy(protocol) for row in whole]):.1f}**" for protocol in PROTOCOLS
    )
    return f"| **mean of {len(whole)}** | | | | {means} | |"


def _worth(table: Sequence[Row]) -> str:
    whole = [row for row in table if len(row.results) == len(PROTOCOLS)]
    copying = [row for row in whole if row.system.copies]
    if not copying:
        return ""
    leak = np.mean([row.accuracy("leak") - row.accuracy("random") for row in copying])
    voices = np.mean([row.accuracy("random") - row.accuracy("speakers") for row in whole])
    return (
        f"Copies on both sides are worth {leak:+.1f} points on average to the {len(copying)} systems that "
        "make copies under every protocol, so that only the leak differs; voices that were heard before are "
        f"worth {voices:+.1f} points to all {len(whole)}. Fewer epochs remember less, and so leak less."
    )


def _explained(table: Sequence[Row]) -> str:
    systems = {row.name: row.system for row in table}
    lines = ["## What the reported figures can and cannot be explained by", ""]
    lines += [
        f"- **{system.title}**, reported {system.reported}: {system.verdict}"
        for system in systems.values()
        if system.verdict
    ]
    lines += ["", "## What the studies do not say, and how it is read here", ""]
    lines += [f"- {system.title}: {system.unstated}." for system in systems.values() if system.unstated]
    return "\n".join([*lines, ""])


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
