"""Pitch of speech: how high the voice is and how much of a voice it is, from the MFCC's power spectra.

Autocorrelation divided by the taper's own (Boersma 1993). Candidates are compared frame by frame: no path is
searched, so a frame costs one inverse transform and nothing looks ahead.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated

import msgspec
import numpy as np
import scipy.fft
from msgspec import Meta
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]


class PitchSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Two rows below the coefficients: the pitch contour and the strength of the voice."""

    f_min: Annotated[float, Meta(gt=0)] = 60.0
    """Hz, lowest pitch."""
    f_max: Annotated[float, Meta(gt=0)] = 600.0
    """Hz, highest pitch."""
    octave_cost: Annotated[float, Meta(ge=0, le=1)] = 0.05
    """What an octave down costs a candidate, in strength: the highest of equally good ones is meant."""
    voicing_threshold: Annotated[float, Meta(ge=0, le=1)] = 0.5
    """Strength from which a frame is voiced."""

    def __post_init__(self) -> None:
        if not self.f_min < self.f_max:
            raise ValueError(f"pitch: f_min is {self.f_min}, must be below f_max ({self.f_max})")


def track(power: FloatArray, taper: FloatArray, spec: PitchSpec, sample_rate: int) -> FloatArray:
    """Follow the pitch through windows.

    Args:
        power: spectra of tapered frames, shape (n_windows, n_frames, n_fft // 2 + 1).
        taper: of the frames, shape (n_fft,).
        spec: the recipe.
        sample_rate: Hz.

    Returns:
        float32, shape (n_windows, 2, n_frames). First row: octaves above ``spec.f_min``; an unvoiced frame
        keeps the last voiced one's, those before the first voiced frame have its. Second row: strength, the
        normalised autocorrelation at the pitch period, at most 1.
    """
    n_fft = len(taper)
    # A telephone passes half the band, and half the band makes half the transform.
    rate = sample_rate / 2
    shortest, longest = int(rate / spec.f_max), int(np.ceil(rate / spec.f_min))
    band = power[:, :, : n_fft // 4 + 1].copy()
    band[:, :, : int(spec.f_min / sample_rate * n_fft) + 1] = 0
    correlation = scipy.fft.irfft(band, n_fft // 2, axis=-1)[:, :, : longest + 2]
    correlation /= np.maximum(correlation[:, :, :1], 1e-9) * _of_taper(taper.tobytes())[: longest + 2]
    lags = np.arange(shortest, longest + 1)
    cost = (spec.octave_cost * np.log2(lags / shortest)).astype(np.float32)
    best = shortest + (correlation[:, :, shortest : longest + 1] - cost).argmax(axis=-1)

    before, strength, after = (
        np.take_along_axis(correlation, (best + offset)[:, :, None], axis=-1)[:, :, 0]
        for offset in (-1, 0, 1)
    )
    curvature = np.minimum(before - 2 * strength + after, -1e-6)
    period = best + np.clip((before - after) / (2 * curvature), -0.5, 0.5)
    octaves = np.log2(rate / period / spec.f_min)
    rows = np.stack([_hold(octaves, strength, spec.voicing_threshold), np.minimum(strength, 1)], axis=1)
    return rows.astype(np.float32)


def _hold(octaves: FloatArray, strength: FloatArray, threshold: float) -> FloatArray:
    """Keep the last voiced frame's pitch; the strongest frame counts as voiced."""
    voiced = strength >= np.minimum(strength.max(axis=1, keepdims=True), threshold)
    frame = np.where(voiced, np.arange(octaves.shape[1]), 0)
    held = np.maximum(np.maximum.accumulate(frame, axis=1), voiced.argmax(axis=1)[:, None])
    contour: FloatArray = np.take_along_axis(octaves, held, axis=1)
    return contour


@lru_cache(maxsize=8)
def _of_taper(taper: bytes) -> FloatArray:
    """Autocorrelation of a float32 taper (n_fft,) at every second lag, 1 at lag 0, shape (n_fft // 2,)."""
    samples = np.frombuffer(taper, np.float32)
    correlation = scipy.fft.irfft(np.abs(scipy.fft.rfft(samples, 2 * len(samples))) ** 2)[: len(samples) : 2]
    normalised: FloatArray = (correlation / correlation[0]).astype(np.float32)
    return normalised
