"""The words that flow through the monitor, from sound to scores.

A *stream* is one direction of one call from one source; a *call* groups streams; a stream has a *role*.
Positions are sample counts since the stream began.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

import msgspec

if TYPE_CHECKING:  # the feed's client needs the words, not numpy
    import numpy as np
    from numpy.typing import NDArray

Role: TypeAlias = Literal["customer", "agent", "unknown"]
Severity: TypeAlias = Literal["information", "warning", "critical"]
EndReason: TypeAlias = Literal["eof", "bye", "timeout", "lost", "shutdown"]
Samples: TypeAlias = "NDArray[np.float32]"

SAMPLE_RATE = 16_000
"""Hz; stages behind the resampler count in it, and work at it or, with telephone sound, at half of it."""
INT16_SCALE = 32768
"""What a sample of 1.0 is in 16 bits."""


@dataclass(frozen=True, slots=True)
class StreamStart:
    """A source announces a stream before its first chunk."""

    stream: str
    """Unique while the stream lives, and in its call for ever; letters, digits, '-' and '_' only."""
    call: str
    role: Role
    source: str
    """Where the sound comes from, for people: ``rtp:5004``, ``file:call.wav``, ``microphone:default``."""
    started_at: float
    """UTC of sample 0, seconds since the Unix epoch."""
    patient: bool = False
    """Its sound can wait, as that of a file: overload delays it and does not mute it."""


class AudioChunk(msgspec.Struct, frozen=True, eq=False, gc=False):
    """A piece of one stream, in order; where ``start`` jumps, nothing was said or heard."""

    stream: str
    samples: Samples
    """float32 mono in [-1, 1], shape (n,)."""
    sample_rate: int
    """Hz, the source's own rate."""
    start: int
    """Position of ``samples[0]`` in samples (at ``sample_rate``) since the stream began."""
    lost: int = 0
    """How many of ``samples`` were never received but concealed."""
    arrived: float = 0.0
    """Monotonic seconds at which the last sample was received; 0 when nothing is live."""

    @property
    def duration_s(self) -> float:
        """Seconds of sound."""
        return len(self.samples) / self.sample_rate


class AudioBlock(msgspec.Struct, frozen=True, eq=False, gc=False):
    """Equally long pieces of many streams: what a busy RTP port makes of its packets.

    The same as a chunk of each; but 50,000 packets a second are too many objects.
    """

    streams: Sequence[str]
    """Each at most once, n of them."""
    pcm: NDArray[np.int16]
    """Mono, shape (n, n_samples)."""
    sample_rate: int
    """Hz, one that the segmenter takes as it is: 8000 or `SAMPLE_RATE`."""
    starts: Sequence[int]
    """As `AudioChunk.start`, of each stream."""
    arrived: Sequence[float]
    """As `AudioChunk.arrived`, of each stream."""
    lost: int = 0
    """As `AudioChunk.lost`, the same for all of them."""

    @property
    def duration_s(self) -> float:
        """Seconds of sound, over all streams."""
        return self.pcm.size / self.sample_rate

    def chunks(self) -> list[AudioChunk]:
        """The same as chunks."""
        samples = self.pcm.astype("float32") / INT16_SCALE
        return [
            AudioChunk(stream, row, self.sample_rate, start, self.lost, arrived)
            for stream, row, start, arrived in zip(
                self.streams, samples, self.starts, self.arrived, strict=True
            )
        ]


@dataclass(frozen=True, slots=True)
class StreamEnd:
    """A source announces that a stream is over; nothing of it follows."""

    stream: str
    reason: EndReason


SourceEvent: TypeAlias = StreamStart | AudioChunk | AudioBlock | StreamEnd
Emit: TypeAlias = Callable[[list[SourceEvent]], None]


class Source(Protocol):
    """Where sound comes from. The daemon runs each source in a thread of its own."""

    def run(self, emit: Emit) -> None:
        """Emit events until the source is exhausted or stopped.

        Emits at least every 5 seconds, an empty list when there is nothing: silence means that it is stuck.
        Returns after every announced stream was ended. Never raises for bad input from outside.
        """

    def stop(self) -> None:
        """Ask ``run`` to return soon; may be called from any thread, more than once."""


@dataclass(frozen=True, slots=True)
class Quality:
    """How far a window can be trusted."""

    loss: float
    """Share of samples that were concealed, 0 to 1."""
    clipping: float
    """Share of samples at full scale, 0 to 1."""
    level_dbfs: float
    """RMS level in dB relative to full scale (0 dBFS is a full-scale square wave)."""
    speech: float
    """Share of 20 ms frames that the voice activity detector called speech, 0 to 1."""


@dataclass(frozen=True, slots=True, eq=False)
class SpeechWindow:
    """Up to ``window_ms`` of speech, ready for the model."""

    stream: str
    samples: Samples
    """float32 mono at ``sample_rate``, shape (n,)."""
    start: int
    """Position at ``SAMPLE_RATE``."""
    end: int
    """One past the last sample, at ``SAMPLE_RATE``."""
    utterance: int
    """Number of the utterance in its stream, from 0."""
    final: bool
    """Completed by the end of its utterance; one that ends soon after an interim window has none."""
    quality: Quality
    speech_so_far: int = 0
    """Voiced samples of the stream up to ``end``."""
    lost_so_far: float = 0.0
    """Concealed samples of the stream up to ``end``."""
    arrived: float = 0.0
    """``AudioChunk.arrived`` of the chunk that completed the window."""
    sample_rate: int = SAMPLE_RATE
    """Hz; half of ``SAMPLE_RATE`` for telephone sound, which nothing would be added to by interpolation."""


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """What a model says about one window."""

    labels: tuple[str, ...]
    probabilities: NDArray[np.float32]
    """Calibrated, sum 1, shape (n_labels,)."""
    model: str
    """``name@version``."""

    @property
    def winner(self) -> str:
        """The most probable label."""
        return self.labels[int(self.probabilities.argmax())]
