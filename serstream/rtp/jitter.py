"""The jitter buffer of one stream: packets in, an unbroken line of sound, silence and loss out.

Nothing is played to an ear, so a packet in order is released at once. What the playout deadline bounds is
the wait for a missing one: a hole is declared lost when its own sound should have been played, and what is
behind it goes on. When that is, `serstream.rtp.timeline` says.
"""

from __future__ import annotations

from typing import NamedTuple

from serstream.rtp.packet import RtpPacket, sequence_delta, timestamp_delta
from serstream.rtp.timeline import LATE_S, TIMESTAMP_SLACK_S, Timeline

MAX_DROPOUT = 3000
"""Packets by which a sequence number may run ahead and still belong to the sequence (RFC 3550, A.1)."""
MAX_MISORDER = 100
"""Packets by which it may lag (RFC 3550, A.1); more if the timestamp lags as much."""
MAX_WAITING = 256
"""Packets held behind a hole; one more ends the wait."""
LOSSES_REMEMBERED = 512
"""Numbers of lost packets kept, to tell the late from the duplicate."""
CATCH_UP_S = 0.1
"""So long a packet that may follow a pause waits for those behind it: after a stall they come faster."""
SILENCE_S = 0.02
"""Announced silence is released in pieces of at least this length."""


class Heard(NamedTuple):
    """A packet of sound, next in line."""

    payload_type: int
    payload: bytes
    position: int
    """Of its first tick that counts."""
    duration: int
    """Ticks of the whole payload."""
    skip: int
    """Ticks at its beginning that silence has already filled; perhaps all."""
    arrived: float


class Gap(NamedTuple):
    """Sound that is not there."""

    position: int
    ticks: int
    lost: int
    """Ticks of them, at the beginning, that were lost on the network; the rest was never sent (DTX)."""
    arrived: float


Released = Heard | Gap


class _Waiting(NamedTuple):
    packet: RtpPacket
    duration: int
    silent: bool
    arrived: float


class JitterBuffer:
    """Puts the packets of one SSRC in order; positions and durations are ticks of the RTP clock.

    Clock-free: ``arrived`` and ``now`` are monotonic seconds that the caller passes in.
    """

    __slots__ = (
        "_lost_numbers",
        "_max_depth",
        "_missing",
        "_outlier",
        "_waiting",
        "duplicates",
        "late",
        "lost",
        "next_sequence",
        "received",
        "silent",
        "timeline",
    )

    def __init__(self, clock_rate: int, min_depth_s: float, max_depth_s: float):
        self.timeline = Timeline(clock_rate, min_depth_s, max_depth_s)
        self._max_depth = max_depth_s
        self._waiting: dict[int, _Waiting] = {}
        """Packets behind a hole, or behind what may be a pause, by sequence number."""
        self._lost_numbers: dict[int, None] = {}
        self._outlier: _Waiting | None = None
        """A packet that is none of the sequence: the first of a new one, or noise."""
        self._missing = 0
        """Lost packets whose ticks are not yet known, because no sound has come behind them."""
        self.next_sequence = -1
        """Sequence number that is next in line; -1 before the first packet."""
        self.silent = False
        """The sender said (RFC 3389, G.729 Annex B) that it stays silent until the next packet."""
        self.received = 0
        self.lost = 0
        """Packets that had not come when their sound was due."""
        self.late = 0
        """Packets that came after they were declared lost; counted in ``lost`` too."""
        self.duplicates = 0

    def push(
        self, packet: RtpPacket, duration: int, arrived: float, *, silent: bool = False
    ) -> list[Released]:
        """Take a packet.

        Args:
            packet: of this stream.
            duration: its ticks of sound; 0 when it carries none (comfort noise, telephone event).
            arrived: monotonic seconds of its receipt.
            silent: it says that silence follows (comfort noise, a silence descriptor behind sound).

        Returns:
            What is next in line, in order.
        """
        released: list[Released] = []
        waiting = _Waiting(packet, duration, silent, arrived)
        if self.next_sequence < 0:
            self._begin(packet, duration, arrived)
        self.received += 1
        self.timeline.last_arrived = arrived
        ahead = sequence_delta(packet.sequence_number, self.next_sequence)
        if self._is_outlier(waiting, ahead):
            first, self._outlier = self._outlier, waiting
            if first is None or sequence_delta(packet.sequence_number, first.packet.sequence_number) != 1:
                return released
            released += self.flush()
            self.timeline.resets += 1
            self._lost_numbers.clear()
            self._pass(first, released)
            ahead = 0
        self._outlier = None
        late = self.timeline.measure(packet, arrived) if duration else 0.0
        if ahead < 0:
            self._count_late(packet, arrived)
        elif packet.sequence_number in self._waiting:
            self.duplicates += 1
        else:
            if ahead == 0 and self._waiting and duration:
                self.timeline.learn(packet, arrived)
            if ahead == 0 and late <= LATE_S:
                self._pass(waiting, released)
            else:
                self._waiting[packet.sequence_number] = waiting
            self._drain(released)
            if len(self._waiting) > MAX_WAITING:
                self._give_up(released)
        return released

    @property
    def in_order(self) -> bool:
        """Nothing waits, nothing is open: the next packet in line, unless in doubt, goes straight through."""
        return self.next_sequence >= 0 and not (
            self._waiting or self._missing or self.silent or self.timeline.filled or self._outlier
        )

    def has_passed(self, sequence_number: int) -> bool:
        """Whether a packet of this number would be late, or a duplicate."""
        return (
            self.next_sequence >= 0
            and -MAX_MISORDER <= sequence_delta(sequence_number, self.next_sequence) < 0
        )

    def restart(self, clock_rate: int, sequence_number: int | None = None) -> None:
        """The next packet begins a new timeline, perhaps of another clock; stream time goes on.

        What still waits is dropped: `flush` it before.

        Args:
            clock_rate: of the new timeline.
            sequence_number: of the next packet, if the sequence goes on; what is missing before it is lost.
        """
        ahead = 0
        if sequence_number is not None and self.next_sequence >= 0:
            ahead = sequence_delta(sequence_number, self.next_sequence)
        self._missing = ahead if 0 < ahead <= MAX_MISORDER else 0
        self.lost += self._missing
        self.timeline.change_clock(clock_rate)
        self.next_sequence = -1
        self._waiting.clear()
        self._lost_numbers.clear()
        self._outlier = None

    @property
    def restless(self) -> bool:
        """Whether `release` may have something to do although nothing arrives."""
        return self.silent or bool(self._waiting)

    @property
    def deadline(self) -> float | None:
        """When `release` will have something to do, if nothing more arrives; None: never."""
        playout = self.timeline.playout
        if self._waiting:
            if head := self._waiting.get(self.next_sequence):
                return head.arrived + 2 * CATCH_UP_S
            return min(playout, next(iter(self._waiting.values())).arrived + self._max_depth)
        return playout + SILENCE_S if self.silent else None

    def release(self, now: float) -> list[Released]:
        """What is due at ``now``: holes whose deadline has passed, announced silence."""
        released: list[Released] = []
        while self._waiting and (deadline := self.deadline) is not None and deadline <= now:
            self._give_up(released)
        if self.silent and not self._waiting:
            ticks = self.timeline.overdue(now)
            if ticks >= SILENCE_S * self.timeline.clock_rate:
                released.append(Gap(self.timeline.position, ticks, 0, now))
                self.timeline.fill(ticks)
        return released

    def flush(self) -> list[Released]:
        """Everything that still waits, with its holes: the stream is over."""
        released: list[Released] = []
        while self._waiting:
            self._give_up(released)
        return released

    def _begin(self, packet: RtpPacket, duration: int, arrived: float) -> None:
        """Take the packet for the next in line."""
        if self.received:
            self.timeline.begin_anew(packet, duration, arrived, self._missing)
        else:
            self.timeline.begin(packet, arrived)
        self.next_sequence = packet.sequence_number

    def _is_outlier(self, waiting: _Waiting, ahead: int) -> bool:
        """Whether a packet is none of the sequence: far from it, or of a number that passed at another time.

        What the network held up, or sent twice, has the timestamp of its old place. So has a recording that
        is sent anew, but then nothing else comes.
        """
        packet, duration, _, arrived = waiting
        if ahead >= 0:
            return ahead >= MAX_DROPOUT
        if ahead >= -MAX_MISORDER:
            in_place = packet.sequence_number in self._lost_numbers or self.timeline.is_past(packet)
            return duration > 0 and not in_place
        # Announced silence is filled as it lasts: nothing is overdue then, though nothing has come.
        overdue = (self.timeline.overdue(arrived) + self.timeline.filled) / self.timeline.clock_rate
        return overdue > TIMESTAMP_SLACK_S or not self.timeline.is_past(packet, -ahead)

    def _count_late(self, packet: RtpPacket, arrived: float) -> None:
        if packet.sequence_number not in self._lost_numbers:
            self.duplicates += 1
            return
        del self._lost_numbers[packet.sequence_number]
        self.late += 1
        self.timeline.learn(packet, arrived)

    def _give_up(self, released: list[Released]) -> None:
        """Declare lost what is missing before the first waiting packet, and go on from there."""
        ahead = min(sequence_delta(number, self.next_sequence) for number in self._waiting)
        for i in range(ahead):
            self._lost_numbers[(self.next_sequence + i) & 0xFFFF] = None
        while len(self._lost_numbers) > LOSSES_REMEMBERED:
            del self._lost_numbers[next(iter(self._lost_numbers))]
        self.lost += ahead
        self._missing += ahead
        self.next_sequence = (self.next_sequence + ahead) & 0xFFFF
        if ahead == 0:
            self._pass(self._waiting.pop(self.next_sequence), released)
        self._drain(released)

    def _drain(self, released: list[Released]) -> None:
        """Release what is next in line, unless it may follow a pause and it is too early to tell."""
        while waiting := self._waiting.get(self.next_sequence):
            if self._until_newest(waiting) < CATCH_UP_S and self._seems_paused(waiting):
                return
            del self._waiting[self.next_sequence]
            self._pass(waiting, released)

    def _pass(self, waiting: _Waiting, released: list[Released]) -> None:
        """Release the packet that is next in line, and before it the gap that its timestamp shows."""
        packet, duration, silent, arrived = waiting
        self.next_sequence = (packet.sequence_number + 1) & 0xFFFF
        if duration == 0:
            self.silent = self.silent or silent
            return
        timeline, position = self.timeline, self.timeline.position
        in_doubt = self._seems_paused(waiting)
        paused = in_doubt and self._has_paused(waiting)
        gap = timeline.gap(packet, duration, arrived, in_doubt=in_doubt, paused=paused)
        if gap > 0:
            lost = min(gap, self._missing * (timeline.packet_ticks or duration))
            released.append(Gap(position, gap, lost, arrived))
            position += gap
        skip = timeline.take(packet, duration, gap)
        released.append(Heard(packet.payload_type, packet.payload, position, duration, skip, arrived))
        self.silent = silent
        self._missing = 0

    def _seems_paused(self, waiting: _Waiting) -> bool:
        """Whether the sender may have paused before the packet; see `Timeline.seems_paused`."""
        packet, duration, _, arrived = waiting
        return duration > 0 and self.timeline.seems_paused(
            packet,
            arrived,
            announced=packet.marker or self.silent,
            # Comfort noise may take a packet's time itself.
            n_missing=self._missing + self.silent,
        )

    def _has_paused(self, waiting: _Waiting) -> bool:
        """Whether it has: then what follows comes no faster than it was spoken, as it would after a stall.

        If it does, because the packet itself was held up a little, the next one is still in doubt.
        """
        seconds = self._until_newest(waiting)
        if seconds < CATCH_UP_S:
            return False
        newest = next(reversed(self._waiting.values())).packet
        ticks = timestamp_delta(newest.timestamp, waiting.packet.timestamp)
        return ticks < 1.25 * seconds * self.timeline.clock_rate

    def _until_newest(self, waiting: _Waiting) -> float:
        """Seconds from the packet to the last of those that wait."""
        newest = next(reversed(self._waiting.values()), waiting)
        return newest.arrived - waiting.arrived
