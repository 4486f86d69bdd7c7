"""The model card: what a model is, what it was made from, and how well it was measured to work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from serstream.emotion.metadata import ModelMetadata
from trainer import corpora
from trainer.calibration import confidence_at
from trainer.metrics import interval_of, short_of_speech
from trainer.predictions import Predictions
from trainer.recipe import Recipe


def training_data(recipe: Recipe, data: Path) -> tuple[str, ...]:
    """Each corpus of a recipe, below a data folder, with its licence and citation."""
    heard = [corpora.about(name, data) for name in recipe.heard]
    return tuple(f"{corpus.name}, {corpus.licence}: {corpus.published}" for corpus in heard)


def augmented_with(recipe: Recipe, *, noises: bool, rooms: bool) -> str:
    """A sentence on the recordings that were mixed into the training part.

    Args:
        recipe: says whether any were wanted.
        noises: whether there were recordings of noise; white noise stands in for them.
        rooms: whether there were impulse responses.
    """
    settings, used = recipe.augmentation, []
    if settings.variants and settings.noise:
        used.append("ESC-10 (Piczak 2015, CC BY 3.0)" if noises else "white noise")
    if settings.variants and settings.room and rooms:
        used.append("impulse responses of Chromium's web-audio samples (Apache-2.0)")
    return f"Augmented with {' and '.join(used)}." if used else "Augmented with no other recordings."


def write_card(
    metadata: ModelMetadata,
    recipe: Recipe,
    augmented: str,
    n_parameters: int,
    measured: Sequence[tuple[Mapping[str, Any], Predictions]],
) -> str:
    """Markdown.

    Args:
        metadata: of the model file.
        recipe: it was trained by.
        augmented: see `augmented_with`.
        n_parameters: of the network.
        measured: `figures` of each protocol the recipe was run under, and the scores they were made from.
    """
    lines = [
        f"# {metadata.reference}",
        "",
        f"{', '.join(metadata.labels)} from {metadata.feature_spec.window_s:g} s of speech. Network "
        f"{recipe.network}, {n_parameters:,} parameters. Licence of the weights: **{metadata.licence}**.",
        "",
        "## Training data",
        "",
        *(f"- {corpus}" for corpus in metadata.training_data),
        "",
        f"{augmented} Clips with other emotions were left out; what a corpus lacks counts "
        "as absent there, but less than an emotion that is acted.",
        "",
        "## Measured",
        "",
        f"{metadata.protocol} One prediction per clip; percent, mean over seeds, 95 % interval by bootstrap "
        "over speakers. UA is over the labels that a clip's corpus has, as in the literature; *unmasked* is "
        "over all that were learned, as the daemon says it. ECE (by window) and *unsure*, the unmasked share "
        f"of windows below the abstain threshold, are at temperature {metadata.temperature:.2f} and "
        f"threshold {metadata.abstain_below:.2f}: those of this file, under every protocol.",
    ]
    for metrics, predictions in measured:
        rows = metrics["modes"]
        groups = [name for name in rows[0] if name.startswith("ua ") and name != "ua unknown"]
        lines += [
            "",
            f"### Protocol {metrics['protocol']}",
            "",
            "| condition | heard before | seeds | UA | 95 % | unmasked | UA by window "
            f"| {' | '.join(groups)} | ECE | ECE unmasked | unsure |",
            "|---" * (10 + len(groups)) + "|",
        ]
        lines += [
            f"| {row['condition']} | {row['heard_s']:.0f} s | {row['seeds']} | **{row['ua']:.1f}** | "
            f"{interval_of(row)} | {row['ua_unmasked']:.1f} | {row['window_ua']:.1f} | "
            f"{' | '.join(format(row[name], '.1f') if name in row else '-' for name in groups)} | "
            f"{_confidence(predictions, row, metadata)} |"
            for row in rows
        ]
        if short := short_of_speech(predictions):
            lines += ["", short]
        if metrics["protocol"] == "speakers":
            lines += [
                "",
                "The temperature was found with the windows of all these rows. With that of the other folds, "
                f"the ECE of clean windows after {predictions.most_heard_s:.0f} s is {metrics['ece']:.3f} "
                f"(before calibration {metrics['ece_uncalibrated']:.3f}), unmasked "
                f"{metrics['ece_unmasked']:.3f}, and that of clean first windows "
                f"{metrics['ece_first_windows']:.3f}.",
            ]
        if metrics.get("confusion"):
            labels = metrics["labels"]
            lines += ["", f"| acted, percent | {' | '.join(labels)} |", "|---" * (len(labels) + 1) + "|"]
            lines += [
                f"| {label} | {' | '.join(format(share, '.0f') for share in shares)} |"
                for label, shares in zip(labels, metrics["confusion"], strict=True)
            ]
    lines += [
        "",
        "## Limits",
        "",
        "Acted emotions in few languages; real calls are milder and mixed. Use it to notice trends and to "
        "find calls worth hearing, not to judge a person.",
        "",
    ]
    return "\n".join(lines)


def _confidence(predictions: Predictions, row: Mapping[str, Any], metadata: ModelMetadata) -> str:
    found = confidence_at(
        predictions, row["condition"], row["heard_s"], metadata.temperature, metadata.abstain_below
    )
    return f"{found.error:.3f} | {found.error_unmasked:.3f} | {100 * found.unsure_unmasked:.0f} %"
