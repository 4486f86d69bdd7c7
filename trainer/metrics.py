"""Recognition under a protocol, and metrics.json: recalls by condition, sex and corpus, with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from trainer.calibration import Calibration
from trainer.corpora.clip import Sex
from trainer.evaluation import (
    MIN_SPEAKERS,
    Counts,
    Labels,
    best,
    clip_scores,
    confusion,
    drawn_uar,
    interval,
    macro_f1,
    recalls,
    uar,
)
from trainer.folds import Protocol
from trainer.predictions import Part, Predictions
from trainer.recipe import Recipe

ENOUGH = 0.98
"""Share of the speech said to be heard; where test speakers have less of it, report and card say so."""


def figures(
    recipe: Recipe, protocol: Protocol, predictions: Predictions, calibration: Calibration
) -> dict[str, Any]:
    """What metrics.json holds; ``calibration`` is that of the predictions."""
    heard_s = predictions.most_heard_s
    shares = percent(pooled_confusion(predictions, heard_s)).round(1).tolist()
    by_label = dict(zip(predictions.labels, shares, strict=True))
    tests = tested(predictions)
    return {
        "recipe": recipe.name,
        "recipe_sha256": recipe.sha256,
        "protocol": protocol.name,
        "data": predictions.data,
        "speakers_overlap": protocol.overlap,
        "labels": predictions.labels,
        "tested": tests,
        "modes": modes(predictions),
        "confusion": {label: by_label[label] for label in tests["ua"]["labels"]},
        "folds": calibration.folds,
        "temperature": round(calibration.temperature, 4),
        "temperature_found_with": calibration.found_with,
        "ece": round(calibration.error, 4),
        "ece_first_windows": round(calibration.error_first, 4),
        "ece_uncalibrated": round(calibration.error_before, 4),
        "abstain_below": round(calibration.abstain_below, 4),
        "ece_unmasked": round(calibration.error_unmasked, 4),
        "unsure_unmasked": round(calibration.unsure_unmasked, 4),
    }


def percent(counts: Counts) -> NDArray[np.float64]:
    """Shares of each true label, NaN where it does not occur, shape (n_labels, n_labels)."""
    total = counts.sum(axis=1, keepdims=True)
    shares: NDArray[np.float64] = np.divide(
        100 * counts, total, out=np.full(counts.shape, np.nan), where=total > 0
    )
    return shares


def tested(predictions: Predictions) -> dict[str, dict[str, Any]]:
    """How many clips, and which labels they have, behind every UA of `modes`, by its name there."""
    parts = predictions.parts_of("clean", predictions.most_heard_s)
    clips = [predictions.clips[i] for i in np.unique(np.concatenate([part.clip for part in parts]))]
    groups = {"ua": clips}
    for kind in ("sex", "corpus"):
        for value in sorted({getattr(clip, kind) for clip in clips}):
            groups[f"ua {value}"] = [clip for clip in clips if getattr(clip, kind) == value]
    return {
        name: {
            "clips": len(own),
            "labels": [label for label in predictions.labels if label in {clip.emotion for clip in own}],
        }
        for name, own in groups.items()
    }


def tested_on(metrics: Mapping[str, Any]) -> str:
    """A sentence on the clips and classes that each corpus was tested on."""
    sexes = {f"ua {sex}" for sex in get_args(Sex)}
    found = [
        f"{name.removeprefix('ua ')} on {own['clips']} clips of {', '.join(own['labels'])}"
        for name, own in metrics["tested"].items()
        if name != "ua" and name not in sexes
    ]
    return f"Tested: {'; '.join(found)}. In brackets: the number of classes that a UA is the mean of."


def counted(name: str, metrics: Mapping[str, Any]) -> str:
    """The name of a UA as the heading of a column, with the number of classes that it is the mean of."""
    return f"{name.replace('ua', 'UA', 1)} ({len(metrics['tested'][name]['labels'])})"


def modes(predictions: Predictions) -> list[dict[str, Any]]:
    """One entry per condition and amount of speech heard before; recalls in percent.

    Clips are judged over the labels that their corpus has and their fold taught, and ``unmasked`` over all
    that it taught.
    """
    keys = sorted({(part.condition, part.heard_s) for part in predictions.parts}, key=_clean_first)
    return [_mode(predictions, condition, heard_s) for condition, heard_s in keys]


def interval_of(mode: Mapping[str, Any]) -> str:
    """The 95 % interval of an entry of `modes` as tables say it; a dash where there is none."""
    bounds = mode["ua_interval"]
    return "-" if bounds is None else f"{bounds[0]:.1f} to {bounds[1]:.1f}"


def short_of_speech(predictions: Predictions) -> str:
    """Sentences on the corpora whose test speakers have less speech than a row says; empty without any."""
    sentences = []
    for corpus, heard in predictions.heard.items():
        rows = [
            f"{there:.3g} s where {wanted} s are said"
            for wanted, there in heard.items()
            if there < ENOUGH * float(wanted)
        ]
        if rows:
            sentences.append(
                f"Test speakers of {corpus} have less other speech than some rows say: in the mean "
                f"{', '.join(rows)}."
            )
    return " ".join(sentences)


def pooled_confusion(predictions: Predictions, heard_s: float) -> Counts:
    """Clean clips of all folds and seeds, shape (n_labels, n_labels)."""
    label, predicted = _by_clip(predictions, predictions.parts_of("clean", heard_s))[1:]
    return confusion(label, predicted, len(predictions.labels))


def _mode(predictions: Predictions, condition: str, heard_s: float) -> dict[str, Any]:
    chosen = predictions.parts_of(condition, heard_s)
    n_labels = len(predictions.labels)
    seeds = sorted({part.seed for part in chosen})
    rows = []
    for seed in seeds:
        own = [part for part in chosen if part.seed == seed]
        clip, label, predicted = _by_clip(predictions, own)
        counts = confusion(label, predicted, n_labels)
        window_label, window_predicted = _by_window(predictions, own)
        unmasked = _by_clip(predictions, own, masked=False)[2]
        rows.append(
            {
                "ua": _ua(counts),
                "wa": 100 * float(np.mean(label == predicted)),
                "f1": 100 * macro_f1(counts),
                "window_ua": _ua(confusion(window_label, window_predicted, n_labels)),
                "ua_unmasked": _ua(confusion(label, unmasked, n_labels)),
                "window_ua_unmasked": _ua(confusion(*_by_window(predictions, own, masked=False), n_labels)),
                **_groups(predictions, clip, label, predicted),
            }
        )
    clip, label, predicted = _by_clip(predictions, chosen)
    speakers = np.array([predictions.clips[i].speaker for i in clip])
    by_speaker = np.stack(
        [confusion(label[speakers == s], predicted[speakers == s], n_labels) for s in np.unique(speakers)]
    )
    bounds = interval(drawn_uar(by_speaker)) if len(by_speaker) >= MIN_SPEAKERS else None
    by_class = 100 * recalls(confusion(label, predicted, n_labels))
    return {
        "condition": condition,
        "heard_s": heard_s,
        "seeds": len(seeds),
        "clips": len(np.unique(clip)),
        **{name: round(float(np.mean([row[name] for row in rows])), 2) for name in rows[0]},
        "ua_sd": round(float(np.std([row["ua"] for row in rows], ddof=1)), 2) if len(rows) > 1 else None,
        "ua_interval": None if bounds is None else [round(100 * bound, 2) for bound in bounds],
        "recall": {
            name: round(float(recall), 2)
            for name, recall in zip(predictions.labels, by_class, strict=True)
            if not np.isnan(recall)
        },
    }


def _groups(predictions: Predictions, clip: Labels, label: Labels, predicted: Labels) -> dict[str, float]:
    """UA by sex and by corpus."""
    figures = {}
    for kind in ("sex", "corpus"):
        values = np.array([getattr(predictions.clips[i], kind) for i in clip])
        for value in np.unique(values):
            own = values == value
            figures[f"ua {value}"] = _ua(confusion(label[own], predicted[own], len(predictions.labels)))
    return figures


def _by_clip(
    predictions: Predictions, parts: list[Part], *, masked: bool = True
) -> tuple[Labels, Labels, Labels]:
    """Clips of all parts, their labels and predictions, each of shape (n_clips,)."""
    labels, clips, predicted = predictions.label_of_clip, [], []
    for part in parts:
        clip, scores = clip_scores(part.logits, part.clip)
        clips.append(clip)
        allowed = predictions.known[clip] if masked else predictions.taught(part)
        predicted.append(best(scores, allowed))
    joined = np.concatenate(clips)
    return joined, labels[joined], np.concatenate(predicted)


def _by_window(predictions: Predictions, parts: list[Part], *, masked: bool = True) -> tuple[Labels, Labels]:
    clip = np.concatenate([part.clip for part in parts])
    predicted = []
    for part in parts:
        allowed = predictions.known[part.clip] if masked else predictions.taught(part)
        predicted.append(best(part.logits, allowed))
    return predictions.label_of_clip[clip], np.concatenate(predicted)


def _ua(counts: NDArray[Any]) -> float:
    return 100 * float(uar(counts))


def _clean_first(key: tuple[str, float]) -> tuple[bool, str, float]:
    return key[0] != "clean", *key
