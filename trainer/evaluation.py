"""Figures of a trained network: one prediction per clip."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from serstream.emotion.features import FloatArray
from trainer.dataset import WindowSet


def log_softmax(logits: FloatArray) -> FloatArray:
    """Over the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    result: FloatArray = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


def clip_scores(logits: FloatArray, windows: WindowSet) -> tuple[NDArray[np.int64], FloatArray]:
    """Mean log probability over the windows of each clip.

    Returns:
        Indices of the clips (n,), and their scores (n, n_labels).
    """
    clips, inverse = np.unique(windows.clip, return_inverse=True)
    scores = np.zeros((len(clips), logits.shape[1]), np.float32)
    np.add.at(scores, inverse, log_softmax(logits))
    scores /= np.bincount(inverse)[:, None]
    return clips.astype(np.int64), scores


def confusion(label: NDArray[np.int64], predicted: NDArray[np.int64], n_labels: int) -> NDArray[np.int64]:
    """Counts, rows are true labels, shape (n_labels, n_labels)."""
    counts = np.zeros((n_labels, n_labels), np.int64)
    np.add.at(counts, (label, predicted), 1)
    return counts


def uar(label: NDArray[np.int64], predicted: NDArray[np.int64]) -> float:
    """Unweighted average recall over the labels that occur."""
    return float(np.mean([np.mean(predicted[label == k] == k) for k in np.unique(label)]))
