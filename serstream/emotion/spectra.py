"""From windows to mel power and pitch candidates, by numpy: what `serstream.emotion.compiled` does in C."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from serstream.emotion.pitch import Search, peaks

FloatArray = NDArray[np.float32]

BANDS = 4
"""Parts into which the mel filters are divided."""
WINDOWS_PER_BLOCK = 4
"""Windows transformed at once; keeps the spectra in the processor's cache."""


class Analysis(NamedTuple):
    """What is done to every frame of a window."""

    taper: FloatArray
    """Shape (n_fft,)."""
    hop_length: int
    """Samples from frame to frame."""
    n_frames: int
    """Of a window."""
    filters: FloatArray
    """Mel filters, shape (n_fft // 2 + 1, n_mels)."""
    search: Search | None
    """Where the pitch is looked for; None: nowhere."""


class Spectra(NamedTuple):
    """What an analysis tells of windows."""

    mel: FloatArray
    """Power behind the mel filters, shape (n_windows, n_mels, n_frames)."""
    peaks: FloatArray | None
    """As `serstream.emotion.pitch.peaks`; None: pitch was not looked for."""


class NumpyAnalyser:
    """Does an analysis."""

    def __init__(self, analysis: Analysis):
        self._analysis = analysis
        self._bands = _bands(analysis.filters)

    def __call__(self, windows: FloatArray, gain: FloatArray) -> Spectra:
        """Analyse windows (n_windows, n_samples), each multiplied by its gain (n_windows,)."""
        taper, hop_length, n_frames, filters, search = self._analysis
        mel = np.zeros((len(windows), filters.shape[1], n_frames), np.float32)
        found = None if search is None else np.empty((len(windows), 4, n_frames), np.float32)
        for begin in range(0, len(windows), WINDOWS_PER_BLOCK):
            block = slice(begin, begin + WINDOWS_PER_BLOCK)
            frames = _frames(windows[block], len(taper), hop_length, n_frames)
            spectrum = scipy.fft.rfft(frames * (taper * gain[block, None, None]), axis=-1)
            power = np.square(spectrum.real)
            power += np.square(spectrum.imag)
            for band in self._bands:
                np.matmul(band.filters, power[..., band.bins].swapaxes(1, 2), out=mel[block, band.mels])
            if search is not None and found is not None:
                found[block] = peaks(power, search)
        return Spectra(mel, found)


def _frames(windows: FloatArray, length: int, hop_length: int, n_frames: int) -> FloatArray:
    """A view of windows (n, n_samples) as overlapping frames (n, n_frames, length)."""
    step = windows.itemsize
    strides = (windows.strides[0], hop_length * step, step)
    frames: FloatArray = np.ndarray((len(windows), n_frames, length), np.float32, windows, strides=strides)
    return frames


class _Band(NamedTuple):
    """Some neighbouring mel filters and the bins that they reach over."""

    bins: slice
    mels: slice
    filters: FloatArray
    """Shape (n_mels, n_bins) of the band."""


def _bands(filters: FloatArray) -> list[_Band]:
    """Mel filters (n_bins, n_mels) in groups: low ones reach over few bins, most of the matrix is zeros."""
    bands = []
    for mels in np.array_split(np.arange(filters.shape[1]), BANDS):
        bins = np.flatnonzero(filters[:, mels].any(axis=1))
        if len(bins):
            reach, group = slice(int(bins[0]), int(bins[-1]) + 1), slice(int(mels[0]), int(mels[-1]) + 1)
            bands.append(_Band(reach, group, filters[reach, group].T.copy()))
    return bands
