"""From the predictions of a protocol to metrics.json."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from serstream.emotion.features import FloatArray
from serstream.errors import ConfigError
from trainer.evaluation import (
    MASKED,
    Counts,
    Labels,
    calibration_error,
    clip_scores,
    confusion,
    drawn_uar,
    fit_temperature,
    interval,
    macro_f1,
    recalls,
    reliability,
    risk_coverage,
    uar,
)
from trainer.folds import Protocol
from trainer.predictions import Part, Predictions
from trainer.recipe import Recipe

logger = logging.getLogger(__name__)

ABSTAIN_SHARE = 0.2
"""Windows that the suggested abstain threshold gives up: the least confident fifth."""
ENOUGH = 0.98
"""Share of the speech said to be heard; where test speakers have less of it, report and card say so."""


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """How far confidences can be believed, over held-out windows."""

    folds: int
    temperature: float
    """Found with all folds; 1 where there is only one, which would be judged with what it chose."""
    error_before: float
    error: float
    """Expected calibration error, each fold with the temperature of the other folds."""
    bins: list[tuple[float, float, int]]
    coverage: FloatArray
    risk: FloatArray
    abstain_below: float
    error_unmasked: float
    """As ``error``, when every label that the fold taught may win, as in the daemon."""
    unsure_unmasked: float
    """Share of the windows that are then below ``abstain_below``, 0 to 1."""
    error_first: float
    """As ``error``, at the same temperatures, of windows before which nothing was heard."""


@dataclass(frozen=True, slots=True)
class Confidence:
    """How far confidences can be believed under one condition, at a given temperature and threshold."""

    error: float
    """Expected calibration error over the labels that a clip's corpus has."""
    error_unmasked: float
    """As ``error``, when every label that the fold taught may win, as in the daemon."""
    unsure_unmasked: float
    """Share of the windows that are then below the threshold, 0 to 1."""


@dataclass(frozen=True, slots=True, eq=False)
class _Windows:
    """Test windows that can be right: some training clip of their fold has their label; part by part."""

    folds: list[str]
    truth: list[Labels]
    masked: list[FloatArray]
    """Logits (n_windows, n_labels) that leave only labels of the clip's corpus a chance."""
    unmasked: list[FloatArray]
    """Those that leave every label a chance that the fold taught."""


def figures(
    recipe: Recipe, protocol: Protocol, predictions: Predictions, calibration: Calibration
) -> dict[str, Any]:
    """What metrics.json holds; ``calibration`` is that of the predictions."""
    heard_s = predictions.most_heard_s
    counts = pooled_confusion(predictions, heard_s)
    return {
        "recipe": recipe.name,
        "recipe_sha256": recipe.sha256,
        "protocol": protocol.name,
        "data": predictions.data,
        "speakers_overlap": protocol.overlap,
        "labels": predictions.labels,
        "modes": modes(predictions),
        "confusion": percent(counts).round(1).tolist(),
        "folds": calibration.folds,
        "temperature": round(calibration.temperature, 4),
        "ece": round(calibration.error, 4),
        "ece_first_windows": round(calibration.error_first, 4),
        "ece_uncalibrated": round(calibration.error_before, 4),
        "abstain_below": round(calibration.abstain_below, 4),
        "ece_unmasked": round(calibration.error_unmasked, 4),
        "unsure_unmasked": round(calibration.unsure_unmasked, 4),
    }


def percent(counts: Counts) -> NDArray[np.float64]:
    """Shares of each true label, shape (n_labels, n_labels)."""
    shares: NDArray[np.float64] = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return shares


def modes(predictions: Predictions) -> list[dict[str, Any]]:
    """One entry per condition and amount of speech heard before; recalls in percent.

    Clips are judged over the labels that their corpus has, and ``unmasked`` over all that their fold taught.
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
    label, predicted = _by_clip(predictions, _chosen(predictions, "clean", heard_s))[1:]
    return confusion(label, predicted, len(predictions.labels))


def calibrate(predictions: Predictions) -> Calibration:
    """Over clean windows after the most speech; no fold has a say in the temperature it is measured with.

    The temperature is fit on the windows of every condition, however much was heard before them: calls begin
    with strangers, and lines are noisy. Windows whose label no training clip of their fold has are left out:
    no temperature makes them right.

    Raises:
        ConfigError: nothing else is there.
    """
    _warn_of_missing_labels(predictions)
    windows = _possible(predictions, "clean", predictions.most_heard_s)
    masked, truth = windows.masked, windows.truth
    if not truth:
        raise ConfigError(
            "no fold was trained on a label that it is tested on; wanted two or more speakers of every label"
        )

    conditions = sorted({(part.condition, part.heard_s) for part in predictions.parts})
    every = [_possible(predictions, condition, heard_s) for condition, heard_s in conditions]

    def fit(without: str | None) -> float:
        parts = [
            (logits, labels)
            for part in every
            for fold, logits, labels in zip(part.folds, part.masked, part.truth, strict=True)
            if fold != without
        ]
        return fit_temperature(
            np.concatenate([logits for logits, _ in parts]), np.concatenate([labels for _, labels in parts])
        )

    alone = len(set(windows.folds)) == 1
    by_fold = {fold: 1.0 if alone else fit(fold) for fold in set(windows.folds)}
    temperatures = [by_fold[fold] for fold in windows.folds]
    first = _possible(predictions, "clean", 0.0)
    first_temperatures = [by_fold[fold] for fold in first.folds]
    uncalibrated, _ = _judged(masked, truth, [1.0] * len(truth))
    confidence, right = _judged(masked, truth, temperatures)
    confidence_unmasked, right_unmasked = _judged(windows.unmasked, truth, temperatures)
    bins = reliability(confidence, right)
    coverage, risk = risk_coverage(confidence, right)
    abstain_below = float(np.quantile(confidence, ABSTAIN_SHARE))
    return Calibration(
        folds=len(by_fold),
        temperature=1.0 if alone else fit(None),
        error_before=calibration_error(reliability(uncalibrated, right)),
        error=calibration_error(bins),
        bins=bins,
        coverage=coverage,
        risk=risk,
        abstain_below=abstain_below,
        error_unmasked=calibration_error(reliability(confidence_unmasked, right_unmasked)),
        unsure_unmasked=float(np.mean(confidence_unmasked < abstain_below)),
        error_first=calibration_error(reliability(*_judged(first.masked, first.truth, first_temperatures))),
    )


def confidence_at(
    predictions: Predictions, condition: str, heard_s: float, temperature: float, abstain_below: float
) -> Confidence:
    """Confidences of a model that has this temperature and threshold, over the windows of `calibrate`."""
    windows = _possible(predictions, condition, heard_s)
    temperatures = [temperature] * len(windows.truth)
    unmasked, right_unmasked = _judged(windows.unmasked, windows.truth, temperatures)
    return Confidence(
        error=calibration_error(reliability(*_judged(windows.masked, windows.truth, temperatures))),
        error_unmasked=calibration_error(reliability(unmasked, right_unmasked)),
        unsure_unmasked=float(np.mean(unmasked < abstain_below)),
    )


def _possible(predictions: Predictions, condition: str, heard_s: float) -> _Windows:
    labels, windows = _labels(predictions), _Windows([], [], [], [])
    for part in _chosen(predictions, condition, heard_s):
        possible = predictions.known[part.clip, labels[part.clip]]
        if possible.any():
            logits, clip = part.logits[possible], part.clip[possible]
            windows.folds.append(part.fold)
            windows.truth.append(labels[clip])
            windows.masked.append(_masked(logits, predictions.known[clip]))
            windows.unmasked.append(_masked(logits, _taught(predictions, part)))
    return windows


def _warn_of_missing_labels(predictions: Predictions) -> None:
    labels = _labels(predictions)
    missed = {
        (part.fold, predictions.clips[i].emotion)
        for part in predictions.parts
        for i in part.clip[~predictions.known[part.clip, labels[part.clip]]]
    }
    for fold, label in sorted(missed):
        logger.warning("%s: no training speaker is %s; these clips count as wrong everywhere", fold, label)


def _mode(predictions: Predictions, condition: str, heard_s: float) -> dict[str, Any]:
    chosen = _chosen(predictions, condition, heard_s)
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
    bounds = interval(drawn_uar(by_speaker))
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


def _chosen(predictions: Predictions, condition: str, heard_s: float) -> list[Part]:
    return [p for p in predictions.parts if p.condition == condition and p.heard_s == heard_s]


def _by_clip(
    predictions: Predictions, parts: list[Part], *, masked: bool = True
) -> tuple[Labels, Labels, Labels]:
    """Clips of all parts, their labels and predictions, each of shape (n_clips,)."""
    labels, clips, predicted = _labels(predictions), [], []
    for part in parts:
        clip, scores = clip_scores(part.logits, part.clip)
        clips.append(clip)
        allowed = predictions.known[clip] if masked else _taught(predictions, part)
        predicted.append(np.where(allowed, scores, -np.inf).argmax(axis=1))
    joined = np.concatenate(clips)
    return joined, labels[joined], np.concatenate(predicted)


def _by_window(predictions: Predictions, parts: list[Part], *, masked: bool = True) -> tuple[Labels, Labels]:
    clip = np.concatenate([part.clip for part in parts])
    predicted = []
    for part in parts:
        allowed = predictions.known[part.clip] if masked else _taught(predictions, part)
        predicted.append(np.where(allowed, part.logits, -np.inf).argmax(axis=1))
    return _labels(predictions)[clip], np.concatenate(predicted)


def _taught(predictions: Predictions, part: Part) -> NDArray[np.bool_]:
    """Labels that some training clip of the part's fold has, shape (n_labels,).

    ``known`` tells it for the labels of the corpora that are tested; others are trained on as a whole.
    """
    tested = np.unique(part.clip)
    corpora = {predictions.clips[i].corpus for i in tested}
    others = {clip.emotion for clip in predictions.clips if clip.corpus not in corpora}
    taught: NDArray[np.bool_] = np.isin(predictions.labels, list(others))
    taught |= predictions.known[tested].any(axis=0)
    return taught


def _labels(predictions: Predictions) -> Labels:
    return np.array([predictions.labels.index(clip.emotion) for clip in predictions.clips])


def _masked(logits: FloatArray, allowed: NDArray[np.bool_]) -> FloatArray:
    """Logits (n, n_labels) that leave only some labels a chance."""
    masked: FloatArray = np.where(allowed, logits, np.float32(MASKED))
    return masked


def _judged(
    logits: Sequence[FloatArray], truth: Sequence[Labels], temperatures: Sequence[float]
) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Confidence in the best label of every window of all parts, and whether it is the right one."""
    confidence, right = [], []
    for part, label, temperature in zip(logits, truth, temperatures, strict=True):
        confidence.append(softmax(part / np.float32(temperature), axis=1).max(axis=1))
        right.append(part.argmax(axis=1) == label)
    return np.concatenate(confidence), np.concatenate(right)


def _ua(counts: NDArray[Any]) -> float:
    return 100 * float(uar(counts))


def _clean_first(key: tuple[str, float]) -> tuple[bool, str, float]:
    return key[0] != "clean", *key
