"""Waveform augmentation: one *line* is one call of one speaker, with its voice, room, noise and codec.

All clips of a speaker in one variant go over the same line, as all windows of a call do; this is what lets a
speaker baseline be learned from augmented sound.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import msgspec
import numpy as np
import python_stretch
import scipy.signal
import soundfile
import soxr
from msgspec import Meta

from serstream.rtp.concealment import conceal
from serstream.types import SAMPLE_RATE, Samples
from trainer.corpora.clip import CorpusError, audio_files
from trainer.windows import load

SPEECH_DBFS = -26.0
"""Median clip level of a speaker in front of the line (ITU-T P.56 nominal level)."""
TELEPHONE_RATE = 8000
PACKET = 160
"""Samples of one packet, 20 ms."""
ROOM_S = 0.5
"""Impulse responses are faded out by then: offices, not halls."""
FRAME = 320
"""Samples of 20 ms of a noise."""
SILENT_DB = 50.0
"""Frames this far below the level of a noise are left out: ESC-50 fills short sounds up with silence."""

Law: TypeAlias = Literal["ULAW", "ALAW"]
Share = Annotated[float, Meta(ge=0, le=1)]


class Augmentation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``[augmentation]`` of a recipe: how lines are drawn for the training part."""

    variants: Annotated[int, Meta(ge=0, le=64)] = 6
    """Lines per speaker, beside the clean one."""
    speed: Annotated[float, Meta(ge=0, le=0.3)] = 0.1
    """Tempo and pitch together change by at most this share."""
    stretch: Annotated[float, Meta(ge=0, le=0.5)] = 0.0
    """Tempo alone changes by at most this share."""
    pitch: Annotated[float, Meta(ge=0, le=12)] = 0.0
    """Pitch alone changes by at most so many semitones."""
    neutral: Share = 0.0
    """Share of the other clips that are joined to neutral speech of their speaker (see `beside_neutral`)."""
    gain_db: Annotated[float, Meta(ge=0, le=30)] = 6.0
    noise: Share = 0.5
    """Share of lines with noise."""
    noise_db: tuple[float, float] = (5.0, 30.0)
    """Range of signal-to-noise ratios."""
    room: Share = 0.3
    telephone: Share = 0.5
    """Share of lines over 8 kHz G.711, half of them with each law."""
    loss: Share = 0.1
    """Telephone lines lose at most this share of their packets."""
    low_pass: Share = 0.2
    """Share of the other lines that lose the band above a random 3.4 to 7 kHz."""

    def __post_init__(self) -> None:
        low, high = self.noise_db
        if not -math.inf < low <= high < math.inf:
            raise ValueError(f"noise_db is {low:g} to {high:g}, wanted two numbers, the lower one first")


@dataclass(frozen=True, slots=True)
class Line:
    """What happens to the sound of one call, in this order."""

    speed: float = 1.0
    stretch: float = 1.0
    """Factor of the tempo alone."""
    pitch: float = 0.0
    """Semitones, at the same tempo."""
    room: Samples | None = None
    """Impulse response, shape (n,)."""
    gain_db: float = 0.0
    noise: Samples | None = None
    """A recording at ``SPEECH_DBFS``, shape (n,)."""
    noise_db: float = 0.0
    """Ratio of ``SPEECH_DBFS`` to the noise."""
    low_pass_hz: float | None = None
    law: Law | None = None
    """G.711 at 8 kHz."""
    loss: float = 0.0
    """Share of 20 ms packets lost in bursts of two on average, and concealed; needs ``law``."""


CLEAN = Line()


@dataclass(frozen=True, slots=True)
class Sounds:
    """Recordings to augment with."""

    noises: list[Samples]
    """Whole recordings at ``SPEECH_DBFS``."""
    test_noises: list[Samples]
    """Never heard in training."""
    rooms: list[Samples]

    def digest(self) -> bytes:
        """Changes when a recording does, not with which noises are kept for tests."""
        sounds = (*self.noises, *self.test_noises, *self.rooms)
        own = sorted(hashlib.sha256(sound.tobytes()).digest() for sound in sounds)
        return hashlib.sha256(b"".join(own)).digest()

    @staticmethod
    def load(noise_folder: Path, room_folder: Path, seed: int = 0) -> Sounds:
        """Both folders may be missing; white noise then stands in for the recordings.

        A fifth of the noises is kept for tests: the last one (ESC-10's fold 5) with seed 0, the one before
        (fold 4) with seed 1, and so on.

        Raises:
            CorpusError: a recording is silent or cannot be read, or a noise has no second one beside it.
        """
        noises = [_noise(path) for path in audio_files(noise_folder)] or _white_noises()
        if len(noises) == 1:
            raise CorpusError(
                f"{noise_folder}: has one recording, wanted two or more (a fifth is kept for tests) "
                "or none (for white noise)"
            )
        n_train, turned = len(noises) * 4 // 5, seed % 5 * len(noises) // 5
        noises = noises[len(noises) - turned :] + noises[: len(noises) - turned]
        return Sounds(
            noises=noises[:n_train],
            test_noises=noises[n_train:],
            rooms=[_short_room(path) for path in audio_files(room_folder)],
        )


def draw_line(settings: Augmentation, sounds: Sounds, rng: np.random.Generator) -> Line:
    """A random line."""
    line = Line(
        speed=float(rng.uniform(1 - settings.speed, 1 + settings.speed)),
        gain_db=float(rng.uniform(-settings.gain_db, settings.gain_db)),
    )
    if sounds.rooms and rng.random() < settings.room:
        line = replace(line, room=sounds.rooms[rng.integers(len(sounds.rooms))])
    if sounds.noises and rng.random() < settings.noise:
        noise = sounds.noises[rng.integers(len(sounds.noises))]
        line = replace(line, noise=noise, noise_db=float(rng.uniform(*settings.noise_db)))
    if rng.random() < settings.telephone:
        law: Law = "ULAW" if rng.random() < 0.5 else "ALAW"
        line = replace(line, law=law, loss=float(rng.uniform(0, settings.loss)))
    elif rng.random() < settings.low_pass:
        line = replace(line, low_pass_hz=float(rng.uniform(3400, 7000)))
    return replace(
        line,
        stretch=float(rng.uniform(1 - settings.stretch, 1 + settings.stretch)),
        pitch=float(rng.uniform(-settings.pitch, settings.pitch)),
    )


def test_line(condition: str, sounds: Sounds, rng: np.random.Generator) -> Line:
    """The line of a robustness test: ``g711``, ``loss5`` (5 % of packets over G.711), ``noise10`` (10 dB)."""
    if condition == "g711":
        return Line(law="ULAW" if rng.random() < 0.5 else "ALAW")
    if condition == "loss5":
        return Line(law="ULAW" if rng.random() < 0.5 else "ALAW", loss=0.05)
    if condition == "noise10":
        return Line(noise=sounds.test_noises[rng.integers(len(sounds.test_noises))], noise_db=10.0)
    raise ValueError(f"no test condition {condition!r}; there are g711, loss5 and noise10")


def transmit(samples: Samples, line: Line, rng: np.random.Generator) -> Samples:
    """Send a clip over a line.

    Args:
        samples: float32 at ``SAMPLE_RATE``, shape (n,).
        line: what happens to it.
        rng: chooses the part of the noise recording.

    Returns:
        shape (about n / (line.speed * line.stretch),). Clipped to [-1, 1] before the line, whose filters
        may overshoot that.
    """
    if line.stretch != 1.0 or line.pitch:
        samples = stretched(samples, line.stretch, line.pitch)
    if line.speed != 1.0:
        samples = soxr.resample(samples, SAMPLE_RATE * line.speed, SAMPLE_RATE)
    if line.room is not None:
        samples = scipy.signal.fftconvolve(samples, line.room)[: len(samples)].astype(np.float32)
    if line.noise is not None:
        gain = np.float32(10 ** (-line.noise_db / 20))
        samples = samples + gain * _excerpt(line.noise, len(samples), rng)
    samples = np.clip(samples * np.float32(10 ** (line.gain_db / 20)), -1, 1)
    if line.low_pass_hz is not None:
        sections = scipy.signal.butter(6, line.low_pass_hz, output="sos", fs=SAMPLE_RATE)
        samples = scipy.signal.sosfilt(sections, samples).astype(np.float32)
    if line.law is not None:
        samples = g711(samples, line.law, line.loss, rng)
    return samples


def stretched(samples: Samples, tempo: float, pitch: float) -> Samples:
    """Change tempo and pitch independently (Signalsmith Stretch, a phase vocoder that keeps transients).

    Args:
        samples: float32 at ``SAMPLE_RATE``, shape (n,).
        tempo: factor; above 1 is faster.
        pitch: semitones; above 0 is higher.

    Returns:
        shape (about n / tempo,)
    """
    vocoder = python_stretch.Signalsmith.Stretch()
    vocoder.preset(1, SAMPLE_RATE)
    vocoder.setTransposeSemitones(pitch)
    vocoder.timeFactor = tempo
    result: Samples = np.asarray(vocoder.process(samples[None]), np.float32)[0]
    return result


def beside_neutral(samples: Samples, neutral: Samples, n_samples: int, rng: np.random.Generator) -> Samples:
    """A clip right before or after neutral speech of its speaker (CopyPaste, Pappagari et al. 2021).

    Emotions come and go within an utterance. With ``n_samples`` of half a window most full windows are half
    the clip itself. After a pause one may be neutral speech alone, and has the clip's label all the same.

    Args:
        samples: the clip, shape (n,).
        neutral: its first ``n_samples`` follow the clip, or its last ones come before it.
        n_samples: of neutral speech at most.
        rng: chooses which.
    """
    if rng.random() < 0.5:
        return np.concatenate([samples, neutral[:n_samples]])
    return np.concatenate([neutral[-n_samples:], samples])


def g711(samples: Samples, law: Law, loss: float, rng: np.random.Generator) -> Samples:
    """Through an 8 kHz G.711 line and back (libsndfile's coder, the daemon's concealment)."""
    # The filter overshoots clipped peaks, and libsndfile reads beyond its table for what is louder than full
    # scale: random samples.
    narrow = np.clip(soxr.resample(samples, SAMPLE_RATE, TELEPHONE_RATE), -1, 1)
    octets = io.BytesIO()
    soundfile.write(octets, narrow, TELEPHONE_RATE, format="RAW", subtype=law)
    octets.seek(0)
    decoded, _ = soundfile.read(
        octets, dtype="float32", format="RAW", subtype=law, samplerate=TELEPHONE_RATE, channels=1
    )
    for start, end in _lost(len(decoded), loss, rng):
        decoded[start:end] = conceal(decoded[:start], end - start, TELEPHONE_RATE)
    wide: Samples = soxr.resample(decoded, TELEPHONE_RATE, SAMPLE_RATE)
    return wide


def _lost(n_samples: int, loss: float, rng: np.random.Generator) -> Iterator[tuple[int, int]]:
    """Bursts of lost packets (Gilbert 1960: a packet after a lost one is lost with probability 1/2)."""
    start = None
    for begin in range(0, n_samples, PACKET):
        chance = loss / (2 * (1 - loss)) if start is None else 0.5
        lost = rng.random() < chance
        if lost and start is None:
            start = begin
        if not lost and start is not None:
            yield start, begin
            start = None
    if start is not None:
        yield start, n_samples


def level_dbfs(samples: Samples) -> float:
    """RMS level in dB relative to full scale."""
    return float(10 * np.log10(np.mean(np.square(samples, dtype=np.float64)) + 1e-10))


def _white_noises() -> list[Samples]:
    rng = np.random.default_rng(0)
    return [_at_level(rng.normal(0, 0.1, 5 * SAMPLE_RATE).astype(np.float32)) for _ in range(5)]


def _noise(path: Path) -> Samples:
    """What sounds of a recording, at ``SPEECH_DBFS``."""
    samples = load(path)
    frames = samples[: len(samples) // FRAME * FRAME].reshape(-1, FRAME)
    power = np.square(frames, dtype=np.float64).mean(axis=1)
    loud = power > power.mean() * 10 ** (-SILENT_DB / 10) if len(power) else np.zeros(0, np.bool_)
    if not loud.any():
        raise CorpusError(f"{path}: is silent or too short, wanted noise; remove it")
    return _at_level(frames[loud].ravel())


def _at_level(samples: Samples) -> Samples:
    return samples * np.float32(10 ** ((SPEECH_DBFS - level_dbfs(samples)) / 20))


def _excerpt(recording: Samples, n_samples: int, rng: np.random.Generator) -> Samples:
    start = int(rng.integers(len(recording)))
    return np.resize(np.roll(recording, -start), n_samples)


def _short_room(path: Path) -> Samples:
    """An impulse response from the direct sound on, faded out over ``ROOM_S``, of unit energy."""
    response = load(path)
    response = response[int(np.argmax(np.abs(response))) :][: round(ROOM_S * SAMPLE_RATE)]
    response = response * np.hanning(2 * len(response))[len(response) :].astype(np.float32)
    energy = np.sum(np.square(response))
    if not energy:
        raise CorpusError(f"{path}: is silent after its peak, wanted an impulse response; remove it")
    unit: Samples = response / np.sqrt(energy)
    return unit
