"""Resampling of one stream, piece by piece."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import soxr

from serstream.types import Samples

NO_SAMPLES: Samples = np.empty(0, np.float32)

HALF_TAPS = 40
"""Input samples that the interpolator's filter reaches to either side: its delay."""


class Resampler:
    """Brings a stream to another rate, statefully: pieces of any size give bit for bit what the whole gives.

    Position ``p`` of the input is position ``p * target_rate / source_rate`` of the output, within one sample
    upwards and two downwards. The delay is constant, 5 ms from 8 kHz and 12.5 ms from 48 kHz to 16 kHz
    (benchmarks/resample.py): a window can be complete no earlier than its sound has come through here.
    """

    def __init__(self, source_rate: int, target_rate: int):
        """Rates in Hz; equal rates pass samples through."""
        self._engine: _Interpolator | _VariableRate | None
        if source_rate == target_rate:
            self._engine = None
        elif target_rate % source_rate == 0:
            self._engine = _Interpolator(target_rate // source_rate)
        else:
            self._engine = _VariableRate(source_rate, target_rate)

    def push(self, samples: Samples) -> Samples:
        """Take the stream's next samples, float32 of shape (n,), and return those that they complete."""
        return samples if self._engine is None else self._engine.push(samples)

    def flush(self) -> Samples:
        """End of the stream: what is still held back. The resampler is then as new.

        All in all, n samples have become ``round(n * target_rate / source_rate)``.
        """
        if self._engine is None:
            return NO_SAMPLES
        rest = self._engine.flush()
        self._engine.reset()
        return rest

    def reset(self) -> None:
        """Forget all sound."""
        if self._engine is not None:
            self._engine.reset()


class _Interpolator:
    """Integer upsampling by a polyphase FIR filter (Crochiere & Rabiner 1983), linear in phase.

    Telephone sound goes this way: of 8 kHz, soxr's engines hold back 30 ms (variable rate) or up to 115 ms
    (fixed rate), a good part of what the daemon may take for a whole window.
    """

    def __init__(self, factor: int):
        self._phases = _phases(factor)
        self._pending: Samples = np.zeros(HALF_TAPS, np.float32)

    def push(self, samples: Samples) -> Samples:
        pending = np.concatenate([self._pending, samples])
        n = len(pending) - 2 * HALF_TAPS
        if n <= 0:
            self._pending = pending
            return NO_SAMPLES
        self._pending = pending[n:]
        resampled = np.empty((n, len(self._phases)), np.float32)
        for phase, taps in enumerate(self._phases):
            resampled[:, phase] = np.correlate(pending, taps, "valid")
        return resampled.reshape(-1)

    def flush(self) -> Samples:
        return self.push(np.zeros(HALF_TAPS, np.float32))

    def reset(self) -> None:
        self._pending = np.zeros(HALF_TAPS, np.float32)


def interpolation_filter(factor: int) -> Samples:
    """What integer upsampling filters with: taps at the higher rate, sum ``factor``.

    Flat to 0.9 and 80 dB down from 1.025 of the input's Nyquist frequency on.

    Returns:
        float32, shape (2 * HALF_TAPS * factor + 1,).
    """
    cutoff = 0.9625 / factor
    reach = HALF_TAPS * factor
    ideal = np.sinc(cutoff * np.arange(-reach, reach + 1)) * np.kaiser(2 * reach + 1, 7.86)
    taps: Samples = (ideal * (factor / ideal.sum())).astype(np.float32)
    return taps


@lru_cache
def _phases(factor: int) -> tuple[Samples, ...]:
    """The filter's taps for each output sample of an input sample: ``factor`` times (2 * HALF_TAPS + 1,)."""
    taps = np.append(interpolation_filter(factor), np.zeros(factor - 1, np.float32))
    return tuple(np.ascontiguousarray(taps[phase::factor][::-1]) for phase in range(factor))


class _VariableRate:
    """Any other ratio, by soxr's variable-rate engine: a polyphase filter with minimum phase and one quality.

    The fixed-rate engine works in FFT blocks and holds back two to three times as much.
    """

    def __init__(self, source_rate: int, target_rate: int):
        self._source_rate = source_rate
        self._target_rate = target_rate
        self._soxr = soxr.ResampleStream(source_rate, target_rate, 1, vr=True)
        self._pushed = 0
        self._returned = 0

    def push(self, samples: Samples) -> Samples:
        self._pushed += len(samples)
        resampled: Samples = self._soxr.resample_chunk(samples)
        self._returned += len(resampled)
        return resampled

    def flush(self) -> Samples:
        # soxr rounds the length down; a little silence behind the end lets it finish the last sample.
        silence = np.zeros(2 + 2 * self._source_rate // self._target_rate, np.float32)
        rest: Samples = self._soxr.resample_chunk(silence, last=True)
        return rest[: round(self._pushed * self._target_rate / self._source_rate) - self._returned]

    def reset(self) -> None:
        self._soxr.clear()
        self._pushed = self._returned = 0
