"""Cost and delay of serstream's resampler against soxr's default engine, as a live stream meets them.

Noise goes through in blocks of 20 ms. ``held_ms`` is how much sound the resampler has taken but not yet given
back, after each block of the steady state: that much later a window is complete. Prints one JSON object as
its last line.
"""

import json
import time
from collections.abc import Callable

import numpy as np
import soxr

from serstream.audio.resample import Resampler
from serstream.types import SAMPLE_RATE, Samples

RATES = (44_100, 48_000)
BLOCKS = 5_000
SETTLED = 50
"""Blocks before the steady state."""


def measure(push: Callable[[Samples], Samples], rate: int) -> dict[str, float]:
    block = np.random.default_rng(0).normal(0, 0.1, rate // 50).astype(np.float32)
    returned, held_ms = 0, []
    began = time.process_time()
    for number in range(1, BLOCKS + 1):
        returned += len(push(block))
        held_ms.append(1000 * (number * len(block) / rate - returned / SAMPLE_RATE))
    taken = time.process_time() - began
    return {
        "us_per_block": round(1e6 * taken / BLOCKS, 1),
        "held_ms_mean": round(float(np.mean(held_ms[SETTLED:])), 1),
        "held_ms_max": round(max(held_ms[SETTLED:]), 1),
    }


def main() -> None:
    report: dict[str, object] = {"benchmark": "resample", "target_rate": SAMPLE_RATE}
    for rate in RATES:
        report[str(rate)] = {
            "serstream": measure(Resampler(rate, SAMPLE_RATE).push, rate),
            "soxr_fixed_rate": measure(soxr.ResampleStream(rate, SAMPLE_RATE, 1).resample_chunk, rate),
        }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
