"""A run on paper: one Markdown report with its pictures, and metrics.json."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from trainer.calibration import ABSTAIN_SHARE, Calibration, calibrate
from trainer.evaluation import Counts
from trainer.folds import Protocol
from trainer.history import Epoch
from trainer.metrics import (
    counted,
    figures,
    interval_of,
    percent,
    pooled_confusion,
    short_of_speech,
    tested_on,
)
from trainer.predictions import Predictions
from trainer.recipe import Recipe

logger = logging.getLogger(__name__)


def write(recipe: Recipe, protocol: Protocol, predictions: Predictions, folder: Path) -> dict[str, Any]:
    """Write report.md, its pictures and metrics.json into a folder.

    Returns:
        What metrics.json holds.
    """
    calibration = calibrate(predictions)
    metrics = figures(recipe, protocol, predictions, calibration)
    learned = any(len(history) > 1 for history in predictions.histories)
    short = short_of_speech(predictions)
    if short:
        logger.warning("%s", short)
    text = _markdown(recipe, protocol, metrics, short, learned=learned)
    counts = pooled_confusion(predictions, predictions.most_heard_s)
    draw_confusion(counts, predictions.labels, folder / "confusion.png")
    _draw_calibration(calibration, folder / "calibration.png")
    if learned:
        _draw_learning(predictions.histories, folder / "learning.png")
    (folder / "report.md").write_text(text, encoding="utf-8")
    (folder / "metrics.json").write_bytes(msgspec.json.format(msgspec.json.encode(metrics)))
    return metrics


def draw_confusion(counts: Counts, labels: Sequence[str], path: Path) -> None:
    """Shares of each true label, one row per label; dashes where it does not occur."""
    more = 0.45 * max(0, len(labels) - 8)  # inches
    figure = Figure(figsize=(5.5 + more, 5 + more), layout="constrained")
    axes = figure.subplots()
    shares = percent(counts)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    for row, column in np.ndindex(shares.shape):
        dark = shares[row, column] > 50
        axes.text(
            column,
            row,
            "-" if np.isnan(shares[row, column]) else f"{shares[row, column]:.0f}",
            ha="center",
            va="center",
            color="white" if dark else "black",
        )
    axes.set_xticks(range(len(labels)), labels, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(labels)), labels)
    axes.set(xlabel="predicted", ylabel="acted", title="percent of the acted emotion")
    figure.savefig(path, dpi=110)


def _draw_calibration(calibration: Calibration, path: Path) -> None:
    """Reliability diagram (Niculescu-Mizil and Caruana 2005), and risk against coverage (El-Yaniv 2010)."""
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    confidence, correct, counts = np.array(calibration.bins).T
    amount = left.twinx()
    amount.bar(confidence, counts, width=0.04, color="0.85")
    amount.set(ylabel="windows", ylim=(0, 3 * counts.max()))
    left.set_zorder(amount.get_zorder() + 1)
    left.patch.set_visible(False)
    left.plot([0, 1], [0, 1], color="grey", linestyle=":")
    left.plot(confidence, correct, marker="o")
    left.set(xlabel="confidence", ylabel="share correct", title=f"reliability, ECE {calibration.error:.3f}")
    right.plot(calibration.coverage, calibration.risk)
    kept = 1 - ABSTAIN_SHARE
    right.axvline(kept, color="grey", linestyle=":")
    right.text(kept - 0.02, 0.01, f"below {calibration.abstain_below:.2f}: abstain", ha="right")
    right.set(xlabel="share of windows kept", ylabel="share wrong", ylim=(0, None), title="risk and coverage")
    figure.savefig(path, dpi=110)


def _draw_learning(histories: list[list[Epoch]], path: Path) -> None:
    """A line per training."""
    figure = Figure(figsize=(5.5, 3.6), layout="constrained")
    axes = figure.subplots()
    for history in histories:
        axes.plot([e.epoch for e in history], [e.loss for e in history], color="tab:blue", alpha=0.4)
    axes.set(xlabel="epoch", title="learning curves")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel("training loss, labels smoothed", color="tab:blue")
    if any(not np.isnan(epoch.valid_uar) for history in histories for epoch in history):
        second = axes.twinx()
        for history in histories:
            second.plot(
                [e.epoch for e in history], [e.valid_uar for e in history], color="tab:orange", alpha=0.4
            )
        second.set_ylabel("UAR of the validation speakers", color="tab:orange")
    figure.savefig(path, dpi=110)


def _kept(ua: float, clean: float) -> str:
    return f"{100 * ua / clean:.0f} %" if clean else "-"


def _markdown(
    recipe: Recipe, protocol: Protocol, metrics: dict[str, Any], short: str, *, learned: bool
) -> str:
    rows = metrics["modes"]
    first = f" (its convolution on {', '.join(recipe.pretraining)} before)" if recipe.pretraining else ""
    lines = [
        f"# {recipe.name}: {protocol.title}",
        "",
        f"Network {recipe.network}, trained on {', '.join(recipe.corpora)}{first}; recipe "
        f"{recipe.sha256[:12]}. One prediction per clip (mean log probability of its windows) over "
        "the labels that its corpus has and its fold was taught. Figures in percent, mean over seeds, of "
        "which each draws its own augmentation and asks in another fifth of the noises; the interval is 95 % "
        "by bootstrap over speakers; *kept* is the share of the clean UA.",
        "",
        tested_on(metrics),
    ]
    if protocol.overlap:
        lines += ["", "**Speakers overlap between training and test: not a figure for new voices.**"]
    lines += [
        "",
        f"| condition | speech heard before | seeds | {counted('ua', metrics)} | sd | 95 % | kept | WA "
        "| macro F1 | UA by window |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    clean = [row for row in rows if row["condition"] == "clean"]
    clean_ua = {row["heard_s"]: row["ua"] for row in clean}
    lines += [
        f"| {row['condition']} | {row['heard_s']:.0f} s | {row['seeds']} | **{row['ua']:.1f}** | "
        f"{'-' if row['ua_sd'] is None else format(row['ua_sd'], '.1f')} | {interval_of(row)} | "
        f"{_kept(row['ua'], clean_ua[row['heard_s']])} | "
        f"{row['wa']:.1f} | {row['f1']:.1f} | {row['window_ua']:.1f} |"
        for row in rows
    ]
    if short:
        lines += ["", short]
    lines += [
        "",
        "The daemon does not know which labels a voice may have. As it says it, over all labels that a "
        "fold was trained on:",
        "",
        "| speech heard before | UA unmasked | UA by window unmasked |",
        "|---|---|---|",
    ]
    lines += [
        f"| {row['heard_s']:.0f} s | {row['ua_unmasked']:.1f} | {row['window_ua_unmasked']:.1f} |"
        for row in clean
    ]
    groups = [name for name in clean[0] if name.startswith("ua ")]
    headings = " | ".join(counted(name, metrics) for name in groups)
    lines += ["", f"| speech heard before | {headings} |", "|---" * (len(groups) + 1) + "|"]
    lines += [
        f"| {row['heard_s']:.0f} s | {' | '.join(format(row[name], '.1f') for name in groups)} |"
        for row in clean
    ]
    found = {
        "other folds": "each fold at the temperature of the others",
        "validation speakers": "at the temperature of validation speakers, who were not trained on",
        "nothing": "uncalibrated, as there is no other fold to find a temperature with",
    }[metrics["temperature_found_with"]]
    labels = list(clean[0]["recall"])
    lines += ["", f"| recall, heard before | {' | '.join(labels)} |", "|---" * (len(labels) + 1) + "|"]
    lines += [
        f"| {row['heard_s']:.0f} s | {' | '.join(format(row['recall'][name], '.1f') for name in labels)} |"
        for row in clean
    ]
    lines += [
        "",
        "![confusion](confusion.png)",
        "",
        f"Calibration by window, clean, after {clean[-1]['heard_s']:.0f} s: ECE {metrics['ece']:.3f} "
        f"({metrics['ece_uncalibrated']:.3f} before), {found}; "
        f"temperature {metrics['temperature']:.2f}. The least confident fifth of the windows lies below "
        f"{metrics['abstain_below']:.2f}. Unmasked the ECE is {metrics['ece_unmasked']:.3f}, and "
        f"{100 * metrics['unsure_unmasked']:.0f} % lie below. First windows, clean, at the same "
        f"temperatures: ECE {metrics['ece_first_windows']:.3f}.",
        "",
        "![calibration](calibration.png)",
        "",
        *(["![learning curves](learning.png)", ""] if learned else []),
        "Loss, UAR, learning rate and seconds of every epoch: seed-*.csv. Once more from the same scores: "
        "`serstream-train report` with this folder.",
        "",
    ]
    return "\n".join(lines)
