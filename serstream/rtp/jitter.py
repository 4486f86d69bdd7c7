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
SILENCE_S = 0.02
"""Announced silence is released in pieces of at least this length."""
LATE_MARGIN_S = 0.02
"""Added to the delay of a packet that came behind its successors."""
LATE_DECAY = 0.01
"""Seconds by which the depth that a late packet asked for shrinks every second."""


class Heard(NamedTuple):
    """A packet of sound, next in line."""

    payload_type: int
    payload: bytes
    position: int
    """Of its first tick that counts."""
    duration: int
    """Ticks of the whole payload."""
    skip: int
    """Ticks at its beginning that silence has already filled."""
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
        "_late_at",
        "_late_depth",
        "_lost_numbers",
        "_max_depth",
        "_min_depth",
        "_missing",
        "_outlier",
        "_waiting",
        "clock_rate",
        "duplicates",
        "jitter",
        "last_arrived",
        "last_transit",
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
        self.clock_rate = clock_rate
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
        self.last_transit = 0.0
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

    def push(
        self, packet: RtpPacket, duration: int, arrived: float, *, silent: bool = False
    ) -> list[Released]:
        """Take a packet.

        Args:
            packet: of this stream.
            duration: its ticks of sound; 0 when it carries none (comfort noise, telephone event).
            arrived: monotonic seconds of its receipt.
            silent: it says that silence follows (comfort noise).

        Returns:
            What is next in line, in order.
        """
        released: list[Released] = []
        waiting = _Waiting(packet, duration, silent, arrived)
        if self.next_sequence < 0:
            self._begin(packet, duration, arrived)
        self.received += 1
        self.last_arrived = arrived
        ahead = sequence_delta(packet.sequence_number, self.next_sequence)
        if not -MAX_MISORDER <= ahead < MAX_DROPOUT:
            first, self._outlier = self._outlier, waiting
            if first is None or sequence_delta(packet.sequence_number, first.packet.sequence_number) != 1:
                self.outliers += first is not None
                return released
            released += self.flush()
            self.resets += 1
            self._lost_numbers.clear()
            self._pass(first, released)
            ahead = 0
        self._outlier = None
        if duration:
            self._measure(packet, arrived)
        if ahead < 0:
            self._count_late(packet, arrived)
        elif packet.sequence_number in self._waiting:
            self.duplicates += 1
        elif ahead == 0:
            if self._waiting and duration:
                self._learn(packet, arrived)
            self._pass(waiting, released)
            self._drain(released)
        else:
            self._waiting[packet.sequence_number] = waiting
            if len(self._waiting) > MAX_WAITING:
                self._give_up(released)
        return released

    @property
    def in_order(self) -> bool:
        """Nothing waits, nothing is open: the next packet in line would go straight through."""
        return (
            not (self._waiting or self._missing or self.silent or self._outlier) and self.next_sequence >= 0
        )

    def restart(self, clock_rate: int) -> None:
        """The next packet begins a new sequence and timeline, perhaps of another clock; stream time goes on.

        What still waits is dropped: `flush` it before.
        """
        self.position = round(self.position * clock_rate / self.clock_rate)
        self.clock_rate = clock_rate
        self.next_sequence = -1
        self.resets += 1
        self._waiting.clear()
        self._lost_numbers.clear()
        self._missing = 0
        self._outlier = None

    @property
    def restless(self) -> bool:
        """Whether `release` may have something to do although nothing arrives."""
        return self.silent or bool(self._waiting)

    @property
    def depth(self) -> float:
        """Seconds after its mean arrival time at which a missing packet is given up."""
        late = self._late_depth - LATE_DECAY * (self.last_arrived - self._late_at)
        return min(self._max_depth, max(self._min_depth, JITTERS * self.jitter, late))

    @property
    def deadline(self) -> float | None:
        """When `release` will have something to do, if nothing more arrives; None: never."""
        playout = self.transit + self.position / self.clock_rate + self.depth
        if self._waiting:
            first = next(iter(self._waiting.values())).arrived
            return min(playout, first + self._max_depth)
        return playout + SILENCE_S if self.silent else None

    def release(self, now: float) -> list[Released]:
        """What is due at ``now``: holes whose deadline has passed, announced silence."""
        released: list[Released] = []
        while self._waiting and (deadline := self.deadline) is not None and deadline <= now:
            self._give_up(released)
        if self.silent and not self._waiting:
            ticks = int((now - self.transit - self.depth) * self.clock_rate) - self.position
            if ticks >= SILENCE_S * self.clock_rate:
                released.append(Gap(self.position, ticks, 0, now))
                self.position += ticks
                self.next_timestamp = (self.next_timestamp + ticks) & 0xFFFF_FFFF
        return released

    def flush(self) -> list[Released]:
        """Everything that still waits, with its holes: the stream is over."""
        released: list[Released] = []
        while self._waiting:
            self._give_up(released)
        return released

    def _begin(self, packet: RtpPacket, duration: int, arrived: float) -> None:
        """Take the packet for the next in line; after a restart, behind the time that has passed since."""
        gap = 0
        if self.received:
            gap = round((arrived - self.transit) * self.clock_rate) - self.position
            gap = gap if gap > duration else 0
        else:
            self.transit = self.last_transit = arrived
        self.next_sequence = packet.sequence_number
        self.next_timestamp = (packet.timestamp - gap) & 0xFFFF_FFFF

    def _measure(self, packet: RtpPacket, arrived: float) -> None:
        """Interarrival jitter (RFC 3550, A.8) and mean transit time (Ramjee et al. 1994)."""
        ticks = timestamp_delta(packet.timestamp, self.next_timestamp)
        transit = arrived - (self.position + ticks) / self.clock_rate
        if abs(transit - self.last_transit) > TIMESTAMP_SLACK_S:
            return
        self.jitter += JITTER_GAIN * (abs(transit - self.last_transit) - self.jitter)
        self.transit += TRANSIT_GAIN * (transit - self.transit)
        self.last_transit = transit

    def _count_late(self, packet: RtpPacket, arrived: float) -> None:
        if packet.sequence_number not in self._lost_numbers:
            self.duplicates += 1
            return
        del self._lost_numbers[packet.sequence_number]
        self.late += 1
        self._learn(packet, arrived)

    def _learn(self, packet: RtpPacket, arrived: float) -> None:
        """A packet came behind its successors, in time or not: wait so long for the next one like it."""
        ticks = timestamp_delta(packet.timestamp, self.next_timestamp)
        delay = arrived - self.transit - (self.position + ticks) / self.clock_rate + LATE_MARGIN_S
        if self.depth < delay <= TIMESTAMP_SLACK_S:
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
        packet, duration, silent, arrived = waiting
        self.next_sequence = (packet.sequence_number + 1) & 0xFFFF
        if duration == 0:
            self.silent = self.silent or silent
            return
        gap, skip = self._gap(packet, duration, arrived)
        if gap > 0:
            lost = min(gap, self._missing * (self.packet_ticks or duration))
            released.append(Gap(self.position, gap, lost, arrived))
            self.position += gap
        transit = arrived - (self.position - skip) / self.clock_rate
        if abs(transit - self.transit) > TIMESTAMP_SLACK_S:
            self.transit = self.last_transit = transit
        released.append(Heard(packet.payload_type, packet.payload, self.position, duration, skip, arrived))
        self.position += duration - skip
        self.next_timestamp = (packet.timestamp + duration) & 0xFFFF_FFFF
        self.packet_ticks = duration
        self.silent = False
        self._missing = 0

    def _gap(self, packet: RtpPacket, duration: int, arrived: float) -> tuple[int, int]:
        """Ticks missing before the packet, and ticks of it that silence has already filled."""
        ticks = timestamp_delta(packet.timestamp, self.next_timestamp)
        elapsed = round((arrived - self.transit) * self.clock_rate) - self.position
        """Where the clock says the packet belongs, as ticks from here."""
        slack = TIMESTAMP_SLACK_S * self.clock_rate
        if self.silent and -duration < ticks < 0:
            return 0, -ticks
        held = packet.marker and ticks == 0 and elapsed > slack
        if 0 <= ticks <= max(0, elapsed) + slack and not held:
            return ticks, 0
        # The sender has changed its timeline (re-INVITE, hold, transfer): ours goes on by the clock.
        self.resets += 1
        return (elapsed if elapsed > duration else 0), 0
