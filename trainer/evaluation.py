"""Figures of a protocol: one prediction per clip for recalls, one per window for calibration."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.optimize
from numpy.typing import NDArray
from scipy.special import log_softmax

from serstream.emotion.features import FloatArray

Labels = NDArray[np.int64]
Counts = NDArray[np.int64]

MASKED = -1e4
"""Logit of a label that may not win, for example one that the clip's corpus does not have."""
DRAWS = 10_000
"""Resamplings of a bootstrap."""
MIN_DRAWS = DRAWS // 10
"""Fewer that have every label say too little of how speakers differ."""
MIN_SPEAKERS = 5
"""Fewer are too alike in a bootstrap to tell how speakers differ."""
CALIBRATION_BINS = 15
LOG_TEMPERATURE = 3.0
"""Temperatures are sought between its exponential and the inverse."""


def clip_scores(logits: FloatArray, clip: NDArray[Any]) -> tuple[Labels, FloatArray]:
    """Mean log probability over the windows of each clip.

    Args:
        logits: shape (n_windows, n_labels).
        clip: index of each window's clip, shape (n_windows,).

    Returns:
        Indices of the clips (n,), and their scores (n, n_labels).
    """
    clips, inverse = np.unique(clip, return_inverse=True)
    scores = np.zeros((len(clips), logits.shape[1]), np.float32)
    np.add.at(scores, inverse, log_softmax(logits, axis=-1))
    scores /= np.bincount(inverse)[:, None]
    return clips.astype(np.int64), scores


def best(scores: FloatArray, allowed: NDArray[np.bool_]) -> Labels:
    """The label with the highest score among those allowed, shape (n,).

    Args:
        scores: shape (n, n_labels).
        allowed: shape (n, n_labels), or (n_labels,) where it is the same for all.
    """
    chosen: Labels = np.where(allowed, scores, -np.inf).argmax(axis=1)
    return chosen


def confusion(label: Labels, predicted: Labels, n_labels: int) -> Counts:
    """Counts, rows are true labels, shape (n_labels, n_labels)."""
    counts = np.zeros((n_labels, n_labels), np.int64)
    np.add.at(counts, (label, predicted), 1)
    return counts


def recalls(counts: NDArray[Any]) -> NDArray[np.float64]:
    """Recall of each label, NaN where it does not occur; counts (..., n_labels, n_labels)."""
    total = counts.sum(axis=-1)
    diagonal = np.diagonal(counts, axis1=-2, axis2=-1)
    share: NDArray[np.float64] = np.divide(diagonal, total, out=np.full(total.shape, np.nan), where=total > 0)
    return share


def uar(counts: NDArray[Any]) -> NDArray[np.float64]:
    """Unweighted average recall over the labels that occur; counts (..., n_labels, n_labels)."""
    mean: NDArray[np.float64] = np.nanmean(recalls(counts), axis=-1)
    return mean


def clip_uar(logits: FloatArray, clip: NDArray[Any], label: Labels, known: NDArray[np.bool_]) -> float:
    """UAR of clips, each judged over the labels that its corpus has.

    Args:
        logits: of windows, shape (n_windows, n_labels).
        clip: index of each window's clip, shape (n_windows,).
        label: of every clip, shape (n_clips,).
        known: labels that its corpus has, shape (n_clips, n_labels).
    """
    clips, scores = clip_scores(logits, clip)
    return float(uar(confusion(label[clips], best(scores, known[clips]), known.shape[1])))


def macro_f1(counts: Counts) -> float:
    """Mean over the labels that occur of the harmonic mean of precision and recall."""
    correct = np.diagonal(counts)
    total = counts.sum(axis=0) + counts.sum(axis=1)
    return float(np.mean(2 * correct[counts.sum(axis=1) > 0] / total[counts.sum(axis=1) > 0]))


def drawn_uar(counts: Counts) -> NDArray[np.float64]:
    """UAR of speakers drawn with replacement, the same ones every time, shape (DRAWS,).

    NaN where nobody drawn has a label that others have: the mean over the rest is another figure.

    Args:
        counts: a confusion matrix for each speaker, shape (n_speakers, n_labels, n_labels).
    """
    n = len(counts)
    weights = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), DRAWS)
    drawn = recalls(np.tensordot(weights, counts, axes=1))
    mean: NDArray[np.float64] = drawn[:, counts.any(axis=(0, 2))].mean(axis=-1)
    return mean


def interval(draws: NDArray[np.float64]) -> tuple[float, float] | None:
    """The middle 95 % of the draws that have every label; None where these are fewer than ``MIN_DRAWS``."""
    complete = draws[~np.isnan(draws)]
    if len(complete) < MIN_DRAWS:
        return None
    low, high = np.percentile(complete, [2.5, 97.5])
    return float(low), float(high)


def fit_temperature(logits: FloatArray, label: Labels) -> float:
    """The temperature that makes logits (n, n_labels) most likely (Guo et al. 2017)."""

    def loss(log_temperature: float) -> float:
        scores = log_softmax(logits / np.float32(np.exp(log_temperature)), axis=-1)
        return float(-scores[np.arange(len(label)), label].mean())

    found = scipy.optimize.minimize_scalar(loss, bounds=(-LOG_TEMPERATURE, LOG_TEMPERATURE), method="bounded")
    return float(np.exp(found.x))


def reliability(confidence: FloatArray, correct: NDArray[np.bool_]) -> list[tuple[float, float, int]]:
    """For each bin of equal width: mean confidence, share correct, count; empty bins are left out."""
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    return [
        (float(confidence[bins == b].mean()), float(correct[bins == b].mean()), int((bins == b).sum()))
        for b in np.unique(bins)
    ]


def calibration_error(bins: list[tuple[float, float, int]]) -> float:
    """Expected calibration error of `reliability`'s bins."""
    total = sum(count for _, _, count in bins)
    return sum(abs(confidence - share) * count for confidence, share, count in bins) / total


def risk_coverage(confidence: FloatArray, correct: NDArray[np.bool_]) -> tuple[FloatArray, FloatArray]:
    """Share kept and share of errors among them, from the most confident on; both of shape (n,)."""
    order = np.argsort(-confidence, kind="stable")
    kept = np.arange(1, len(order) + 1)
    risk = np.cumsum(~correct[order]) / kept
    return (kept / len(order)).astype(np.float32), risk.astype(np.float32)
