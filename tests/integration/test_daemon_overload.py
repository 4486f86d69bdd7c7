"""A real daemon that is held up: what it cannot score in time it says, and it loses nothing."""

import signal
import threading
import time

import numpy as np
import soundfile

from serstream.config import SegmenterSettings
from serstream.feed.messages import StreamEnded, WindowEmotion, WindowUnscored
from serstream.rehearsal import DaemonProcess, Leg, free_port_pair
from serstream.rtp.sender import send_in_real_time
from serstream.service.control import StatusRequest, ask
from serstream.shipped import SAMPLE_CALL

LEGS = 40
HOP_MS = 200
"""So many windows fall due at once that ten milliseconds are too few for them on any machine."""
SECONDS = 9


def test_windows_beyond_the_capacity_are_shed_and_told() -> None:
    samples, rate = soundfile.read(SAMPLE_CALL, dtype="int16", always_2d=True)
    port = free_port_pair()
    party = np.ascontiguousarray(samples[: SECONDS * rate, 0])
    segmenter = SegmenterSettings(hop_ms=HOP_MS)
    legs = {ssrc: Leg(party, port, ssrc, segmenter=segmenter) for ssrc in range(1, LEGS + 1)}
    received: dict[str, set[tuple[float, float]]] = {}
    reasons: set[str] = set()
    ended: list[StreamEnded] = []
    settings = f"[[rtp]]\nport = {port}\n[segmenter]\nhop_ms = {HOP_MS}\n[overload]\nmax_delay_ms = 10\n"
    with DaemonProcess(settings) as daemon:
        sender = threading.Thread(target=send_in_real_time, args=([leg.outgoing for leg in legs.values()],))
        sender.start()
        time.sleep(2)
        daemon.process.send_signal(signal.SIGSTOP)
        time.sleep(4)
        daemon.process.send_signal(signal.SIGCONT)
        deadline = time.monotonic() + 30
        while len(ended) < LEGS and time.monotonic() < deadline:
            for event, _ in daemon.take(0.1):
                if isinstance(event, WindowEmotion | WindowUnscored):
                    received.setdefault(event.stream, set()).add((event.start, event.end))
                if isinstance(event, WindowUnscored):
                    reasons.add(event.reason)
                elif isinstance(event, StreamEnded):
                    ended.append(event)
        sender.join()
        status = ask(daemon.control, StatusRequest())
    assert "overload" in reasons
    assert status.health.windows["overload"] == sum(e.unscored for e in ended) - sum(
        count for reason, count in status.health.windows.items() if reason not in ("scored", "overload")
    )
    assert len(ended) == LEGS
    # Nothing was lost on the way: every window came back, scored or not.
    assert all(received[event.stream] == legs[1].expected for event in ended)
