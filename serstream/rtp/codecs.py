"""From RTP payloads to float32 samples."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from serstream.types import Samples


class Decoder(Protocol):
    """Decodes the payloads of one stream, in order; holds the codec's state."""

    clock_rate: int
    """Hz of the RTP timestamps."""
    sample_rate: int
    """Hz of the samples; a multiple of the clock rate."""

    def duration(self, payload: bytes) -> int:
        """Ticks of the RTP clock that the payload lasts; 0: it carries no sound."""

    def decode(self, payload: bytes) -> Samples:
        """Mono samples in [-1, 1], shape (n,); silence of the right length when the payload is broken."""


def _ulaw() -> Samples:
    """The 256 values of mu-law (ITU-T G.711), in [-1, 1)."""
    code = ~np.arange(256, dtype=np.uint8)
    exponent = (code >> 4) & 0x07
    magnitude = (((code & 0x0F).astype(np.int32) << 3) + 0x84 << exponent) - 0x84
    return (np.where(code & 0x80, -magnitude, magnitude) / 32768).astype(np.float32)


def _alaw() -> Samples:
    """The 256 values of A-law (ITU-T G.711), in [-1, 1)."""
    code = np.arange(256, dtype=np.uint8) ^ 0x55
    exponent = ((code >> 4) & 0x07).astype(np.int32)
    mantissa = ((code & 0x0F).astype(np.int32) << 4) + 8
    magnitude = np.where(exponent == 0, mantissa, mantissa + 0x100 << np.maximum(exponent - 1, 0))
    return (np.where(code & 0x80, magnitude, -magnitude) / 32768).astype(np.float32)


ULAW: Samples = _ulaw()
ALAW: Samples = _alaw()


class G711:
    """PCMU or PCMA by table (ITU-T G.711)."""

    clock_rate = 8000
    sample_rate = 8000

    def __init__(self, table: NDArray[np.float32]):
        self._table = table

    def duration(self, payload: bytes) -> int:
        """One tick a byte."""
        return len(payload)

    def decode(self, payload: bytes) -> Samples:
        """One sample a byte."""
        return self._table[np.frombuffer(payload, np.uint8)]
