"""One stream's way from chunks of any rate to segments."""

from __future__ import annotations

from serstream.audio.resample import Resampler
from serstream.config import SegmenterSettings
from serstream.speech.bank import SegmenterBank
from serstream.speech.quality import clipped
from serstream.speech.segmenter import RATES, Segment, Segmenter
from serstream.types import SAMPLE_RATE, AudioChunk, Samples


class StreamSegmenter:
    """Segments a stream; sound of another rate than the segmenter takes is resampled to `SAMPLE_RATE` first.

    A hole in the sound (hold, dropped chunks) or another rate in its middle (re-INVITE with another codec)
    ends the utterance that is going on; what follows keeps its place in stream time.
    """

    def __init__(self, stream: str, settings: SegmenterSettings):
        self._segmenter = Segmenter(stream, settings)
        self._bank: SegmenterBank | None = None
        """Has the segmenter's state while the stream is in a row of it."""
        self._resampler: Resampler | None = None
        self._source_rate = 0
        self._next = 0
        """Position of the next sample, at the source's rate."""

    @property
    def position(self) -> int:
        """Samples at `SAMPLE_RATE` since the stream began, once flushed: a bank keeps its own count."""
        return self._segmenter.position

    @property
    def speech(self) -> int:
        """Voiced samples so far, once flushed likewise."""
        return self._segmenter.speech

    @property
    def lost(self) -> float:
        """Concealed samples so far, once flushed likewise."""
        return self._segmenter.lost

    def join(self, bank: SegmenterBank) -> None:
        """Go on in a row of the bank, if the stream is fit for one."""
        self._leave_bank()
        if self._resampler is None and bank.take(self._segmenter, self._next):
            self._bank = bank

    def _leave_bank(self) -> None:
        """Have the segmenter's state back, if a bank has it."""
        if self._bank is not None:
            self._next = self._bank.give_back(self._segmenter)
            self._bank = None

    def push(self, chunk: AudioChunk) -> list[Segment]:
        """The segments that the chunk completes, in order."""
        segments = self._follow(chunk.sample_rate, chunk.start, len(chunk.samples))
        samples = chunk.samples if self._resampler is None else self._resample(chunk, self._resampler)
        lost = chunk.lost * SAMPLE_RATE / chunk.sample_rate
        return segments + self._segmenter.push(samples, lost, chunk.arrived)

    def _resample(self, chunk: AudioChunk, resampler: Resampler) -> Samples:
        scale = SAMPLE_RATE / chunk.sample_rate
        if len(indices := clipped(chunk.samples)):
            self._segmenter.note_clipped((chunk.start + indices) * scale, scale)
        return resampler.push(chunk.samples)

    def push_pcm(self, pcm: bytes, sample_rate: int, start: int, lost: int, arrived: float) -> list[Segment]:
        """As `push`, for a row of an `AudioBlock`: 16 bits a sample, at a rate that needs no resampling."""
        ended = self._follow(sample_rate, start, len(pcm) // 2)
        return ended + self._segmenter.push_pcm(pcm, lost * SAMPLE_RATE / sample_rate, arrived)

    def _follow(self, sample_rate: int, start: int, n_samples: int) -> list[Segment]:
        """Go on with a piece of sound, or begin anew where it does not continue what was; what that ends."""
        self._leave_bank()
        follows = start == self._next and sample_rate == self._source_rate
        self._next = start + n_samples
        if follows:
            return []
        segments = self.flush()
        self._source_rate = sample_rate
        self._resampler = None if sample_rate in RATES else Resampler(sample_rate, SAMPLE_RATE)
        segmented_at = SAMPLE_RATE if self._resampler else sample_rate
        self._segmenter.reset(round(start * SAMPLE_RATE / sample_rate), segmented_at)
        return segments

    def flush(self) -> list[Segment]:
        """End of the stream: the segments that were still open."""
        self._leave_bank()
        segments = self._segmenter.push(self._resampler.flush()) if self._resampler else []
        return segments + self._segmenter.flush()
