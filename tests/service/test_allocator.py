from functools import partial
from pathlib import Path

import numpy as np
import pytest

from serstream.service import allocator
from serstream.service.allocator import Ebb, return_free_memory


def resident_kb() -> int:
    return int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0])


def test_what_is_free_goes_back_to_the_kernel() -> None:
    kept = [np.ones(8_000, np.uint8) for _ in range(8_000)]
    holes = [array for i, array in enumerate(kept) if i % 16]
    kept = kept[::16]
    held = resident_kb()
    del holes
    return_free_memory()
    assert resident_kb() < held - 30_000, f"{len(kept)} arrays are left of 64 MB"


def test_memory_is_given_back_once_when_half_of_the_streams_are_over(monkeypatch: pytest.MonkeyPatch) -> None:
    given_back: list[int] = []
    ebb = Ebb()
    for turn, streams in enumerate((0, 10, 100, 51, 50, 49, 26, 25, 0, 0, 1, 0)):
        monkeypatch.setattr(allocator, "return_free_memory", partial(given_back.append, turn))
        ebb.watch(streams)
    assert given_back == [4, 7, 8, 11]
