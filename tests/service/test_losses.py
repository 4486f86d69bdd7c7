"""Losses are told once, by kind, all ports together."""

import logging

import pytest

from serstream.service.health import Health, PortHealth
from serstream.service.log_limit import GrowingPauses
from serstream.service.losses import NAMED_PORTS, Losses


def strangers(*counts: int) -> Health:
    """So many datagrams of strangers at one port each."""
    return Health(
        ports=tuple(
            PortHealth(address="127.0.0.1", port=5004 + 2 * i, streams=[], dropped={"of strangers": count})
            for i, count in enumerate(counts)
        )
    )


def test_a_loss_is_told_once_with_what_is_new(caplog: pytest.LogCaptureFixture) -> None:
    losses = Losses()
    port = PortHealth(address="::1", port=5004, streams=[], dropped={}, kernel_drops=3, truncated=1)
    for _ in range(2):
        losses.report(Health(windows={"overload": 2, "scored": 9}, dropped_s=1.2, muted_s=0.2, ports=(port,)))
    losses.report(Health(windows={"overload": 7}, dropped_s=1.3, ports=(port,)))
    assert caplog.messages == [
        "lost: windows shed by overload: 2",
        "lost: seconds of sound dropped by overload: 1",
        "lost: datagrams dropped, socket buffer full (raise receive_buffer_kb): 3 at ::1:5004",
        "lost: datagrams dropped, longer than 4096 bytes: 1 at ::1:5004",
        "lost: windows shed by overload: 5",
    ]


def test_ports_share_a_line(caplog: pytest.LogCaptureFixture) -> None:
    losses = Losses()
    losses.report(strangers(4, 5))
    losses.report(strangers(*range(5, 5 + 2 * NAMED_PORTS)))
    assert caplog.messages[0] == (
        "lost: datagrams dropped, of strangers: 5 at 127.0.0.1:5006, 4 at 127.0.0.1:5004"
    )
    assert len(caplog.messages) == 2
    assert caplog.messages[1].endswith(f" and more at {NAMED_PORTS} other ports")


def test_a_port_that_begins_anew_counts_from_nothing(caplog: pytest.LogCaptureFixture) -> None:
    losses = Losses()
    for health in (strangers(4), strangers(0), strangers(2)):
        losses.report(health)
    assert [message.rpartition(": ")[2] for message in caplog.messages] == [
        "4 at 127.0.0.1:5004",
        "2 at 127.0.0.1:5004",
    ]


def test_fifty_ports_with_strangers_for_an_hour_are_some_lines(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = GrowingPauses()
    told: list[str] = []
    now = 0.0

    def keep(record: logging.LogRecord) -> bool:
        record.created = now
        if limit.filter(record):
            told.append(record.getMessage())
        return True

    caplog.handler.addFilter(keep)
    losses = Losses()
    for second in range(3600):
        now = 1000.0 + second
        losses.report(strangers(*[1 + second] * 50))
        if second == 1800:
            losses.report(Health(windows={"overload": 1}))
    caplog.handler.removeFilter(keep)
    assert sum("strangers" in line for line in told) < 70
    assert "lost: windows shed by overload: 1" in told, "another kind of loss does not wait"
