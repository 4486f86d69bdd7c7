"""Pitch of speech, and how strongly voiced each frame is, from the MFCC's power spectra.

Autocorrelation divided by the taper's own (Boersma 1993). Candidates are compared frame by frame: no path is
searched, so a frame costs one inverse transform and nothing looks ahead.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

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


class Search(NamedTuple):
    """Which lags of a spectrum's autocorrelation are compared, and how."""

    spec: PitchSpec
    """What is looked for."""
    rate: float
    """Hz of the lags."""
    n_lags: int
    """Length of the autocorrelation; its spectrum has ``n_lags // 2 + 1`` bins."""
    first_bin: int
    """Power below it is left out."""
    shortest: int
    """Shortest lag that may be the period."""
    longest: int
    """Longest one."""
    taper: FloatArray
    """Autocorrelation of the frames' taper, 1 at lag 0, shape (longest + 2,)."""
    cost: FloatArray
    """What is taken off the strength of every lag, shape (longest + 1,)."""

    @staticmethod
    def of(spec: PitchSpec, taper: FloatArray, sample_rate: int) -> Search:
        """For spectra of frames with this taper (n_fft,) at ``sample_rate`` (Hz).

        A telephone passes half the band, and half the band makes half the transform: lags are at half the
        rate.
        """
        n_fft, rate = len(taper), sample_rate / 2
        shortest, longest = int(rate / spec.f_max), int(np.ceil(rate / spec.f_min))
        of_taper = scipy.fft.irfft(np.abs(scipy.fft.rfft(taper, 2 * n_fft)) ** 2)[:n_fft:2]
        lags = np.arange(longest + 1)
        return Search(
            spec=spec,
            rate=rate,
            n_lags=n_fft // 2,
            first_bin=int(spec.f_min / sample_rate * n_fft) + 1,
            shortest=shortest,
            longest=longest,
            taper=(of_taper[: longest + 2] / of_taper[0]).astype(np.float32),
            cost=(spec.octave_cost * np.log2(np.maximum(lags, shortest) / shortest)).astype(np.float32),
        )


def peaks(power: FloatArray, search: Search) -> FloatArray:
    """Where the autocorrelation of every frame is highest.

    Args:
        power: spectra of tapered frames, shape (n_windows, n_frames, at least search.n_lags // 2 + 1).
        search: where to look.

    Returns:
        float32, shape (n_windows, 4, n_frames): the lag, and the normalised autocorrelation one lag before
        it, at it, and one lag behind it.
    """
    band = power[:, :, : search.n_lags // 2 + 1].copy()
    band[:, :, : search.first_bin] = 0
    correlation = scipy.fft.irfft(band, search.n_lags, axis=-1)[:, :, : search.longest + 2]
    correlation /= np.maximum(correlation[:, :, :1], 1e-9) * search.taper
    among = slice(search.shortest, search.longest + 1)
    best = search.shortest + (correlation[:, :, among] - search.cost[among]).argmax(axis=-1)
    around = np.take_along_axis(correlation, best[:, :, None] + (-1, 0, 1), axis=-1)
    return np.concatenate([best[:, None].astype(np.float32), around.swapaxes(1, 2)], axis=1)


def track(peaks: FloatArray, search: Search) -> FloatArray:
    """Follow the pitch through windows.

    Args:
        peaks: as `peaks` returns them, shape (n_windows, 4, n_frames).
        search: what they were found with.

    Returns:
        float32, shape (n_windows, 2, n_frames). First row: octaves above the lowest pitch; an unvoiced frame
        keeps the last voiced one's, those before the first voiced frame have its. Second row: strength, the
        normalised autocorrelation at the pitch period, at most 1.
    """
    best, before, strength, after = peaks.swapaxes(0, 1)
    curvature = np.minimum(before - 2 * strength + after, -1e-6)
    period = best + np.clip((before - after) / (2 * curvature), -0.5, 0.5)
    octaves = np.log2(search.rate / period / search.spec.f_min)
    contour = _hold(octaves, strength, search.spec.voicing_threshold)
    return np.stack([contour, np.minimum(strength, 1)], axis=1)


def _hold(octaves: FloatArray, strength: FloatArray, threshold: float) -> FloatArray:
    """Keep the last voiced frame's pitch; the strongest frame counts as voiced."""
    voiced = strength >= np.minimum(strength.max(axis=1, keepdims=True), threshold)
    frame = np.where(voiced, np.arange(octaves.shape[1]), 0)
    held = np.maximum(np.maximum.accumulate(frame, axis=1), voiced.argmax(axis=1)[:, None])
    contour: FloatArray = np.take_along_axis(octaves, held, axis=1)
    return contour
