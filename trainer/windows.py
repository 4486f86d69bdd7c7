"""From a clip to the windows that the daemon would have cut out of a call with it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import soundfile

from serstream.audio.file import NEGLIGIBLE_S, promised_frames
from serstream.audio.resample import Resampler
from serstream.config import SegmenterSettings
from serstream.emotion.features import FeatureSpec, pad
from serstream.speech.segmenter import Segmenter
from serstream.types import SAMPLE_RATE, Samples, SpeechWindow
from trainer.corpora import Clip, CorpusError

SILENCE_S = 0.5
"""Around every clip, so that its first and last window look as in a call (see `in_silence`)."""


def open_recording(path: Path) -> soundfile.SoundFile:
    """A recording of a corpus, as far as its header tells a whole one.

    Raises:
        CorpusError: the file is not a readable recording, empty, or cut short.
    """
    try:
        file = soundfile.SoundFile(path)
    except (soundfile.LibsndfileError, TypeError) as error:  # TypeError: a headerless .raw
        raise _unreadable(path, error) from error
    if not file.frames:
        file.close()
        raise CorpusError(f"{path}: holds no samples; remove it from the corpus")
    lost_s = (promised_frames(file) - file.frames) / file.samplerate
    if lost_s > NEGLIGIBLE_S:
        file.close()
        raise CorpusError(
            f"{path}: its last {lost_s:.2f} s are missing; copy it again or remove it from the corpus"
        )
    return file


def _unreadable(path: Path, error: Exception) -> CorpusError:
    seen = getattr(error, "error_string", error)
    return CorpusError(f"{path}: cannot read it: {seen}; convert it to WAV or FLAC")


@lru_cache(maxsize=256)
def load(path: Path) -> Samples:
    """Samples of a recording, float32 mono at ``SAMPLE_RATE``, shape (n,), resampled as the daemon does it.

    Raises:
        CorpusError: the file is not a readable recording, empty, cut short, or has a sample that is not a
            number.
    """
    try:
        with open_recording(path) as file:
            samples, rate = file.read(dtype="float32", always_2d=True), file.samplerate
            if not len(samples):
                raise CorpusError(f"{path}: holds no samples; remove it from the corpus")
    except soundfile.LibsndfileError as error:
        raise _unreadable(path, error) from error
    if not np.isfinite(samples).all():
        first = int(np.argmin(np.isfinite(samples).all(axis=1)))
        raise CorpusError(
            f"{path}: sample {first} is {samples[first].tolist()}, wanted finite numbers; record it again or "
            "remove it from the corpus"
        )
    mono: Samples = samples.mean(axis=1)
    if rate == SAMPLE_RATE:
        return mono
    resampler = Resampler(rate, SAMPLE_RATE)
    return np.concatenate([resampler.push(mono), resampler.flush()])


def load_clip(clip: Clip) -> Samples:
    """Samples of a clip, see `load`."""
    return load(clip.path)


def in_silence(samples: Samples) -> Samples:
    """A clip between ``SILENCE_S`` of silence, shape (n + 2 * SILENCE_S * SAMPLE_RATE,).

    A line that it goes over then fills what a window has before the speech and behind it, the segmenter's
    hangover, with its noise and echo, as in a call.
    """
    return np.pad(samples, round(SILENCE_S * SAMPLE_RATE))


@dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """Windows of one clip."""

    windows: Samples
    """(n_windows, spec.n_samples)"""
    seconds: list[float]
    """Sound of each window that no earlier window held."""
    spans: list[tuple[int, int]]
    """First sample of each window in the clip, and the one after its last."""
    spoken: bool
    """Whether speech was detected."""

    def within(self, quiet: Cut) -> Cut:
        """Windows that another cut of the same clip holds at least half of, or those it holds most of.

        In noise the segmenter takes pauses for speech; without it, it knows better.
        """
        held = np.zeros(max(end for _, end in self.spans + quiet.spans), np.bool_)
        for start, end in quiet.spans:
            held[start:end] = True
        shares = np.array([held[start:end].mean() for start, end in self.spans])
        chosen = np.flatnonzero(shares >= min(0.5, shares.max()))
        return Cut(
            self.windows[chosen],
            [self.seconds[i] for i in chosen],
            [self.spans[i] for i in chosen],
            self.spoken,
        )


def cut(samples: Samples, spec: FeatureSpec, settings: SegmenterSettings) -> Cut:
    """Cut a clip as the daemon's `Segmenter` does.

    Args:
        samples: the clip `in_silence`, at ``SAMPLE_RATE``, shape (n,).
        spec: says how long a window is and how a short one is padded.
        settings: of the segmenter.

    Returns:
        At least one window: a clip without detected speech gives its loudest part, so that an evaluation has
        a prediction for every clip.
    """
    segmenter = Segmenter("clip", settings)
    segments = segmenter.push(samples) + segmenter.flush()
    windows, seconds, spans, heard_to = [], [], [], 0
    for segment in segments:
        if isinstance(segment, SpeechWindow):
            windows.append(pad(segment.samples[-spec.n_samples :], spec))
            seconds.append((segment.end - max(segment.start, heard_to)) / SAMPLE_RATE)
            spans.append((max(segment.start, segment.end - spec.n_samples), segment.end))
            heard_to = segment.end
    if windows:
        return Cut(np.stack(windows), seconds, spans, spoken=True)
    around = round(SILENCE_S * SAMPLE_RATE)
    start, end = _loudest(samples, around, len(samples) - around, spec.n_samples)
    loudest = pad(samples[start:end], spec)
    return Cut(loudest[None], [(end - start) / SAMPLE_RATE], [(start, end)], spoken=False)


def _loudest(samples: Samples, start: int, end: int, n_samples: int) -> tuple[int, int]:
    if end - start <= n_samples:
        return start, end
    energy = np.cumsum(np.square(samples[start:end], dtype=np.float64))
    start += int(np.argmax(energy[n_samples:] - energy[:-n_samples]))
    return start, start + n_samples
