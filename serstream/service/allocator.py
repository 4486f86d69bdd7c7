"""glibc's allocator, told how the daemon uses memory: mallopt(3), malloc_trim(3). Elsewhere: nothing."""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_WORKING_BYTES = 32 * 1024 * 1024
"""More than the arrays of one batch take together."""


def keep_working_memory() -> None:
    """Do not fetch from the kernel, page by page, what the batch before has just given back.

    By default arrays of more than 128 kB do so: scoring a batch took up to twice the time.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _WORKING_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _WORKING_BYTES)


def return_free_memory() -> None:
    """Give the kernel what is free.

    Neither streams nor ONNX Runtime leak, but glibc keeps the holes that they leave in its arenas. Without
    this, resident memory grew by half over the thousand swaps of benchmarks/swap.py; with it, it levels off.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


class Ebb:
    """Gives free memory back once the number of streams has halved since its peak."""

    def __init__(self) -> None:
        self._most = 0

    def watch(self, streams: int) -> None:
        """Call it now and then with the number of living streams."""
        self._most = max(self._most, streams)
        if self._most and streams <= self._most // 2:
            self._most = streams
            return_free_memory()
