"""One stream's way from chunks of any rate to segments."""

from __future__ import annotations

from serstream.audio.resample import Resampler
from serstream.config import SegmenterSettings
from serstream.speech.segmenter import Segment, Segmenter
from serstream.types import SAMPLE_RATE, AudioChunk


class StreamSegmenter:
    """Resamples a stream to `SAMPLE_RATE` and segments it.

    A hole in the sound (hold, dropped chunks) or another rate in its middle (re-INVITE with another codec)
    ends the utterance that is going on; what follows keeps its place in stream time.
    """

    def __init__(self, stream: str, settings: SegmenterSettings):
        self._segmenter = Segmenter(stream, settings)
        self._resampler: Resampler | None = None
        self._source_rate = 0
        self._next = 0
        """Position of the next sample, at the source's rate."""

    @property
    def position(self) -> int:
        """Samples at `SAMPLE_RATE` since the stream began."""
        return self._segmenter.position

    @property
    def speech(self) -> int:
        """Voiced samples so far."""
        return self._segmenter.speech

    @property
    def lost(self) -> float:
        """Concealed samples so far."""
        return self._segmenter.lost

    def push(self, chunk: AudioChunk) -> list[Segment]:
        """The segments that the chunk completes, in order."""
        segments: list[Segment] = []
        if self._resampler is None or chunk.sample_rate != self._source_rate or chunk.start != self._next:
            segments = self.flush()
            self._source_rate = chunk.sample_rate
            self._resampler = Resampler(chunk.sample_rate, SAMPLE_RATE)
            self._segmenter.reset(round(chunk.start * SAMPLE_RATE / chunk.sample_rate))
        self._next = chunk.start + len(chunk.samples)
        samples = self._resampler.push(chunk.samples)
        lost = chunk.lost * SAMPLE_RATE / chunk.sample_rate
        return segments + self._segmenter.push(samples, lost, chunk.arrived)

    def flush(self) -> list[Segment]:
        """End of the stream: the segments that were still open."""
        if self._resampler is None:
            return []
        return self._segmenter.push(self._resampler.flush()) + self._segmenter.flush()
