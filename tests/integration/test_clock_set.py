"""Real daemons during a call, on machines whose wall clock is set by an hour."""

import sys
import threading
import time
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import soundfile

from serstream.feed import subscribe
from serstream.feed.messages import Heartbeat, StreamEnded
from serstream.rehearsal import DaemonProcess, Leg, free_port_pair
from serstream.rtp.sender import send_in_real_time
from serstream.shipped import SAMPLE_CALL

SECONDS = 8
STEP_AFTER_S = 3.0
"""From the begin of the call."""
STEPS_S = (3600, -3600)
LAUNCHER = Path(__file__).parent.parent / "clock_set.py"


class ClockSet(DaemonProcess):
    """Sees the wall clock set, at the UTC that a file tells, by so many seconds."""

    def __init__(self, configuration: str, told: Path, step_s: int):
        super().__init__(configuration)
        self.program = (sys.executable, str(LAUNCHER), str(told), str(step_s))


def told_utc(daemon: DaemonProcess) -> float:
    """What the daemon takes the time for."""
    with subscribe(daemon.endpoint, types=["heartbeat"]) as subscription:
        while True:
            for event in subscription.receive(1.0):
                if isinstance(event, Heartbeat):
                    return datetime.fromisoformat(event.time).timestamp()


def test_a_call_does_not_notice_that_the_wall_clock_is_set(tiny_model: Path, tmp_path: Path) -> None:
    samples, rate = soundfile.read(SAMPLE_CALL, dtype="int16", always_2d=True)
    party = np.ascontiguousarray(samples[: SECONDS * rate, 0])
    legs = [Leg(party, free_port_pair(), ssrc=1) for _ in STEPS_S]
    ends: list[StreamEnded] = []
    told = tmp_path / "utc"
    with ExitStack() as stack:
        daemons = []
        for leg, step_s in zip(legs, STEPS_S, strict=True):
            configuration = f'[model]\npath = "{tiny_model}"\n[[rtp]]\nport = {leg.outgoing.port}'
            daemons.append(stack.enter_context(ClockSet(configuration, told, step_s)))
        assert [told_utc(daemon) for daemon in daemons] == pytest.approx([time.time()] * 2, abs=2)
        sender = threading.Thread(target=send_in_real_time, args=([leg.outgoing for leg in legs],))
        sender.start()
        (tmp_path / "whole").write_text(str(time.time() + STEP_AFTER_S))
        (tmp_path / "whole").rename(told)
        deadline = time.monotonic() + SECONDS + 10
        while len(ends) < len(legs) and time.monotonic() < deadline:
            for daemon, leg in zip(daemons, legs, strict=True):
                for event, arrived in daemon.take(0.05):
                    leg.take(event, arrived)
                    if isinstance(event, StreamEnded):
                        ends.append(event)
        sender.join()
        steps = [told_utc(daemon) - time.time() for daemon in daemons]
    assert steps == pytest.approx(STEPS_S, abs=2), "later messages tell the new time"
    assert [(end.reason, end.lost_s) for end in ends] == [("bye", 0.0)] * len(legs)
    for leg in legs:
        assert leg.received == leg.expected
        assert max(leg.latencies_ms) < 1000
