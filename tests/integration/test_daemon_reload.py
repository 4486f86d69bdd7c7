"""Reloads of a real daemon, by SIGHUP and by `serstream reload`, while calls are going on."""

import signal
import threading
import time

import numpy as np
import pytest
import soundfile

from serstream.errors import ControlError
from serstream.feed.messages import StreamEnded
from serstream.rehearsal import DaemonProcess, Leg, free_port_pair
from serstream.rtp.sender import send_in_real_time
from serstream.service.control import Reload, Status, StatusRequest, ask
from serstream.shipped import SAMPLE_CALL

SECONDS = 7


def ask_status(daemon: DaemonProcess) -> Status:
    return ask(daemon.control, StatusRequest())


def reload(daemon: DaemonProcess, text: str) -> Status:
    """The status behind a reload of this configuration, or of its refusal."""
    before = ask_status(daemon).health
    daemon.control.with_name("serstream.toml").write_text(text)
    daemon.process.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        status = ask_status(daemon)
        if (status.health.reloads, status.health.reload_error) != (before.reloads, before.reload_error):
            return status
        time.sleep(0.05)
    pytest.fail(f"no reload: {daemon.log()}")


def test_a_reload_disturbs_no_call_and_opens_and_closes_ports() -> None:
    samples, rate = soundfile.read(SAMPLE_CALL, dtype="int16", always_2d=True)
    party = np.ascontiguousarray(samples[: SECONDS * rate, 0])
    leg = Leg(party, free_port_pair(), ssrc=1)
    other = free_port_pair()
    with DaemonProcess(f"[[rtp]]\nport = {leg.outgoing.port}\n") as daemon:
        sender = threading.Thread(target=send_in_real_time, args=([leg.outgoing],))
        sender.start()
        time.sleep(1)
        first = daemon.control.with_name("serstream.toml").read_text()
        status = reload(daemon, f"[[rtp]]\nport = {other}\n{first}")
        assert sorted(status.health.sources) == sorted([f"rtp:{leg.outgoing.port}", f"rtp:{other}"])
        status = reload(daemon, f"nonsense = 1\n{first}")
        assert "unknown key 'nonsense'" in status.health.reload_error
        assert len(status.health.sources) == 2
        with pytest.raises(ControlError, match="unknown key 'nonsense'"):
            ask(daemon.control, Reload())
        daemon.control.with_name("serstream.toml").write_text(first)
        status = ask(daemon.control, Reload())
        assert status.health.sources == (f"rtp:{leg.outgoing.port}",)
        assert not status.health.reload_error
        ended = False
        deadline = time.monotonic() + 30
        while not ended and time.monotonic() < deadline:
            for event, arrived in daemon.take(0.1):
                leg.take(event, arrived)
                ended = ended or isinstance(event, StreamEnded)
        sender.join()
    assert ended
    assert leg.expected
    assert leg.lost == 0


def test_what_only_a_restart_changes_is_named() -> None:
    with DaemonProcess(f"[[rtp]]\nport = {free_port_pair()}\n") as daemon:
        text = daemon.control.with_name("serstream.toml").read_text()
        status = reload(daemon, text.replace("heartbeat_s = 0.25", "heartbeat_s = 0.5"))
        assert status.feed == daemon.endpoint
        assert "feed.heartbeat_s is changed only by a restart" in daemon.log()
