"""Losses are told once, by kind, all ports together."""

import re
from collections import Counter

import pytest

from serstream.rtp.datagrams import TOO_LONG
from serstream.service.health import Health, PortHealth
from serstream.service.losses import NAMED_PORTS, Losses


def strangers(*counts: int) -> Health:
    """So many datagrams of strangers at one port each."""
    return Health(
        ports=tuple(
            PortHealth(address="127.0.0.1", port=5004 + 2 * i, streams=[], dropped={"of strangers": count})
            for i, count in enumerate(counts)
        )
    )


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    lines = caplog.messages[:]
    caplog.clear()
    return lines


def test_a_loss_is_told_once_with_what_is_new(caplog: pytest.LogCaptureFixture) -> None:
    losses = Losses()
    port = PortHealth(address="::1", port=5004, streams=[], dropped={TOO_LONG: 1}, kernel_drops=3)
    for second in range(2):
        health = Health(windows={"overload": 2, "scored": 9}, dropped_s=1.2, muted_s=0.2, ports=(port,))
        losses.report(health, second)
    losses.report(Health(windows={"overload": 7}, dropped_s=1.3, ports=(port,)), 9)
    assert told(caplog) == [
        "lost: windows shed by overload: 2",
        "lost: seconds of sound dropped by overload: 1",
        "lost: datagrams dropped, longer than 4096 bytes: 1 at ::1:5004",
        "lost: datagrams dropped, socket buffer full (raise receive_buffer_kb): 3 at ::1:5004",
        "lost: windows shed by overload: 5",
    ]


def test_ports_share_a_line(caplog: pytest.LogCaptureFixture) -> None:
    losses = Losses()
    losses.report(strangers(4, 5), 0)
    losses.report(strangers(*range(5, 5 + 2 * NAMED_PORTS)), 9)
    first, second = told(caplog)
    assert first == "lost: datagrams dropped, of strangers: 5 at 127.0.0.1:5006, 4 at 127.0.0.1:5004"
    assert second.endswith(f" and more at {NAMED_PORTS} other ports")


def test_a_port_that_begins_anew_counts_from_nothing(caplog: pytest.LogCaptureFixture) -> None:
    losses = Losses()
    for second, health in enumerate((strangers(4), strangers(0), strangers(2))):
        losses.report(health, 9 * second)
    assert [line.rpartition(": ")[2] for line in told(caplog)] == [
        "4 at 127.0.0.1:5004",
        "2 at 127.0.0.1:5004",
    ]


def test_an_hour_of_strangers_is_some_lines_that_leave_nothing_out(caplog: pytest.LogCaptureFixture) -> None:
    losses = Losses()
    for second in range(3600):
        late = 7 if second >= 1801 else 0
        losses.report(strangers(*[1 + second] * 3, late), second)
        if second == 1800:
            losses.report(Health(windows={"overload": 1}), second)
    for second in range(3600, 3670):
        losses.report(strangers(3600, 3600, 3600, 7), second)
    lines = told(caplog)
    assert len(lines) < 70
    assert "lost: windows shed by overload: 1" in lines, "another kind of loss does not wait"
    counts = Counter[str]()
    for count, port in re.findall(r"(\d+) at 127.0.0.1:(\d+)", " ".join(lines)):
        counts[port] += int(count)
    assert counts == {"5004": 3600, "5006": 3600, "5008": 3600, "5010": 7}


def test_trouble_that_comes_back_after_a_while_is_told_at_once(caplog: pytest.LogCaptureFixture) -> None:
    losses = Losses()
    for second in range(100):
        losses.report(strangers(1 + second), second)
    told(caplog)
    for second in range(300, 303):
        losses.report(strangers(second), second)
    assert [line.rpartition(": ")[2].split()[0] for line in told(caplog)] == ["236", "1"]
