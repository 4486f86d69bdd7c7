from collections.abc import Sequence
from math import ceil

import numpy as np
import pytest
from msgspec.structs import replace

from serstream.bench import capacity
from serstream.bench.capacity import Conditions, Step
from serstream.bench.generator import SLOTS, Plan, Sent
from serstream.bench.script import Script

CONDITIONS = Conditions(daemon_cores=(0,), generator_cores=(0,))
STEP = Step(**dict.fromkeys(Step.__struct_fields__, 0) | {"stages_cpu": {}})


def test_the_first_number_that_is_not_sustained_ends_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(streams: int, scripts: Sequence[Script], conditions: Conditions) -> Step:
        return replace(STEP, streams=streams, sustained=streams < 300)

    monkeypatch.setattr(capacity, "measure", measure)
    monkeypatch.setattr(capacity, "SCRIPTS", 0)
    steps = list(capacity.raise_load([100, 200, 300, 400], CONDITIONS))
    assert [step.streams for step in steps] == [100, 200, 300]


def test_a_window_that_never_came_is_lost_and_others_are_as_late_as_their_last_packet_says() -> None:
    plan = Plan("host", 5004, streams=2, ramp_s=0.2, seconds=9.8)
    script = Script(np.zeros((500, 160), np.uint8), np.array([16_000, 24_000, 79_999]))
    at = 100 + np.arange(plan.ticks)[:, None] * 0.02 + np.arange(SLOTS) * 0.002
    arrivals = capacity._Arrivals()
    for stream in range(2):
        for window in (16_000, 24_000)[: 2 - stream]:  # of the second stream, one is lost
            tick = plan.begin(stream) + ceil(window / 160) - 1
            arrivals._at[stream, window] = at[tick, stream] + 0.01 * (1 + stream)
    latencies, lost = arrivals.compare(plan, [script], Sent(at, 0, 0, 0, 0), begin=100, end=105)
    assert latencies == pytest.approx([10, 10, 20])
    assert lost == 1, "the third is complete when nothing counts any more"
