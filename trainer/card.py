"""The model card: what a model is, what it was made from, and how well it was measured to work."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from serstream.emotion.metadata import ModelMetadata
from trainer import corpora
from trainer.calibration import confidence_at
from trainer.corpora import Clip
from trainer.folds import PROTOCOLS
from trainer.metrics import counted, interval_of, short_of_speech, tested_on
from trainer.predictions import Predictions
from trainer.recipe import Recipe

_ESC10 = re.compile(r"[1-5]-\d+-[A-Z](-\d+)?")
"""Names of its recordings: fold, clip of freesound.org, take, and in the original the class."""


def training_data(recipe: Recipe, data: Path) -> tuple[str, ...]:
    """Each corpus of a recipe, below a data folder, with its licence and citation."""
    heard = [corpora.about(name, data) for name in recipe.heard]
    return tuple(f"{corpus.name}, {corpus.licence}: {corpus.published}" for corpus in heard)


def learned_of(recipe: Recipe, there: Sequence[Clip], learned: Sequence[Clip]) -> tuple[str, ...]:
    """What was learned of each corpus of a recipe, in the order of `training_data`.

    Args:
        recipe: says which labels were wanted.
        there: all clips of its corpora, and of those of its pretraining, their emotions as these say them.
        learned: those among them that it was trained on.
    """
    found = []
    label_map = recipe.label_map or {}
    for corpus in recipe.heard:
        whole, used = (
            Counter(clip.emotion for clip in clips if clip.corpus == corpus) for clips in (there, learned)
        )
        if corpus not in recipe.corpora:
            found.append(f"{whole.total()} clips of all emotions, for the convolution alone, first")
            continue
        mapped = [f"{whole[e]} {e} as {label}" for e, label in label_map.items() if e in whole]
        left_out = [f"{n} {e}" for e, n in sorted(whole.items()) if label_map.get(e, e) not in recipe.labels]
        lacking = [f"no {label}" for label in recipe.labels if label not in used]
        found.append(
            f"{used.total()} clips"
            + (f"; {', '.join(mapped)}" if mapped else "")
            + f"; left out: {', '.join(left_out) or 'none'}"
            + (f"; has {', '.join(lacking)}" if lacking else "")
        )
    return tuple(found)


def augmented_with(recipe: Recipe, *, noises: Sequence[str], rooms: bool) -> str:
    """A sentence on the recordings that were mixed into the training part.

    Args:
        recipe: says whether any were wanted.
        noises: names of the recordings of noise; white noise stands in for them.
        rooms: whether there were impulse responses.
    """
    settings, used = recipe.augmentation, []
    if settings.variants and settings.noise:
        known = {bool(_ESC10.fullmatch(name)) for name in noises}
        if True in known:
            used.append("ESC-10 (Piczak 2015, CC BY 3.0)")
        if False in known:
            used.append("other recordings of noise")
        if not known:
            used.append("white noise")
    if settings.variants and settings.room and rooms:
        used.append("impulse responses of Chromium's web-audio samples (Apache-2.0)")
    return f"Augmented with {' and '.join(used)}." if used else "Augmented with no other recordings."


def write_card(
    metadata: ModelMetadata,
    recipe: Recipe,
    learned: Sequence[str],
    augmented: str,
    n_parameters: int,
    measured: Sequence[tuple[Mapping[str, Any], Predictions]],
) -> str:
    """Markdown.

    Args:
        metadata: of the model file.
        recipe: it was trained by.
        learned: see `learned_of`.
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
        *(f"- {corpus}\n  - {clips}" for corpus, clips in zip(metadata.training_data, learned, strict=True)),
        "",
        f"{augmented} Clips whose emotion is no label, nor mapped to one, were left out. A label that a "
        "corpus lacks counts as absent there, but less than one that is acted.",
        "",
        "## Measured",
        "",
        f"{metadata.protocol} One prediction per clip; percent, mean ± deviation over seeds, of which each "
        "draws its own augmentation and asks in another fifth of the noises, 95 % interval by bootstrap over "
        "speakers. UA is the mean recall of the classes that were tested; as in the "
        "literature only labels may win that the clip's corpus has and its fold was taught, *unmasked* all "
        "that it was taught, as the daemon says it. ECE (by window) and *unsure*, the unmasked share "
        f"of windows below the abstain threshold, are at temperature {metadata.temperature:.2f} and "
        f"threshold {metadata.abstain_below:.2f}: those of this file, under every protocol.",
    ]
    for metrics, predictions in measured:
        rows = metrics["modes"]
        groups = [name for name in rows[0] if name.startswith("ua ") and name != "ua unknown"]
        lines += [
            "",
            f"### Protocol {metrics['protocol']}: {PROTOCOLS[metrics['protocol']].title}",
            "",
            tested_on(metrics),
            "",
            f"| condition | heard before | seeds | {counted('ua', metrics)} | 95 % | unmasked | UA by window "
            f"| {' | '.join(counted(name, metrics) for name in groups)} | ECE | ECE unmasked | unsure |",
            "|---" * (10 + len(groups)) + "|",
        ]
        lines += [
            f"| {row['condition']} | {row['heard_s']:.0f} s | {row['seeds']} | {_mean(row)} | "
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
        labels = metrics["labels"]
        lines += ["", f"| acted, percent | {' | '.join(labels)} |", "|---" * (len(labels) + 1) + "|"]
        lines += [
            f"| {label} | {' | '.join(format(share, '.0f') for share in shares)} |"
            for label, shares in metrics["confusion"].items()
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


def _mean(row: Mapping[str, Any]) -> str:
    deviation = "" if row["ua_sd"] is None else f" ± {row['ua_sd']:.1f}"
    return f"**{row['ua']:.1f}**{deviation}"


def _confidence(predictions: Predictions, row: Mapping[str, Any], metadata: ModelMetadata) -> str:
    found = confidence_at(
        predictions, row["condition"], row["heard_s"], metadata.temperature, metadata.abstain_below
    )
    return f"{found.error:.3f} | {found.error_unmasked:.3f} | {100 * found.unsure_unmasked:.0f} %"
