"""Resampling of one stream, piece by piece."""

from __future__ import annotations

import numpy as np
import soxr

from serstream.types import Samples

NO_SAMPLES: Samples = np.empty(0, np.float32)


class Resampler:
    """Brings a stream to another rate, statefully: pieces of any size give bit for bit what the whole gives.

    Position ``p`` of the input is position ``p * target_rate / source_rate`` of the output, within one sample
    upwards and two downwards (its downsampling filter has minimum phase). Output follows input by a constant
    30 ms from 8 kHz to 16 kHz, 12.5 ms from 48 kHz.
    """

    def __init__(self, source_rate: int, target_rate: int):
        """Rates in Hz; equal rates pass samples through."""
        self._source_rate = source_rate
        self._target_rate = target_rate
        # soxr's fixed-rate engine works in FFT blocks and holds back up to 115 ms of 8 kHz sound, more than
        # the daemon may take for a whole window. The variable-rate engine is a polyphase filter with one
        # quality (alias below -115 dB) and a delay that never changes (benchmarks/resample.py).
        self._soxr = (
            None if source_rate == target_rate else soxr.ResampleStream(source_rate, target_rate, 1, vr=True)
        )
        self._pushed = 0
        self._returned = 0

    def push(self, samples: Samples) -> Samples:
        """Take the stream's next samples, float32 of shape (n,), and return those that they complete."""
        if self._soxr is None:
            return samples
        self._pushed += len(samples)
        resampled: Samples = self._soxr.resample_chunk(samples)
        self._returned += len(resampled)
        return resampled

    def flush(self) -> Samples:
        """End of the stream: what is still held back. The resampler is then as new.

        All in all, n samples have become ``round(n * target_rate / source_rate)``.
        """
        if self._soxr is None:
            return NO_SAMPLES
        # soxr rounds the length down; a little silence behind the end lets it finish the last sample.
        silence = np.zeros(2 + 2 * self._source_rate // self._target_rate, np.float32)
        rest: Samples = self._soxr.resample_chunk(silence, last=True)
        wanted = round(self._pushed * self._target_rate / self._source_rate) - self._returned
        self.reset()
        return rest[:wanted]

    def reset(self) -> None:
        """Forget all sound."""
        if self._soxr is not None:
            self._soxr.clear()
        self._pushed = self._returned = 0
