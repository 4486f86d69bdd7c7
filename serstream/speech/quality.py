"""How far a window can be trusted, and when it must not be scored."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from serstream.config import QualitySettings
from serstream.types import Quality, SpeechWindow

QualityFault: TypeAlias = Literal["loss", "clipping", "level", "speech"]

FULL_SCALE = 0.98
"""The loudest mu-law sample is 32,124 of 32,768; at or above it a sample counts as clipped."""


def clipped(samples: NDArray[np.float32]) -> NDArray[np.int64]:
    """Indices of the samples, shape (n,), that count as clipped."""
    return np.flatnonzero(np.abs(samples) >= FULL_SCALE)


def measure(
    samples: NDArray[np.float32], loss: float, speech: float, n_clipped_before: float = 0.0
) -> Quality:
    """Quality of one window.

    Args:
        samples: shape (n,), n > 0.
        loss: share of its sound that was concealed.
        speech: share of its frames that the voice activity detector called speech.
        n_clipped_before: samples of it that were clipped before resampling, which rounds the edges off.
    """
    power = float(np.dot(samples, samples)) / len(samples)
    return Quality(
        loss=loss,
        clipping=min(1.0, max(len(clipped(samples)), n_clipped_before) / len(samples)),
        level_dbfs=10 * math.log10(max(power, 1e-12)),
        speech=speech,
    )


def quality_fault(window: SpeechWindow, settings: QualitySettings) -> QualityFault | None:
    """Why a window must not be scored, or None if it may."""
    quality = window.quality
    if quality.loss > settings.max_loss:
        return "loss"
    if quality.clipping > settings.max_clipping:
        return "clipping"
    if quality.level_dbfs < settings.min_level_dbfs:
        return "level"
    if quality.speech < settings.min_speech:
        return "speech"
    return None
