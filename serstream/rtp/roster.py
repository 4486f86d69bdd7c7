"""The live streams of one port: by what they are found, and which of them are in their lanes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from serstream.rtp.datagrams import Datagrams, Sender
from serstream.rtp.lanes import CLOCK_RATE, MAX_PAYLOAD, Lanes, Pieces
from serstream.rtp.stream import Stream
from serstream.types import AudioBlock


@dataclass(slots=True, eq=False)
class Member:
    """A live stream and its lane."""

    stream: Stream
    lane: int = -1
    in_lane: bool = False


class Roster:
    """The members of one port.

    Args:
        n_lanes: how many there may be.
        has_lanes: payload types whose packets may go through lanes.
    """

    def __init__(self, n_lanes: int, has_lanes: Iterable[int]):
        self.members: dict[tuple[Sender, int], Member] = {}
        """By sender and SSRC; `enrol` and `strike` change it."""
        self._by_sender: dict[Sender, list[Member]] = {}
        self._by_ssrc: dict[int, Sender] = {}
        """The latest sender of each; the only one unless ``latch`` is off."""
        self._by_lane: dict[int, Member] = {}
        self._lanes = Lanes(n_lanes)
        self._has_lanes = frozenset(has_lanes)
        self._outside: dict[Member, None] = {}
        """Those that took a packet by themselves since `enter_lanes`."""

    def __len__(self) -> int:
        return len(self.members)

    def of_sender(self, sender: Sender) -> list[Member]:
        """All streams of a sender."""
        return self._by_sender.get(sender, [])

    def sender_of(self, ssrc: int) -> Sender | None:
        """Who sends a stream under this SSRC, the latest one."""
        return self._by_ssrc.get(ssrc)

    def enrol(self, member: Member) -> None:
        """Make the stream known under its sender and SSRC."""
        sender, ssrc = member.stream.sender, member.stream.ssrc
        member.lane = self._lanes.allot(ssrc, np.frombuffer(sender, np.uint64))
        self._by_lane[member.lane] = self.members[sender, ssrc] = member
        self._by_sender.setdefault(sender, []).append(member)
        self._by_ssrc[ssrc] = sender

    def strike(self, member: Member) -> None:
        """Forget what `enrol` noted; the stream comes out of its lane."""
        self.leave_lane(member)
        sender, ssrc = member.stream.sender, member.stream.ssrc
        self._lanes.give_back(member.lane)
        del self._by_lane[member.lane], self.members[sender, ssrc], self._outside[member]
        self._by_sender[sender].remove(member)
        if not self._by_sender[sender]:
            del self._by_sender[sender]
        if self._by_ssrc.get(ssrc) == sender:
            del self._by_ssrc[ssrc]

    def last_arrived(self, member: Member) -> float:
        """When its last packet came."""
        if member.in_lane:
            return float(self._lanes.last_arrived[member.lane])
        return member.stream.jitter.timeline.last_arrived

    def streams(self) -> list[Stream]:
        """All of them, their jitter buffers up to date."""
        for member in self.members.values():
            if member.in_lane:
                self._lanes.copy_back(member.lane, member.stream.jitter)
        return [member.stream for member in self.members.values()]

    def take(self, datagrams: Datagrams, *, overflowed: bool) -> tuple[list[AudioBlock], list[int]]:
        """Let the lanes take what is for them; see `Lanes.take`."""
        if not self._by_lane:
            return [], list(range(len(datagrams)))
        pieces, others = self._lanes.take(datagrams, overflowed=overflowed)
        return [self._block(piece) for piece in pieces], others.tolist()

    def enter_lanes(self) -> None:
        """Put those into their lanes that are fit for them."""
        for member in self._outside:
            stream = member.stream
            n_bytes = stream.last_n_bytes
            if (
                stream.last_payload_type in self._has_lanes
                and 0 < n_bytes <= MAX_PAYLOAD
                and n_bytes % 2 == 0
                and stream.jitter.in_order
            ):
                self._lanes.open(member.lane, stream.jitter, stream.last_payload_type, n_bytes)
                member.in_lane = True
        self._outside.clear()

    def leave_lane(self, member: Member) -> None:
        """Bring the stream's own state up to date, to take a packet by itself."""
        if member.in_lane:
            member.stream.resume(self._lanes.close(member.lane, member.stream.jitter))
            member.in_lane = False
        self._outside[member] = None

    def _block(self, pieces: Pieces) -> AudioBlock:
        return AudioBlock(
            [self._by_lane[lane].stream.start.stream for lane in pieces.lanes.tolist()],
            pieces.pcm,
            CLOCK_RATE,
            pieces.position.tolist(),
            pieces.arrived.tolist(),
            pieces.lost,
        )
