"""How far confidences can be believed: temperature, abstain threshold and calibration error."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from serstream.emotion.features import FloatArray
from serstream.errors import ConfigError
from trainer.evaluation import MASKED, Labels, calibration_error, fit_temperature, reliability, risk_coverage
from trainer.predictions import Part, Predictions

logger = logging.getLogger(__name__)

ABSTAIN_SHARE = 0.2
"""Windows that the suggested abstain threshold gives up: the least confident fifth."""


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """How far confidences can be believed, over held-out windows."""

    folds: int
    found_with: Literal["other folds", "validation speakers", "nothing"]
    """What each fold's temperature is found with; a single one would be judged with what it chose."""
    temperature: float
    """Found with all folds, or with the validation speakers of a single one; 1 where it has none."""
    error_before: float
    error: float
    """Expected calibration error, each fold with a temperature that its test part has no say in."""
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
    """Windows that can be right: some training clip of their fold has their label; part by part."""

    folds: list[str]
    truth: list[Labels]
    masked: list[FloatArray]
    """Logits (n_windows, n_labels) that leave only labels of the clip's corpus a chance."""
    unmasked: list[FloatArray]
    """Those that leave every label a chance that the fold taught."""


def calibrate(predictions: Predictions) -> Calibration:
    """Over clean windows after the most speech; no fold has a say in the temperature it is measured with.

    The temperature is fit on the windows of every condition, however much was heard before them: calls begin
    with strangers, and lines are noisy. Windows whose label no training clip of their fold has are left out:
    no temperature makes them right.

    Raises:
        ConfigError: nothing else is there.
    """
    _warn_of_missing_labels(predictions)
    windows = _possible(predictions, predictions.parts_of("clean", predictions.most_heard_s))
    masked, truth = windows.masked, windows.truth
    if not truth:
        raise ConfigError(
            "no fold was trained on a label that it is tested on; wanted two or more speakers of every label"
        )

    alone = len(set(windows.folds)) == 1
    held_out = predictions.validation if alone else predictions.parts
    every = _possible(predictions, sorted(held_out, key=lambda part: (part.condition, part.heard_s)))

    def fit(without: str | None) -> float:
        kept = [k for k, fold in enumerate(every.folds) if fold != without]
        return fit_temperature(
            np.concatenate([every.masked[k] for k in kept]), np.concatenate([every.truth[k] for k in kept])
        )

    temperature = fit(None) if every.folds else 1.0
    by_fold = {fold: temperature if alone else fit(fold) for fold in set(windows.folds)}
    temperatures = [by_fold[fold] for fold in windows.folds]
    first = _possible(predictions, predictions.parts_of("clean", 0.0))
    first_temperatures = [by_fold[fold] for fold in first.folds]
    uncalibrated, _ = _judged(masked, truth, [1.0] * len(truth))
    confidence, right = _judged(masked, truth, temperatures)
    confidence_unmasked, right_unmasked = _judged(windows.unmasked, truth, temperatures)
    bins = reliability(confidence, right)
    coverage, risk = risk_coverage(confidence, right)
    abstain_below = float(np.quantile(confidence, ABSTAIN_SHARE))
    return Calibration(
        folds=len(by_fold),
        found_with="other folds" if not alone else "validation speakers" if every.folds else "nothing",
        temperature=temperature,
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
    windows = _possible(predictions, predictions.parts_of(condition, heard_s))
    temperatures = [temperature] * len(windows.truth)
    unmasked, right_unmasked = _judged(windows.unmasked, windows.truth, temperatures)
    return Confidence(
        error=calibration_error(reliability(*_judged(windows.masked, windows.truth, temperatures))),
        error_unmasked=calibration_error(reliability(unmasked, right_unmasked)),
        unsure_unmasked=float(np.mean(unmasked < abstain_below)),
    )


def _possible(predictions: Predictions, parts: Sequence[Part]) -> _Windows:
    labels, windows = predictions.label_of_clip, _Windows([], [], [], [])
    for part in parts:
        possible = predictions.known[part.clip, labels[part.clip]]
        if possible.any():
            logits, clip = part.logits[possible], part.clip[possible]
            windows.folds.append(part.fold)
            windows.truth.append(labels[clip])
            windows.masked.append(_masked(logits, predictions.known[clip]))
            windows.unmasked.append(_masked(logits, predictions.taught(part)))
    return windows


def _warn_of_missing_labels(predictions: Predictions) -> None:
    labels = predictions.label_of_clip
    missed = {
        (part.fold, predictions.clips[i].emotion)
        for part in predictions.parts
        for i in part.clip[~predictions.known[part.clip, labels[part.clip]]]
    }
    for fold, label in sorted(missed):
        logger.warning("%s: no training speaker is %s; these clips count as wrong everywhere", fold, label)


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
