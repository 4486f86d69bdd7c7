"""Who may send to a port, and which SSRC is a stream: the allow-list and the probation of RFC 3550, A.1."""

from __future__ import annotations

import ipaddress
from typing import NamedTuple

from serstream.config import RtpSettings
from serstream.rtp.datagrams import Sender, address_of
from serstream.rtp.packet import RtpPacket, sequence_delta

MIN_SEQUENTIAL = 2
"""Packets in a row that make a stream (RFC 3550, A.1)."""
MAX_CANDIDATES = 1024
"""SSRCs on probation; the oldest gives way."""
MAX_KEPT = 16
"""Packets kept of each."""
PROBATION_S = 2.0
"""A candidate whose next packet takes longer begins anew; nothing of it is kept."""
SOURCES_REMEMBERED = 4096
"""Verdicts of the allow-list kept; more are asked for again."""


class AllowList:
    """The networks of ``allow``."""

    def __init__(self, settings: RtpSettings):
        self._networks = [ipaddress.ip_network(network) for network in settings.allow]
        self._verdicts: dict[Sender, bool] = {}

    def __contains__(self, sender: Sender) -> bool:
        if not self._networks:
            return True
        if sender not in self._verdicts:
            if len(self._verdicts) >= SOURCES_REMEMBERED:
                self._verdicts.clear()
            ip, _ = address_of(sender)
            self._verdicts[sender] = any(ip in network for network in self._networks)
        return self._verdicts[sender]


class Arrival(NamedTuple):
    """A packet and when it came."""

    packet: RtpPacket
    arrived: float


class Probation:
    """Packets of SSRCs that are not yet streams; a random datagram never becomes one."""

    def __init__(self) -> None:
        self._candidates: dict[tuple[Sender, int], list[Arrival]] = {}

    def __len__(self) -> int:
        return len(self._candidates)

    def add(self, sender: Sender, packet: RtpPacket, arrived: float) -> list[Arrival]:
        """The packets of the candidate: the first two came in a row, this one is the last."""
        key = (sender, packet.ssrc)
        row = self._candidates.get(key)
        if row is None:
            if len(self._candidates) >= MAX_CANDIDATES:
                del self._candidates[next(iter(self._candidates))]
            row = self._candidates[key] = []
        if row:
            step = sequence_delta(packet.sequence_number, row[-1].packet.sequence_number)
            proven = len(row) >= MIN_SEQUENTIAL or step == 1
            if not proven or arrived - row[-1].arrived > PROBATION_S or len(row) == MAX_KEPT:
                row.clear()
        row.append(Arrival(packet, arrived))
        return row

    def forget(self, sender: Sender, ssrc: int) -> None:
        """It is a stream now, or is refused."""
        self._candidates.pop((sender, ssrc), None)

    def forget_silent(self, now: float) -> None:
        """Keep no sound of those that have sent nothing for so long that they would begin anew."""
        self._candidates = {
            key: row for key, row in self._candidates.items() if now - row[-1].arrived <= PROBATION_S
        }
