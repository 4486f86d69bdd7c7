"""Functionals: statistics of contours over the window, after openSMILE (Eyben et al. 2010).

What a small training set supports, and what travels between languages: a few hundred clips teach a linear map
of them more than they teach a convolution.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from typing import Annotated

import msgspec
import numpy as np
import scipy.fft
from msgspec import UNSET, Meta, UnsetType
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]

WINDOWS_PER_BLOCK = 4
"""Windows summed up at once; keeps their contours in the processor's cache."""
ROLL_OFFS = (0.25, 0.5, 0.75, 0.9)
"""Shares of the power below the roll-off points."""
SHAPE = (
    "centroid",
    "spread",
    "entropy",
    "flux",
    "balance",
    "Hammarberg index",
    "loudness",
    *(f"roll-off {share:.0%}" for share in ROLL_OFFS),
)
"""Contours of the spectrum's shape, see `spectral_shape`."""
PITCH = ("pitch", "strength")
"""Contours of `serstream.emotion.pitch`."""
PERCENTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
MODULATION_HZ = (0.4, 1.2, 2.2, 3.5, 5.5, 8.5, 13.0, 20.0, 31.0)
"""Edges of the bands of the modulation spectrum; syllables come at about 4 Hz."""
MODULATED = 16
"""Groups of neighbouring mel bands whose modulation is looked at."""
MOMENTS = (
    "mean",
    "deviation",
    "mean step",
    "deviation of steps",
    "slope",
    "mean when voiced",
    "deviation when voiced",
)
"""Of every contour. Steps are changes over two frames; means when voiced are relative to the mean."""
UNVOICED = ("mean when unvoiced", "deviation when unvoiced")
VOICE = ("mean rise of pitch", "size of its steps", "size of its bends", "share of voice", "its changes")


class FunctionalsSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Functionals of mel bands, the spectrum's shape and pitch, beside the rows.

    The others help with voices like those of the training set and hurt with another language.
    """

    cepstra: Annotated[int, Meta(ge=0, le=256)] = 0
    """Coefficients that get functionals too, from c0 on."""
    unvoiced: bool = False
    """Mean and deviation of every contour in unvoiced frames."""
    modulation: bool = False
    """The modulation spectrum of groups of bands."""
    floor: Annotated[float, Meta(gt=0, le=10)] | UnsetType = UNSET
    """Mel power added to every band for a second view of the spectrum, which gets all functionals too; unset,
    there is none. It hides pauses and valleys, which rooms and noise fill: 0.1 lies about 20 dB below the
    mean band of a window at the recipe's level."""


@lru_cache(maxsize=8)
def names(spec: FunctionalsSpec, n_mels: int) -> tuple[str, ...]:
    """What each of the `functionals` is."""
    views = ("",) if spec.floor is UNSET else ("", "floored ")
    few = (*(f"{view}{shape}" for view in views for shape in SHAPE), *PITCH)
    cepstra = [f"{view}cepstrum {i}" for view in views for i in range(spec.cepstra)]
    contours = (*cepstra, *(f"{view}band {i}" for view in views for i in range(n_mels)), *few)
    moments = (*MOMENTS, *(UNVOICED if spec.unvoiced else ()))
    groups = range(MODULATED if spec.modulation else 0)
    modulated = [f"{view}bands {i}/{MODULATED}" for view in views for i in groups]
    bands = [f"modulation {low:g} to {high:g} Hz" for low, high in pairwise(MODULATION_HZ)]
    return (
        *(f"{contour}: {moment}" for moment in moments for contour in contours),
        *VOICE,
        *(f"{contour}: {share:.0%} of frames below" for share in PERCENTILES for contour in few),
        *(f"{contour}: {band}" for contour in modulated for band in bands),
    )


def functionals(
    cepstra: FloatArray, log_mel: FloatArray, pitch: FloatArray, spec: FunctionalsSpec, frame_s: float
) -> FloatArray:
    """Functionals of many windows at once.

    Args:
        cepstra: shape (n_windows, spec.cepstra, n_frames).
        log_mel: natural logarithm of mel power, shape (n_windows, n_mels, n_frames).
        pitch: contours of `serstream.emotion.pitch.track`, shape (n_windows, 2, n_frames).
        spec: which.
        frame_s: from one frame to the next, seconds.

    Returns:
        float32, shape (n_windows, len(names(spec, n_mels))), in that order. Each row
        depends on its own window alone.
    """
    n_windows, n_mels, n_frames = log_mel.shape
    values = np.empty((n_windows, len(names(spec, n_mels))), np.float32)
    ranks = [round(share * (n_frames - 1)) for share in PERCENTILES]
    for begin in range(0, n_windows, WINDOWS_PER_BLOCK):
        block = slice(begin, begin + WINDOWS_PER_BLOCK)
        coefficients, bands = [cepstra[block]], [log_mel[block]]
        if spec.floor is not UNSET:
            bands.append(np.log(np.exp(log_mel[block]) + np.float32(spec.floor)))
            coefficients.append(cosines(spec.cepstra, n_mels) @ bands[1])
        few = np.concatenate([*map(spectral_shape, bands), pitch[block]], axis=1)
        rows = np.concatenate([*coefficients, *bands, few], axis=1)
        octaves, strength = pitch[block, 0], pitch[block, 1]
        voiced = 1 / (1 + np.exp(-20 * (strength - 0.5)))
        parts = [*_moments(rows, voiced, spec.unvoiced), *_voice(octaves, voiced)]
        parts += list(np.sort(few, axis=2)[:, :, ranks].transpose(2, 0, 1))
        if spec.modulation:
            spectrum = modulation_spectrum(np.concatenate(list(map(_groups, bands)), axis=1), frame_s)
            parts.append(spectrum.reshape(len(spectrum), -1))
        np.concatenate(parts, axis=1, out=values[block])
    return values


@lru_cache(maxsize=8)
def cosines(n_cepstra: int, n_mels: int) -> FloatArray:
    """The first rows of the orthonormal DCT-II, shape (n_cepstra, n_mels)."""
    return scipy.fft.dct(np.eye(n_mels), axis=0, norm="ortho")[:n_cepstra].astype(np.float32)


def spectral_shape(log_mel: FloatArray) -> FloatArray:
    """Log-mel power (n, n_mels, n_frames) to contours of the spectrum's shape (n, len(SHAPE), n_frames).

    Centroid, spread and entropy over the bands, flux, power below against above three eighths of them,
    Hammarberg's index (strongest low against strongest middle band), loudness (by Stevens' power law) and
    roll-offs.
    """
    n, n_mels, n_frames = log_mel.shape
    shape = np.empty((n, len(SHAPE), n_frames), np.float32)
    power = np.exp(log_mel)
    total = power.sum(axis=1, keepdims=True)
    share = power / total
    bands = np.arange(n_mels, dtype=np.float32)
    moments = np.stack([bands, bands**2]) @ share
    shape[:, 0] = moments[:, 0]
    shape[:, 1] = np.sqrt(np.maximum(moments[:, 1] - moments[:, 0] ** 2, 0))
    shape[:, 2] = np.log(total[:, 0]) - np.einsum("nbt,nbt->nt", share, log_mel)
    change = np.sqrt(np.square(np.diff(share, axis=2)).sum(axis=1))
    shape[:, 3] = np.concatenate([change[:, :1], change], axis=1)
    low, middle = 3 * n_mels // 8, 5 * n_mels // 8
    shape[:, 4] = _log(power[:, :low].sum(axis=1)) - _log(power[:, low:].sum(axis=1))
    shape[:, 5] = _log(power[:, :low].max(axis=1)) - _log(power[:, low:middle].max(axis=1))
    shape[:, 6] = np.exp(0.23 * log_mel).sum(axis=1)
    # A product, though it adds zeros: a sum along the middle axis takes three times as long.
    before = np.tri(n_mels, k=-1, dtype=np.float32) @ share
    for i, part in enumerate(ROLL_OFFS, start=7):
        # The part of a band counts too: whole bands would jump where two machines round differently.
        shape[:, i] = np.clip((part - before) / (share + 1e-9), 0, 1).sum(axis=1)
    return shape


def modulation_spectrum(contours: FloatArray, frame_s: float) -> FloatArray:
    """Contours (n, rows, n_frames) to the log power of their modulation (n, rows, len(MODULATION_HZ) - 1)."""
    waves, inside = _modulation(contours.shape[2], frame_s)
    centred = contours - contours.mean(axis=2, keepdims=True)
    power = np.square(centred @ waves)
    spectrum: FloatArray = np.log(power @ inside + np.float32(1e-4))
    return spectrum


@lru_cache(maxsize=8)
def _modulation(n_frames: int, frame_s: float) -> tuple[FloatArray, FloatArray]:
    """Tapered cosines and sines (n_frames, 2 * n_bins), and which bins each band takes the mean of."""
    frame = np.arange(n_frames)
    hz = np.fft.rfftfreq(n_frames, frame_s)
    angle = 2 * np.pi * np.outer(frame, np.arange(len(hz))) / n_frames
    taper = 0.5 - 0.5 * np.cos(2 * np.pi * frame / n_frames)
    waves = taper[:, None] * np.concatenate([np.cos(angle), np.sin(angle)], axis=1)
    edges = np.array(MODULATION_HZ)
    inside = (hz[:, None] >= edges[:-1]) & (hz[:, None] < edges[1:])
    bands = np.tile(inside / np.maximum(inside.sum(axis=0), 1), (2, 1))
    return waves.astype(np.float32), bands.astype(np.float32)


def _moments(rows: FloatArray, voiced: FloatArray, unvoiced: bool) -> list[FloatArray]:
    """`MOMENTS` of contours, and `UNVOICED` if wanted, each of shape (n, rows).

    Sums over frames are matrix products with weights of the frames: 1, the voice, and the slope's ramp.

    Args:
        rows: contours, shape (n, rows, n_frames).
        voiced: 0 to 1, shape (n, n_frames).
        unvoiced: whether these are wanted too.
    """
    n_frames = rows.shape[2]
    mean = rows.mean(axis=2)
    centred = rows - mean[:, :, None]
    ramp = np.broadcast_to(np.linspace(-1, 1, n_frames, dtype=np.float32), voiced.shape)
    first = centred @ np.stack([voiced, ramp], axis=2)
    second = np.square(centred) @ np.stack([np.ones_like(voiced), voiced], axis=2)
    step = np.abs(rows[:, :, 2:] - rows[:, :, :-2])
    mean_step = step.mean(axis=2)
    step_variance = np.square(step - mean_step[:, :, None]).mean(axis=2)
    weight = voiced.sum(axis=1)[:, None]
    moments = [
        mean,
        np.sqrt(second[:, :, 0] / n_frames + 1e-5),
        mean_step,
        np.sqrt(step_variance + 1e-5),
        first[:, :, 1] / n_frames,
        *_weighted(weight, first[:, :, 0], second[:, :, 1]),
    ]
    if unvoiced:
        moments += _weighted(n_frames - weight, -first[:, :, 0], second[:, :, 0] - second[:, :, 1])
    return moments


def _weighted(weight: FloatArray, first: FloatArray, second: FloatArray) -> list[FloatArray]:
    """Mean, relative to the mean of all frames, and deviation of weighted frames.

    Args:
        weight: sum of the weights, shape (n, 1).
        first: weighted sum of what is left of the mean of all frames, shape (n, rows).
        second: of its square.
    """
    mean = first / (weight + 1e-2)
    return [mean, np.sqrt(np.maximum(second / (weight + 1e-2) - mean**2, 0) + 1e-4)]


def _voice(octaves: FloatArray, voiced: FloatArray) -> list[FloatArray]:
    """`VOICE` of pitch contours and voicing, both (n, n_frames); each of shape (n, 1)."""
    step = np.diff(octaves, axis=1)
    parts = [
        np.maximum(step, 0).mean(axis=1),
        np.sqrt(np.square(step).mean(axis=1) + 1e-6),
        np.abs(np.diff(step, axis=1)).mean(axis=1),
        voiced.mean(axis=1),
        np.abs(np.diff(voiced, axis=1)).mean(axis=1),
    ]
    return [part[:, None] for part in parts]


def _groups(log_mel: FloatArray) -> FloatArray:
    """Mean of neighbouring bands, (n, MODULATED, n_frames)."""
    n, n_mels, n_frames = log_mel.shape
    width = n_mels // MODULATED
    grouped = log_mel[:, : MODULATED * width].reshape(n, MODULATED, width, n_frames)
    means: FloatArray = grouped.mean(axis=2)
    return means


def _log(power: FloatArray) -> FloatArray:
    logarithm: FloatArray = np.log(power + np.float32(1e-6))
    return logarithm
