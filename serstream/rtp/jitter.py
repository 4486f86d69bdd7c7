"""The jitter buffer of one stream: packets in, an unbroken line of sound, silence and loss out.

Nothing is played to an ear, so a packet in order is released at once. What the playout deadline bounds is
the wait for a missing one: a hole is declared lost when its own sound should have been played (Ramjee et al.
1994: mean transit time plus a depth that follows the jitter of RFC 3550, A.8), and what is behind it goes on.
"""

from __future__ import annotations

from typing import NamedTuple

from serstream.rtp.packet import RtpPacket, sequence_delta, timestamp_delta

MAX_DROPOUT = 3000
"""Packets by which a sequence number may run ahead and still belong to the sequence (RFC 3550, A.1)."""
MAX_MISORDER = 100
"""Packets by which it may lag (RFC 3550, A.1)."""
MAX_WAITING = 256
"""Packets held behind a hole; one more ends the wait."""
LOSSES_REMEMBERED = 512
"""Numbers of lost packets kept, to tell the late from the duplicate."""
TIMESTAMP_SLACK_S = 1.0
"""How far a timestamp may run ahead of the clock; beyond it the sender has changed its timeline."""
JITTERS = 4
"""Depth in units of the interarrival jitter, the safety factor of Ramjee et al."""
TRANSIT_GAIN = 1 / 64
JITTER_GAIN = 1 / 16
LATE_DECAY = 0.01
"""Seconds by which the depth that a late packet asked for shrinks every second."""


class Heard(NamedTuple):
    """A packet of sound, next in line."""

    payload_type: int
    payload: bytes
    skip: int
    """Ticks at its beginning that were already filled."""
    arrived: float


class Gap(NamedTuple):
    """Sound that is not there."""

    ticks: int
    lost: int
    """Ticks of them, at the beginning, that were lost on the network; the rest was never sent (DTX)."""
    arrived: float


Released = Heard | Gap


class _Waiting(NamedTuple):
    packet: RtpPacket
    duration: int
    arrived: float


class JitterBuffer:
    """Puts the packets of one SSRC in order; positions and durations are ticks of the RTP clock.

    Clock-free: ``arrived`` and ``now`` are monotonic seconds that the caller passes in.
    """

    __slots__ = (
        "_clock_rate",
        "_late_at",
        "_late_depth",
        "_lost_numbers",
        "_max_depth",
        "_min_depth",
        "_missing",
        "_outlier",
        "_transit",
        "_waiting",
        "duplicates",
        "jitter",
        "last_arrived",
        "late",
        "lost",
        "next_sequence",
        "next_timestamp",
        "outliers",
        "packet_ticks",
        "position",
        "received",
        "resets",
        "silent",
        "transit",
    )

    def __init__(self, clock_rate: int, min_depth_s: float, max_depth_s: float):
        self._clock_rate = clock_rate
        self._min_depth = min_depth_s
        self._max_depth = max_depth_s
        self._waiting: dict[int, _Waiting] = {}
        """Packets behind a hole, by sequence number."""
        self._lost_numbers: dict[int, None] = {}
        self._outlier: _Waiting | None = None
        """A packet far from the sequence: the first of a new one, or noise."""
        self._missing = 0
        """Lost packets whose ticks are not yet known, because no sound has come behind them."""
        self._late_depth = 0.0
        self._late_at = 0.0
        self.next_sequence = -1
        """Sequence number that is next in line; -1 before the first packet."""
        self.next_timestamp = 0
        self.position = 0
        """Ticks released so far."""
        self.packet_ticks = 0
        """Duration of the last packet of sound."""
        self.silent = False
        """The sender said (RFC 3389) that it stays silent until the next packet."""
        self.transit = 0.0
        """Mean of arrival minus stream time, seconds."""
        self._transit = 0.0
        """The same of the last packet."""
        self.jitter = 0.0
        """Interarrival jitter in seconds (RFC 3550, A.8)."""
        self.last_arrived = 0.0
        self.received = 0
        self.lost = 0
        """Packets that had not come when their sound was due."""
        self.late = 0
        """Packets that came after they were declared lost; counted in ``lost`` too."""
        self.duplicates = 0
        self.outliers = 0
        """Packets far outside the sequence that were dropped."""
        self.resets = 0
        """New sequences or timelines that the sender began."""

    def push(self, packet: RtpPacket, duration: int, arrived: float) -> list[Released]:
        """Take a packet.

        Args:
            packet: of this stream.
            duration: its ticks; 0 when it carries no sound (comfort noise, telephone event).
            arrived: monotonic seconds of its receipt.

        Returns:
            What is next in line, in order.
        """
        self.received += 1
        self.last_arrived = arrived
        if self.next_sequence < 0:
            self._begin(packet, arrived)
        released: list[Released] = []
        ahead = sequence_delta(packet.sequence_number, self.next_sequence)
        if not -MAX_MISORDER <= ahead < MAX_DROPOUT:
            if not self._resets(packet, duration, arrived, released):
                return released
            ahead = 0
        self._outlier = None
        self._measure(packet, arrived)
        if ahead < 0:
            self._count_late(packet, arrived)
        elif packet.sequence_number in self._waiting:
            self.duplicates += 1
        elif ahead == 0:
            self._pass(_Waiting(packet, duration, arrived), released)
            self._drain(released)
        else:
            self._waiting[packet.sequence_number] = _Waiting(packet, duration, arrived)
            if len(self._waiting) > MAX_WAITING:
                self._give_up(released)
        return released

    @property
    def depth(self) -> float:
        """Seconds after its mean arrival time at which a missing packet is given up."""
        late = self._late_depth - LATE_DECAY * (self.last_arrived - self._late_at)
        return min(self._max_depth, max(self._min_depth, JITTERS * self.jitter, late))

    @property
    def deadline(self) -> float | None:
        """When `release` will have something to do, if nothing more arrives; None: never."""
        playout = self.transit + self.position / self._clock_rate + self.depth
        if self._waiting:
            first = next(iter(self._waiting.values())).arrived
            return min(playout, first + self._max_depth)
        return playout + 0.02 if self.silent else None

    def release(self, now: float) -> list[Released]:
        """What is due at ``now``: holes whose deadline has passed, announced silence."""
        released: list[Released] = []
        while self._waiting and (deadline := self.deadline) is not None and deadline <= now:
            self._give_up(released)
        if self.silent and not self._waiting:
            ticks = int((now - self.transit - self.depth) * self._clock_rate) - self.position
            if ticks > 0:
                released.append(Gap(ticks, 0, now))
                self._advance(ticks)
        return released

    def flush(self) -> list[Released]:
        """Everything that still waits, with its holes: the stream is over."""
        released: list[Released] = []
        while self._waiting:
            self._give_up(released)
        return released

    def _begin(self, packet: RtpPacket, arrived: float) -> None:
        self.next_sequence = packet.sequence_number
        self.next_timestamp = packet.timestamp
        self.transit = self._transit = arrived - self.position / self._clock_rate

    def _advance(self, ticks: int) -> None:
        self.position += ticks
        self.next_timestamp = (self.next_timestamp + ticks) & 0xFFFF_FFFF

    def _resets(self, packet: RtpPacket, duration: int, arrived: float, released: list[Released]) -> bool:
        """Whether a packet outside the sequence begins a new one: two in a row do (RFC 3550, A.1)."""
        first, self._outlier = self._outlier, _Waiting(packet, duration, arrived)
        if first is None or packet.sequence_number != (first.packet.sequence_number + 1) & 0xFFFF:
            self.outliers += first is not None
            return False
        while self._waiting:
            self._give_up(released)
        self.resets += 1
        self._lost_numbers.clear()
        self.next_sequence = first.packet.sequence_number
        self._pass(first, released)
        return True

    def _measure(self, packet: RtpPacket, arrived: float) -> None:
        """Interarrival jitter (RFC 3550, A.8) and mean transit time (Ramjee et al. 1994)."""
        ticks = timestamp_delta(packet.timestamp, self.next_timestamp)
        transit = arrived - (self.position + ticks) / self._clock_rate
        if abs(transit - self._transit) > TIMESTAMP_SLACK_S:
            return
        self.jitter += JITTER_GAIN * (abs(transit - self._transit) - self.jitter)
        self.transit += TRANSIT_GAIN * (transit - self.transit)
        self._transit = transit

    def _count_late(self, packet: RtpPacket, arrived: float) -> None:
        if packet.sequence_number not in self._lost_numbers:
            self.duplicates += 1
            return
        del self._lost_numbers[packet.sequence_number]
        self.late += 1
        behind = timestamp_delta(packet.timestamp, self.next_timestamp)
        delay = arrived - self.transit - (self.position + behind) / self._clock_rate
        if self._min_depth < delay <= TIMESTAMP_SLACK_S and delay > self.depth:
            self._late_depth, self._late_at = delay, arrived

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
        self._drain(released)

    def _drain(self, released: list[Released]) -> None:
        while self._waiting and (waiting := self._waiting.pop(self.next_sequence, None)):
            self._pass(waiting, released)

    def _pass(self, waiting: _Waiting, released: list[Released]) -> None:
        """Release the packet that is next in line, and before it the gap that its timestamp shows."""
        packet, duration, arrived = waiting
        self.next_sequence = (packet.sequence_number + 1) & 0xFFFF
        if duration == 0:
            return
        gap, skip = self._gap(packet, duration, arrived)
        if gap > 0:
            released.append(Gap(gap, min(gap, self._missing * (self.packet_ticks or duration)), arrived))
            self.position += gap
        self._missing = 0
        self.silent = False
        self.packet_ticks = duration
        self.position += duration - skip
        self.next_timestamp = (packet.timestamp + duration) & 0xFFFF_FFFF
        released.append(Heard(packet.payload_type, packet.payload, skip, arrived))

    def _gap(self, packet: RtpPacket, duration: int, arrived: float) -> tuple[int, int]:
        """Ticks missing before the packet, and ticks of it that silence has already filled."""
        ticks = timestamp_delta(packet.timestamp, self.next_timestamp)
        elapsed = round((arrived - self.transit) * self._clock_rate) - self.position
        """Where the clock says the packet belongs, as ticks from here."""
        if self.silent and -duration < ticks < 0:
            return 0, -ticks
        held = packet.marker and ticks == 0 and elapsed > TIMESTAMP_SLACK_S * self._clock_rate
        if 0 <= ticks <= elapsed + TIMESTAMP_SLACK_S * self._clock_rate and not held:
            return ticks, 0
        # The sender has changed its timeline (re-INVITE, hold, transfer): ours goes on by the clock.
        self.resets += 1
        return (elapsed if elapsed > duration else 0), 0
