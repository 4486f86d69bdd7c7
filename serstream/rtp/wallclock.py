"""When a stream began, by the wall clock of its sender (RFC 3550, section 6.4.1)."""

from __future__ import annotations

from serstream.rtp.datagrams import IpAddress
from serstream.rtp.packet import RtpPacket, timestamp_delta
from serstream.rtp.rtcp import SenderReport

MAX_REPORTS = 4096
"""Sender reports remembered; the oldest gives way."""
SLACK_S = 5.0
"""A sender whose wall clock differs by more from ours is not believed."""


class WallClocks:
    """What the senders of one port have reported of their clocks."""

    def __init__(self) -> None:
        self._reports: dict[tuple[IpAddress, int], SenderReport] = {}

    def note(self, sender: IpAddress, report: SenderReport) -> None:
        """A sender has reported."""
        while len(self._reports) >= MAX_REPORTS:
            del self._reports[next(iter(self._reports))]
        self._reports[sender, report.ssrc] = report

    def utc_of(self, sender: IpAddress, packet: RtpPacket, clock_rate: int, by_arrival: float) -> float:
        """UTC of a packet's first sample: by its sender if that is believable, else by its arrival.

        Args:
            sender: where it came from.
            packet: of the stream.
            clock_rate: of its timestamps, Hz.
            by_arrival: UTC at which it came.
        """
        report = self._reports.get((sender, packet.ssrc))
        if report:
            by_sender = report.utc + timestamp_delta(packet.timestamp, report.timestamp) / clock_rate
            if abs(by_sender - by_arrival) <= SLACK_S:
                return by_sender
        return by_arrival
