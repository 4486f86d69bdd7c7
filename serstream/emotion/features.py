"""MFCC of speech windows: the only place where features are computed, in training and in service.

Every parameter lives in one `FeatureSpec`, which travels inside the model file, so that a model can never
be fed by another recipe than the one it learned from.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Literal, NamedTuple

import msgspec
import numpy as np
import threadpoolctl
from msgspec import Meta
from numpy.typing import NDArray

from serstream.emotion.baseline import BaselineSpec
from serstream.emotion.compiled import CompiledAnalyser, compiled_analyser
from serstream.emotion.functionals import FunctionalsSpec, cosines, functionals, names
from serstream.emotion.pitch import PitchSpec, Search, track
from serstream.emotion.spectra import Analysis, NumpyAnalyser
from serstream.errors import UNDECODABLE, ModelError

FloatArray = NDArray[np.float32]

_BLAS = threadpoolctl.ThreadpoolController()

_REACH = 40
"""Samples of sound at half of the rate that the interpolation filter reaches to either side."""


class FeatureSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The recipe from samples to model input. Terms and defaults as in librosa and torchaudio.

    Frames are not centred: frame ``t`` covers samples ``t * hop_length`` to ``t * hop_length + n_fft``, so a
    frame never looks beyond its window.
    """

    sample_rate: Annotated[int, Meta(ge=8000, le=48000)] = 16_000
    """Hz."""
    window_s: Annotated[float, Meta(ge=0.1, le=30)] = 2.0
    """Seconds of speech the model sees; shorter windows are padded, longer ones refused."""
    padding: Literal["repeat", "zeros"] = "repeat"
    """How a shorter window is filled: with itself again, or with digital silence behind it."""
    level_dbfs: Annotated[float, Meta(ge=-60, le=0)] | None = -26.0
    """RMS level every window is brought to first (telephone gain says nothing); None leaves it."""
    n_fft: Annotated[int, Meta(ge=64, le=8192)] = 512
    win_length: Annotated[int, Meta(ge=32, le=8192)] = 400
    """Samples of the periodic Hann window, centred in ``n_fft``."""
    hop_length: Annotated[int, Meta(ge=16, le=8192)] = 160
    n_mels: Annotated[int, Meta(ge=8, le=256)] = 64
    f_min: Annotated[float, Meta(ge=0)] = 50.0
    """Hz, lower edge of the lowest mel filter."""
    f_max: Annotated[float, Meta(gt=0)] = 7600.0
    """Hz, upper edge of the highest mel filter."""
    log_offset: Annotated[float, Meta(gt=0, le=1)] = 1e-6
    """Added to mel power before the natural logarithm."""
    n_mfcc: Annotated[int, Meta(ge=1, le=256)] = 40
    """Coefficients kept of the orthonormal DCT-II, c0 included."""
    deltas: Annotated[int, Meta(ge=0, le=2)] = 0
    """Orders of time derivatives stacked below the coefficients (regression over 9 frames)."""
    mean_normalise: bool = False
    """Subtract each coefficient's mean over the window (cepstral mean normalisation)."""
    pitch: PitchSpec | None = None
    """Two rows of pitch below the coefficients; None: there are none."""
    functionals: FunctionalsSpec | None = None
    """Functionals of the window beside the rows, which want the pitch; None: there are none."""
    baseline: BaselineSpec | None = None
    """The speaker baseline applied to the functionals or, without them, to the rows; None: there is none."""

    def __post_init__(self) -> None:
        if self.win_length > self.n_fft:
            raise ValueError(f"win_length is {self.win_length}, must be at most n_fft ({self.n_fft})")
        if not self.f_min < self.f_max <= self.sample_rate / 2:
            raise ValueError(
                f"f_min {self.f_min} and f_max {self.f_max} must satisfy "
                f"f_min < f_max <= sample_rate / 2 ({self.sample_rate / 2})"
            )
        if self.n_mfcc > self.n_mels:
            raise ValueError(f"n_mfcc is {self.n_mfcc}, must be at most n_mels ({self.n_mels})")
        if self.pitch is not None and self.win_length * self.pitch.f_min < 3 * self.sample_rate:
            raise ValueError(
                f"win_length is {self.win_length} samples, must hold 3 periods of the lowest pitch, "
                f"{self.pitch.f_min} Hz ({3 * self.sample_rate / self.pitch.f_min:.0f} samples)"
            )
        highest = self.sample_rate / 4
        if self.pitch is not None and self.pitch.f_max > highest:
            raise ValueError(
                f"pitch: f_max is {self.pitch.f_max}, must be at most sample_rate / 4 ({highest})"
            )
        if self.functionals is not None and (self.pitch is None or self.functionals.cepstra > self.n_mfcc):
            raise ValueError(
                f"functionals want pitch and at least {self.functionals.cepstra} coefficients (n_mfcc is "
                f"{self.n_mfcc})"
            )
        size = self.n_functionals or self.n_coeffs
        if self.baseline is not None and len(self.baseline.mean) != size:
            raise ValueError(f"baseline has {len(self.baseline.mean)} coefficients, wanted {size}")
        if self.n_samples < self.n_fft:
            raise ValueError(
                f"window_s of {self.window_s} s is shorter than one frame of {self.n_fft} samples"
            )

    @property
    def n_samples(self) -> int:
        """Samples of one window."""
        return round(self.window_s * self.sample_rate)

    def window_length(self, sample_rate: int | None) -> int:
        """Samples of one window at ``sample_rate`` (Hz): the recipe's own (None) or half of it.

        Raises:
            ValueError: another rate, or a recipe whose frames cannot be halved.
        """
        if sample_rate in (None, self.sample_rate):
            return self.n_samples
        if 2 * (sample_rate or 0) != self.sample_rate or self.n_fft % 4 or self.hop_length % 2:
            raise ValueError(
                f"sample_rate is {sample_rate}, wanted {self.sample_rate} or half of it, which wants n_fft "
                f"({self.n_fft}) to be a multiple of 4 and hop_length ({self.hop_length}) of 2"
            )
        return self.n_samples // 2

    @property
    def n_frames(self) -> int:
        """Frames of one window."""
        return 1 + (self.n_samples - self.n_fft) // self.hop_length

    @property
    def n_coeffs(self) -> int:
        """Rows that `mfcc` returns."""
        return self.n_mfcc * (1 + self.deltas) + (0 if self.pitch is None else 2)

    @property
    def n_functionals(self) -> int:
        """Functionals that `summarise` returns."""
        return 0 if self.functionals is None else len(names(self.functionals, self.n_mels))

    def to_json(self) -> str:
        """The spec as JSON, the form in which it travels inside a model file."""
        return msgspec.json.encode(self).decode()

    @staticmethod
    def from_json(text: str) -> FeatureSpec:
        """Read a spec back.

        Raises:
            ModelError: unknown key, wrong type or value out of range.
        """
        try:
            return msgspec.json.decode(text, type=FeatureSpec)
        except UNDECODABLE as error:
            raise ModelError(
                f"feature spec: {error}; this serstream knows {FeatureSpec.__struct_fields__}"
            ) from error


def mfcc(windows: FloatArray, spec: FeatureSpec, sample_rate: int | None = None) -> FloatArray:
    """Mel frequency cepstral coefficients of many windows at once, and their pitch if the recipe has it.

    Davis & Mermelstein 1980 with the HTK mel scale; equals ``torchaudio.transforms.MFCC(log_mels=True)`` with
    ``center=False`` and the same parameters.

    Telephone sound may come at half of the recipe's rate. Its frames are half as long, and the filter with
    which `serstream.audio.resample` would interpolate it is folded into the mel filters: nearly the same
    result at half of the cost.

    Args:
        windows: float32 samples in [-1, 1], shape (n_windows, spec.window_length(sample_rate)).
        spec: the recipe.
        sample_rate: of the windows in Hz: ``spec.sample_rate`` (None) or half of it.

    Returns:
        float32, shape (n_windows, spec.n_coeffs, spec.n_frames). Each row depends on its own window alone.

    Raises:
        ValueError: wrong shape or rate.
    """
    n_samples = spec.window_length(sample_rate)
    if windows.ndim != 2 or windows.shape[1] != n_samples:
        raise ValueError(f"windows have shape {windows.shape}, wanted (n_windows, {n_samples})")
    analysis, analyse = _tables(spec, spec.sample_rate // (sample_rate or spec.sample_rate))
    windows = np.ascontiguousarray(windows, np.float32)
    gain = np.ones(len(windows), np.float32) if spec.level_dbfs is None else _gain(windows, spec.level_dbfs)
    features = np.empty((len(windows), spec.n_coeffs, spec.n_frames), np.float32)
    # On matrices this small, further BLAS threads only spin: they double the processor time for nothing.
    with _BLAS.limit(limits=1, user_api="blas"):
        mel, peaks = analyse(windows, gain)
        mel += np.float32(spec.log_offset)
        np.matmul(cosines(spec.n_mfcc, spec.n_mels), np.log(mel, out=mel), out=features[:, : spec.n_mfcc])
    if analysis.search is not None and peaks is not None:
        features[:, -2:] = track(peaks, analysis.search)
    coefficients = features[:, : spec.n_mfcc]
    if spec.mean_normalise:
        coefficients -= coefficients.mean(axis=2, keepdims=True)
    for order in range(1, spec.deltas + 1):
        coefficients = _slope(coefficients)
        features[:, order * spec.n_mfcc : (order + 1) * spec.n_mfcc] = coefficients
    return features


def summarise(features: FloatArray, spec: FeatureSpec) -> FloatArray:
    """Functionals of features.

    Args:
        features: of `mfcc`, shape (n_windows, spec.n_coeffs, spec.n_frames).
        spec: the recipe.

    Returns:
        float32, shape (n_windows, spec.n_functionals). Each row depends on its own window alone.
    """
    if spec.functionals is None:
        return np.empty((len(features), 0), np.float32)
    with _BLAS.limit(limits=1, user_api="blas"):
        # The DCT is orthonormal: backwards it loses nothing, with fewer coefficients it smooths the spectrum.
        log_mel = cosines(spec.n_mfcc, spec.n_mels).T @ features[:, : spec.n_mfcc]
        cepstra, pitch = features[:, : spec.functionals.cepstra], features[:, -2:]
        return functionals(cepstra, log_mel, pitch, spec.functionals, spec.hop_length / spec.sample_rate)


def levels_dbfs(windows: FloatArray) -> FloatArray:
    """RMS level of every window (n_windows, n_samples) in dB relative to full scale, at least -100."""
    levels: FloatArray = (10 * np.log10(np.maximum(_power(windows), 1e-10))).astype(np.float32)
    return levels


def pad(samples: FloatArray, spec: FeatureSpec, sample_rate: int | None = None) -> FloatArray:
    """Fill a window up to ``spec.window_length(sample_rate)``.

    Args:
        samples: shape (n,), 0 < n <= that.
        spec: the recipe.
        sample_rate: as in `mfcc`.

    Returns:
        shape (spec.window_length(sample_rate),).

    Raises:
        ValueError: empty or too long.
    """
    n_samples = spec.window_length(sample_rate)
    if not 0 < len(samples) <= n_samples:
        raise ValueError(f"window has {len(samples)} samples, wanted 1 to {n_samples}")
    if len(samples) == n_samples:
        return samples
    if spec.padding == "repeat":
        return np.resize(samples, n_samples)
    return np.pad(samples, (0, n_samples - len(samples)))


def _power(windows: FloatArray) -> FloatArray:
    """Mean square of each window, shape (n_windows,)."""
    power: FloatArray = np.square(windows).mean(axis=1)
    return power


def _gain(windows: FloatArray, level_dbfs: float) -> FloatArray:
    """What brings each window to a level, shape (n_windows,)."""
    rms = np.sqrt(_power(windows))
    gain: FloatArray = (10 ** (level_dbfs / 20) / np.maximum(rms, 1e-5)).astype(np.float32)
    return gain


def _slope(coefficients: FloatArray) -> FloatArray:
    """Time derivative: of the line through 9 frames, least squares; the first and last frame are held."""
    held = np.pad(coefficients, ((0, 0), (0, 0), (4, 4)), mode="edge")
    n = coefficients.shape[2]
    slope = np.zeros_like(coefficients)
    for k in range(1, 5):
        slope += k / 60 * (held[:, :, 4 + k : 4 + k + n] - held[:, :, 4 - k : 4 - k + n])
    return slope


class _Tables(NamedTuple):
    """What a recipe says, made ready for use."""

    analysis: Analysis
    analyse: CompiledAnalyser | NumpyAnalyser


@lru_cache(maxsize=16)
def _tables(spec: FeatureSpec, step: int) -> _Tables:
    """For every ``step``-th sample. Looking it up hashes the whole recipe, so that is done once a batch."""

    def mel(hz: float) -> float:
        return float(2595.0 * np.log10(1.0 + hz / 700.0))

    edges = 700.0 * (10.0 ** (np.linspace(mel(spec.f_min), mel(spec.f_max), spec.n_mels + 2) / 2595.0) - 1.0)
    bins = np.linspace(0, spec.sample_rate / 2, spec.n_fft // 2 + 1)[:, None]
    rising = (bins - edges[:-2]) / np.diff(edges)[:-1]
    falling = (edges[2:] - bins) / np.diff(edges)[1:]
    filters = np.maximum(0.0, np.minimum(rising, falling))
    if step == 2:
        filters = _fold(filters)
    taper = _taper(spec)
    analysis = Analysis(
        taper=taper[::step],
        hop_length=spec.hop_length // step,
        n_frames=spec.n_frames,
        filters=filters.astype(np.float32),
        search=None if spec.pitch is None else Search.of(spec.pitch, taper, spec.sample_rate),
    )
    return _Tables(analysis, compiled_analyser(analysis) or NumpyAnalyser(analysis))


def _taper(spec: FeatureSpec) -> FloatArray:
    """Shape (n_fft,)."""
    left = (spec.n_fft - spec.win_length) // 2
    right = spec.n_fft - spec.win_length - left
    return np.pad(np.hanning(spec.win_length + 1)[:-1].astype(np.float32), (left, right))


def _fold(filters: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mel filters (n_fft // 2 + 1, n_mels) for the spectra (n_fft // 4 + 1) of sound at half of the rate.

    Interpolation repeats a spectrum, mirrored, above its Nyquist frequency and filters that: every bin is
    heard where it is and at its image.
    """
    n_bins = len(filters)
    response = np.abs(np.fft.rfft(_interpolation_filter(), 2 * (n_bins - 1))) ** 2
    heard = filters * response[:, None]
    folded: NDArray[np.float64] = heard[: n_bins // 2 + 1]
    folded[:-1] += heard[: n_bins // 2 : -1]
    return folded


def _interpolation_filter() -> FloatArray:
    """What sound at half of the rate would be brought to the rate with, shape (4 * _REACH + 1,).

    Linear in phase, flat to 0.9 and 80 dB down from 1.025 of the sound's Nyquist frequency on.
    """
    cutoff, reach = 0.9625 / 2, 2 * _REACH
    ideal = np.sinc(cutoff * np.arange(-reach, reach + 1)) * np.kaiser(2 * reach + 1, 7.86)
    taps: FloatArray = (ideal * (2 / ideal.sum())).astype(np.float32)
    return taps
