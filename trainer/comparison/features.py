"""Feature sets of the studies: from the samples of a clip to one array of fixed shape.

The studies used librosa, so these do; librosa's defaults where a study names no parameter. They read clips at
22.05 kHz, which for CREMA-D (16 kHz) and telephone sound adds nothing: everything here is at ``SAMPLE_RATE``.
MFCC on which a network of the daemon could run are computed by `serstream.emotion.features` alone.
"""

from __future__ import annotations

from collections.abc import Callable

import librosa
import numpy as np
import scipy.stats

from serstream.emotion.features import FeatureSpec, FloatArray, mfcc, pad
from serstream.types import SAMPLE_RATE, Samples
from trainer.corpora import Clip
from trainer.corpora.clip import Sex

N_FFT = 2048
HOP_LENGTH = 512
N_MFCC = 20
FLAT_S = 2.5
"""Seconds of a clip that study A flattens."""
E1_LENGTH = 800
E2_SHAPE = (128, 400)
E2_HOP_LENGTH = 160
"""10 ms, so that 400 frames are 4 s; the study does not give it."""
SEXES: tuple[Sex, ...] = ("female", "male", "unknown")
TRIM_DB = 30
"""Edges this far below the loudest frame are silence."""

FeatureSet = Callable[[Samples, Clip], FloatArray]


def flattened(samples: Samples, clip: Clip) -> FloatArray:
    """Study A1: 20 MFCC, zero crossing rate and RMS energy of 79 frames, one after the other: (1738,).

    The first 2.5 s, padded with zeros (librosa.feature.mfcc, zero_crossing_rate and rms).
    """
    sound = librosa.util.fix_length(samples, size=round(FLAT_S * SAMPLE_RATE))
    rows = (
        librosa.feature.mfcc(y=sound, sr=SAMPLE_RATE, n_mfcc=N_MFCC, n_fft=N_FFT, hop_length=HOP_LENGTH),
        _zero_crossings(sound),
        _energy(sound),
    )
    return np.concatenate([row.ravel() for row in rows]).astype(np.float32)


def acoustic(samples: Samples, clip: Clip) -> FloatArray:
    """Studies B and C: 162 means over all frames, shape (162,).

    Zero crossing rate (1), chroma of the STFT (12), MFCC (20), RMS (1), mel power spectrogram (128); all from
    librosa.feature. Tuning is taken as standard: speech has none, and estimating it takes most of the time.
    """
    magnitude = np.abs(librosa.stft(samples, n_fft=N_FFT, hop_length=HOP_LENGTH))
    mel = librosa.feature.melspectrogram(S=magnitude**2, sr=SAMPLE_RATE, n_mels=128)
    rows = (
        _zero_crossings(samples),
        librosa.feature.chroma_stft(S=magnitude, sr=SAMPLE_RATE, n_fft=N_FFT, tuning=0.0),
        librosa.feature.mfcc(S=librosa.power_to_db(mel), n_mfcc=N_MFCC),
        _energy(samples),
        mel,
    )
    return np.concatenate([row.mean(axis=1) for row in rows]).astype(np.float32)


def fused(samples: Samples, clip: Clip) -> FloatArray:
    """Study B's input beside deep features: the 162 of `acoustic`, 6 statistics, 3 for the sex: (171,).

    Statistics: mean, variance, skewness and kurtosis of the samples, means of the spectral centroid and
    bandwidth (Hz; librosa.feature). The sex is one-hot: female, male, unknown.
    """
    magnitude = np.abs(librosa.stft(samples, n_fft=N_FFT, hop_length=HOP_LENGTH))
    statistics = [
        samples.mean(),
        samples.var(),
        scipy.stats.skew(samples),
        scipy.stats.kurtosis(samples),
        librosa.feature.spectral_centroid(S=magnitude, sr=SAMPLE_RATE).mean(),
        librosa.feature.spectral_bandwidth(S=magnitude, sr=SAMPLE_RATE).mean(),
    ]
    sex = [float(clip.sex == sex) for sex in SEXES]
    return np.concatenate([acoustic(samples, clip), np.array([*statistics, *sex], np.float32)])


def zero_crossings_energy(samples: Samples, clip: Clip) -> FloatArray:
    """Study E1: zero crossing rates of all frames, then their RMS, padded with zeros or cut: (800,)."""
    rows = np.concatenate([_zero_crossings(samples)[0], _energy(samples)[0]])
    fixed: FloatArray = librosa.util.fix_length(rows, size=E1_LENGTH).astype(np.float32)
    return fixed


def mel_db(samples: Samples, clip: Clip) -> FloatArray:
    """Study E2: mel power spectrogram in dB below its maximum, at least -80: (128, 400).

    librosa.feature.melspectrogram and power_to_db; padded with -80 dB behind, or cut.
    """
    n_mels, n_frames = E2_SHAPE
    power = librosa.feature.melspectrogram(
        y=samples, sr=SAMPLE_RATE, n_fft=N_FFT, hop_length=E2_HOP_LENGTH, n_mels=n_mels
    )
    decibels = librosa.power_to_db(power, ref=np.max)
    fixed: FloatArray = librosa.util.fix_length(decibels, size=n_frames, axis=1, constant_values=-80.0)
    return fixed.astype(np.float32)


def mfcc_matrix(spec: FeatureSpec) -> FeatureSet:
    """Studies A2, A3 and D: MFCC of the start of the clip as the daemon computes them.

    Returns:
        A feature set of shape (spec.n_coeffs, spec.n_frames); a shorter clip is padded as ``spec`` says.
    """
    return lambda samples, clip: mfcc(pad(samples[: spec.n_samples], spec)[None], spec)[0]


def trimmed(samples: Samples) -> Samples:
    """Without the silence at both ends (librosa.effects.trim)."""
    spoken: Samples = librosa.effects.trim(samples, top_db=TRIM_DB)[0]
    return spoken


def _zero_crossings(samples: Samples) -> FloatArray:
    rate: FloatArray = librosa.feature.zero_crossing_rate(
        samples, frame_length=N_FFT, hop_length=HOP_LENGTH
    ).astype(np.float32)
    return rate


def _energy(samples: Samples) -> FloatArray:
    energy: FloatArray = librosa.feature.rms(y=samples, frame_length=N_FFT, hop_length=HOP_LENGTH)
    return energy


FEATURES: dict[str, FeatureSet] = {
    "flattened": flattened,
    "acoustic": acoustic,
    "fused": fused,
    "zero_crossings_energy": zero_crossings_energy,
    "mel_db": mel_db,
}
"""By the name a recipe gives them; ``mfcc`` is `mfcc_matrix` of the recipe's spec."""
