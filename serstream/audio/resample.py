"""Resampling of one stream, piece by piece."""

from __future__ import annotations

import numpy as np
import soxr

from serstream.types import Samples


class Resampler:
    """Brings a stream to another rate, statefully: pieces of any size give bit for bit what the whole gives.

    Position ``p`` of the input is position ``p * target_rate / source_rate`` of the output, within one sample
    upwards and two downwards. The delay is constant, 12.5 ms from 48 kHz to 16 kHz (benchmarks/resample.py):
    a window can be complete no earlier than its sound has come through here.

    This is soxr's variable-rate engine, a polyphase filter with minimum phase and one quality: the fixed-rate
    engine works in FFT blocks and holds back two to three times as much.
    """

    def __init__(self, source_rate: int, target_rate: int):
        """Rates in Hz."""
        self._source_rate = source_rate
        self._target_rate = target_rate
        self._soxr = soxr.ResampleStream(source_rate, target_rate, 1, vr=True)
        self._pushed = 0
        self._returned = 0

    def push(self, samples: Samples) -> Samples:
        """Take the stream's next samples, float32 of shape (n,), and return those that they complete."""
        self._pushed += len(samples)
        resampled: Samples = self._soxr.resample_chunk(samples)
        self._returned += len(resampled)
        return resampled

    def flush(self) -> Samples:
        """End of the stream: what is still held back. The resampler is then as new.

        All in all, n samples have become ``round(n * target_rate / source_rate)``.
        """
        # soxr rounds the length down; a little silence behind the end lets it finish the last sample.
        silence = np.zeros(2 + 2 * self._source_rate // self._target_rate, np.float32)
        rest: Samples = self._soxr.resample_chunk(silence, last=True)
        missing = round(self._pushed * self._target_rate / self._source_rate) - self._returned
        self._soxr.clear()
        self._pushed = self._returned = 0
        return rest[:missing]
