"""The comparison on paper: one Markdown file with its pictures, from the results that are there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from trainer.comparison.cells import LEAK_COPIES, Plan
from trainer.comparison.pictures import draw_confusions, draw_learning
from trainer.comparison.splits import PROTOCOLS, Protocol, corpora_of, n_splits
from trainer.comparison.table import Row, Table
from trainer.corpora import Clip
from trainer.evaluation import Counts, uar

BY_HEART = 0.1
"""Cross-entropy of the last epoch below which a network has remembered its training clips."""

_HEADINGS: dict[Protocol, str] = {
    "random": "random clips",
    "leak": "copies on both sides",
    "speakers": "speakers apart",
}


def write(tables: Sequence[Table], across: Sequence[Table], plan: Plan, path: Path) -> None:
    """Write the comparison of every corpus and across corpora, with its pictures in a folder beside it.

    Args:
        tables: of one corpus each, under all protocols that part one.
        across: of several corpora each, under ``corpora``.
        plan: that the results were made by.
        path: of the page.
    """
    pictures = path.with_suffix("")
    pictures.mkdir(parents=True, exist_ok=True)
    parts = [_INTRODUCTION, _command(tables, across, plan)]
    for table in tables:
        if table.rows:
            parts.append(_section(table, plan, pictures.name))
            draw_confusions(table.rows, pictures / f"{table.corpus}-confusion.png")
            draw_learning(table.rows, pictures / f"{table.corpus}-learning.png")
    parts += [_across(table, plan) for table in across if table.rows]
    parts.append(_explained([row for table in tables for row in table.rows]))
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
nothing. Where the table says "of", only so much of the study's epochs, copies or splits was run; what ran for
few epochs would still learn. Features are computed at 16 kHz; networks are trained in bfloat16 where that
loses nothing; parameters are counted as Keras does, moving statistics of batch normalisation included. The
published 587,526 (E1), 1,620,102 (E2), 665,850 (B1's deep features) and 700 (B1's perceptron) hold for six
labels. The 700 want 41 inputs, since 12-10-6 behind n of them has 12 n + 208; that these are 32 deep
features, 6 statistics and 3 for the sex is our reading.
"""


def _command(tables: Sequence[Table], across: Sequence[Table], plan: Plan) -> str:
    words = ["OMP_NUM_THREADS=1 serstream-train compare"]
    words += [f"--corpus {table.corpus}" for table in tables]
    words += [f"--across {table.corpus}" for table in across]
    words += ["--full"] if plan.full else []
    words += [f"--seed {plan.seed}"] if plan.seed else []
    return f"One command repeats all tables and runs what they lack: `{' '.join(words)}`\n"


def _section(table: Table, plan: Plan, pictures: str) -> str:
    lines = [
        f"## {table.corpus}",
        "",
        f"{_size(table)}.",
        "",
        "| system | parameters | trained for | splits | "
        + " | ".join(_HEADINGS[protocol] for protocol in PROTOCOLS)
        + " | reported |",
        "|---|---|---|---|---|---|---|---|",
        *(_line(row, table.clips, plan) for row in table.rows),
        "",
        *([f"Not run yet: {'; '.join(table.missing)}.", ""] if table.missing else []),
        _worth(table.rows),
        "",
        *(_chosen(row) for row in table.rows if row.system.grid),
        f"![confusion matrices]({pictures}/{table.corpus}-confusion.png)",
        "",
        f"![learning curves]({pictures}/{table.corpus}-learning.png)",
        "",
    ]
    return "\n".join(lines)


def _size(table: Table) -> str:
    speakers, emotions = ({getattr(clip, name) for clip in table.clips} for name in ("speaker", "emotion"))
    return f"{len(table.clips)} clips, {len(speakers)} speakers, {len(emotions)} emotions"


def _line(row: Row, clips: list[Clip], plan: Plan) -> str:
    some = next(iter(row.results.values()))
    splits = _part(len(some), n_splits("random", clips, row.system.test_share))
    cells = " | ".join(
        _figure(row.counts(protocol)) if protocol in row.results else "not run" for protocol in PROTOCOLS
    )
    return f"| {_begin(row, clips, plan)} | {splits} | {cells} | {row.system.reported} |"


def _begin(row: Row, clips: list[Clip], plan: Plan) -> str:
    """Title, parameters, and how long it was trained."""
    results = [result for brought in row.results.values() for result in brought]
    size = f"{results[0].n_parameters:,}" if results[0].n_parameters else "-"
    return f"{row.system.title} | {size} | {_training(row, clips, plan)}"


def _training(row: Row, clips: list[Clip], plan: Plan) -> str:
    system, epochs = row.system, plan.epochs(row.system, clips)
    run = [len(result.history) for brought in row.results.values() for result in brought]
    if not any(run):
        return "-"
    said = [f"{_part(epochs, system.training.epochs)} epochs"]
    if min(run) < epochs:
        said.append(f"stopped after {min(run)} to {max(run)}")
    if system.copies:
        said.append(f"{_part(plan.copies(system, 'random')[1], len(system.copies))} copies")
    if limit := plan.clips(system):
        said.append(f"{limit} clips")
    return ", ".join(said)


def _part(done: int, there: int) -> str:
    return str(done) if done == there else f"{done} of {there}"


def _figure(counts: Counts) -> str:
    accuracy = float(np.trace(counts) / counts.sum())
    half_width = 1.96 * np.sqrt(accuracy * (1 - accuracy) / counts.sum())
    return f"{100 * accuracy:.1f} ± {100 * half_width:.0f} ({100 * float(uar(counts)):.1f})"


def _whole(rows: Sequence[Row]) -> list[Row]:
    """Those that have all three protocols."""
    return [row for row in rows if len(row.results) == len(PROTOCOLS)]


def _worth(rows: Sequence[Row]) -> str:
    whole = _whole(rows)
    knowing = [row for row in whole if _knows(row)]
    groups = {
        f"Networks that know by heart what they learned (cross-entropy below {BY_HEART})": knowing,
        "The others": [row for row in whole if row not in knowing],
    }
    lines = []
    for title, group in groups.items():
        if not group:
            continue
        voices = np.mean([row.accuracy("random") - row.accuracy("speakers") for row in group])
        lines.append(f"- {title}: voices that were heard before are worth {voices:+.1f} points on average.")
        copying = [row for row in group if row.system.copies]
        if copying:
            leak = np.mean([row.accuracy("leak") - row.accuracy("random") for row in copying])
            names = ", ".join(row.name for row in copying)
            lines[-1] += (
                f" Copies on both sides are worth {leak:+.1f} to {names}, which learn from copies under "
                "every protocol, so that only the leak differs."
            )
    return "\n".join(lines)


def _knows(row: Row) -> bool:
    return all(
        result.history and result.history[-1].loss < BY_HEART
        for results in row.results.values()
        for result in results
    )


def _chosen(row: Row) -> str:
    """Where on its grid a search ended."""
    ends = []
    for protocol, results in row.results.items():
        points = [
            ", ".join(f"{key} {getattr(result.training, key)}" for key in row.system.grid or ())
            for result in results
        ]
        ends.append(f"{_HEADINGS[protocol]}: {'; '.join(points)}")
    tried = len(row.system.points())
    return f"{row.system.title}, the best of {tried} by its validation clips. {'. '.join(ends)}.\n"


def _across(table: Table, plan: Plan) -> str:
    tested = corpora_of(table.clips)
    chance = 100 / len({clip.emotion for clip in table.clips})
    lines = [
        f"## From one corpus to another: {' and '.join(tested)}",
        "",
        f"{_size(table)} that all of them have. Each corpus is tested as a whole by what was trained on the "
        f"others; guessing would bring a mean recall of {chance:.1f}.",
        "",
        f"| system | parameters | trained for | {' | '.join(f'tested on {name}' for name in tested)} |",
        f"|{'---|' * (3 + len(tested))}",
    ]
    for row in table.rows:
        figures = [_figure(np.array(result.confusion)) for result in row.results["corpora"]]
        lines.append(f"| {_begin(row, table.clips, plan)} | {' | '.join(figures)} |")
    return "\n".join([*lines, ""])


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
