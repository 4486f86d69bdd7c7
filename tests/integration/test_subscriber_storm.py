"""A hundred subscribers at once, twice, while a call goes on."""

import os
import resource
import threading
import time
from contextlib import ExitStack

import numpy as np
import soundfile
from waiting import until

from serstream.feed import subscribe
from serstream.feed.messages import StreamEnded
from serstream.rehearsal import DaemonProcess, Leg, free_port_pair
from serstream.rtp.sender import send_in_real_time
from serstream.service.control import StatusRequest, ask
from serstream.shipped import SAMPLE_CALL

SECONDS = 7
SUBSCRIBERS = 100


def storm(endpoint: str) -> None:
    """All of them connect, hear the daemon, and are gone."""
    with ExitStack() as all_of_them:
        subscriptions = [all_of_them.enter_context(subscribe(endpoint)) for _ in range(SUBSCRIBERS)]
        for subscription in subscriptions:
            assert until(lambda one=subscription: one.receive(0.05) or one.links[0].inbox.heard_at)


def test_a_storm_of_subscribers_costs_no_window_and_leaves_nothing_behind() -> None:
    samples, rate = soundfile.read(SAMPLE_CALL, dtype="int16", always_2d=True)
    leg = Leg(np.ascontiguousarray(samples[: SECONDS * rate, 0]), free_port_pair(), ssrc=1)
    with DaemonProcess(f"[[rtp]]\nport = {leg.outgoing.port}\n") as daemon:
        descriptors = f"/proc/{daemon.process.pid}/fd"
        before = len(os.listdir(descriptors))
        sender = threading.Thread(target=send_in_real_time, args=([leg.outgoing],))
        sender.start()
        for _ in range(2):
            storm(daemon.endpoint)
        ended = False
        deadline = time.monotonic() + 30
        while not ended and time.monotonic() < deadline:
            for event, arrived in daemon.take(0.1):
                leg.take(event, arrived)
                ended |= isinstance(event, StreamEnded)
        sender.join()
        assert ended
        assert leg.lost == 0 < len(leg.expected)
        assert ask(daemon.control, StatusRequest()).health.snapshots >= 2 * SUBSCRIBERS
        assert until(lambda: len(os.listdir(descriptors)) <= before)


def test_a_daemon_takes_all_the_descriptors_that_it_may_have() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    try:
        with DaemonProcess(f"[[rtp]]\nport = {free_port_pair()}\n") as daemon:
            assert resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
