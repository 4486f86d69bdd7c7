"""What a recording sounds like, on the whole and over time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import msgspec
import numpy as np
import soxr

from serstream.config import Settings
from serstream.emotion.model import EmotionModel
from serstream.feed.messages import (
    Distribution,
    StreamEnded,
    UnscoredReason,
    UtteranceEmotion,
    WindowEmotion,
    WindowUnscored,
)
from serstream.replay import replay
from serstream.types import AudioBlock, AudioChunk, Role, Samples, SourceEvent


class Utterance(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of speech; times in seconds of the recording."""

    start: float
    end: float
    emotion: str
    confidence: float
    probabilities: Distribution


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """One stream of a recording."""

    recording: str
    """Path, escaped where it is no text; or ``microphone``."""
    stream: str
    role: Role
    model: str
    """``name@version``."""
    seconds: float
    """Length of the stream."""
    speech_s: float
    emotion: str | None
    """The winner; None: no speech that could be scored."""
    confidence: float
    probabilities: Distribution
    """Mean over the scored windows; without any empty, and ``confidence`` 0."""
    windows: int
    """Scored ones."""
    unscored: dict[UnscoredReason, int]
    """Windows that were not, by reason."""
    utterances: list[Utterance]


@dataclass(frozen=True, slots=True, eq=False)
class Classified:
    """A verdict, and what it rests on."""

    verdict: Verdict
    windows: list[WindowEmotion]
    samples: Samples
    """The stream's sound, shape (n,); the beginning of it where there was more than was asked for."""
    sample_rate: int


def classify(
    recording: str,
    events: Iterable[SourceEvent],
    settings: Settings,
    model: EmotionModel,
    keep_s: float = 0.0,
) -> list[Classified]:
    """Put a recording through the daemon's pipeline and sum up each of its streams.

    Args:
        recording: what to call it.
        events: of a source, to their end.
        settings: of the pipeline.
        model: scores the windows.
        keep_s: seconds of each stream's sound to keep.
    """
    tape = _Tape(keep_s)
    windows: dict[str, list[WindowEmotion]] = {}
    utterances: dict[str, list[Utterance]] = {}
    unscored: dict[str, Counter[UnscoredReason]] = {}
    ended: list[StreamEnded] = []
    for message in replay(tape.record(events), settings, model):
        match message:
            case WindowEmotion():
                windows.setdefault(message.stream, []).append(message)
            case WindowUnscored():
                unscored.setdefault(message.stream, Counter())[message.reason] += 1
            case UtteranceEmotion():
                utterances.setdefault(message.stream, []).append(
                    msgspec.convert(message, Utterance, from_attributes=True)
                )
            case StreamEnded():
                ended.append(message)
    return [
        Classified(
            _verdict(
                recording,
                end,
                windows.get(end.stream, []),
                utterances.get(end.stream, []),
                unscored.get(end.stream, {}),
            ),
            windows.get(end.stream, []),
            *tape.sound(end.stream),
        )
        for end in ended
    ]


def _verdict(
    recording: str,
    end: StreamEnded,
    windows: list[WindowEmotion],
    utterances: list[Utterance],
    unscored: dict[UnscoredReason, int],
) -> Verdict:
    labels = windows[0].probabilities if windows else ()
    mean = {
        label: round(sum(window.probabilities[label] for window in windows) / len(windows), 4)
        for label in labels
    }
    emotion = max(mean, key=mean.__getitem__, default=None)
    return Verdict(
        recording=recording,
        stream=end.stream,
        role=end.role,
        model=end.model,
        seconds=end.end,
        speech_s=end.speech_s,
        emotion=emotion,
        confidence=mean[emotion] if emotion else 0.0,
        probabilities=mean,
        windows=len(windows),
        unscored=dict(unscored),
        utterances=utterances,
    )


class _Tape:
    """Keeps the first seconds of every stream that passes by."""

    def __init__(self, keep_s: float):
        self._keep_s = keep_s
        self._chunks: dict[str, list[AudioChunk]] = {}

    def record(self, events: Iterable[SourceEvent]) -> Iterator[SourceEvent]:
        for event in events:
            if isinstance(event, AudioBlock):
                for chunk in event.chunks():
                    self._keep(chunk)
            elif isinstance(event, AudioChunk):
                self._keep(event)
            yield event

    def sound(self, stream: str) -> tuple[Samples, int]:
        """Samples, shape (n,), silent where the source left silence out, and their rate in Hz.

        A codec that changes in mid-call brings another rate: all is brought to the highest one.
        """
        chunks = self._chunks.get(stream, [])
        rate = max((chunk.sample_rate for chunk in chunks), default=0)
        runs = [(own, list(run)) for own, run in groupby(chunks, lambda chunk: chunk.sample_rate)]
        return _placed([(run[0].start * rate / own, _resampled(run, rate)) for own, run in runs]), rate

    def _keep(self, chunk: AudioChunk) -> None:
        if chunk.start < self._keep_s * chunk.sample_rate:
            self._chunks.setdefault(chunk.stream, []).append(chunk)


def _resampled(run: Sequence[AudioChunk], rate: int) -> Samples:
    """Sound of one rate, from the first chunk's start on, at another."""
    first = run[0]
    sound = _placed([(chunk.start - first.start, chunk.samples) for chunk in run])
    resampled: Samples = soxr.resample(sound, first.sample_rate, rate)
    return resampled


def _placed(pieces: Sequence[tuple[float, Samples]]) -> Samples:
    """Pieces in one array, each at its position, with silence between them."""
    places = [(round(position), piece) for position, piece in pieces]
    sound = np.zeros(max((start + len(piece) for start, piece in places), default=0), np.float32)
    for start, piece in places:
        sound[start : start + len(piece)] = piece
    return sound
