"""The jitter buffer of one stream: packets in, an unbroken line of sound, silence and loss out.

Nothing is played to an ear, so a packet in order is released at once. What the playout deadline bounds is
the wait for a missing one: a hole is declared lost when its own sound should have been played (Ramjee et al.
1994: mean transit time, or that of the last packet if it took longer, plus a depth that follows the jitter of
RFC 3550, A.8), and what is behind it goes on.

Stream time is the sender's, and our clock its judge. The mean transit time is that of the packets on time: a
late one says something about the network and next to nothing about the sender's clock, so a stall moves
nothing unless it looks like a pause.
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
"""How far a gap, and all of them (`JitterBuffer.earliest`), may bring timestamps ahead of the clock; beyond
that the sender has changed its timeline. And how far they may fall behind by pauses of which nothing but the
clock tells."""
HELD_UP_S = 3.0
"""So long the network may have held up the first packets of a stream; the clock knows nothing of it then."""
EARLIEST_RISE = 0.01
"""Seconds by which the earliest transit rises towards the mean in every second of the stream: routes grow
longer, clocks drift."""
LATE_S = 0.2
"""What comes so much later than the mean is late: it was held up, or the sender paused before it."""
LATE_GAIN_S = 0.0002
"""By how much one late packet raises the mean: 10 ms a second, so that a longer route becomes the rule."""
CATCH_UP_S = 0.1
"""So long a packet that may follow a pause waits for those behind it: after a stall they come faster."""
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
        "_filled",
        "_late_at",
        "_late_depth",
        "_lost_numbers",
        "_max_depth",
        "_min_depth",
        "_missing",
        "_outlier",
        "_waiting",
        "behind",
        "clock_rate",
        "duplicates",
        "earliest",
        "jitter",
        "last_arrived",
        "last_transit",
        "late",
        "lost",
        "next_sequence",
        "next_timestamp",
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
        """Packets behind a hole, or behind what may be a pause, by sequence number."""
        self._lost_numbers: dict[int, None] = {}
        self._outlier: _Waiting | None = None
        """A packet far from the sequence: the first of a new one, or noise."""
        self._missing = 0
        """Lost packets whose ticks are not yet known, because no sound has come behind them."""
        self._late_depth = 0.0
        self._late_at = 0.0
        self._filled = 0
        """Ticks released as silence beyond `next_timestamp`, where the sender has not been yet."""
        self.next_sequence = -1
        """Sequence number that is next in line; -1 before the first packet."""
        self.next_timestamp = 0
        """Where the last packet of sound ended, in the sender's ticks."""
        self.position = 0
        """Ticks released so far."""
        self.packet_ticks = 0
        """Duration of the last packet of sound."""
        self.silent = False
        """The sender said (RFC 3389) that it stays silent until the next packet."""
        self.earliest = 0.0
        """Transit of the earliest packets, seconds; at first less what may have held them up. A packet lowers
        it by no more than its sound lasts, so gaps bring stream time no further ahead than that and slack."""
        self.transit = 0.0
        """Mean of arrival minus stream time of the packets on time, seconds."""
        self.last_transit = 0.0
        """The same of the last one."""
        self.behind = 0.0
        """Seconds by which the last packet of sound, unless in doubt, came later than the mean."""
        self.jitter = 0.0
        """Interarrival jitter in seconds (RFC 3550, A.8)."""
        self.last_arrived = 0.0
        self.received = 0
        self.lost = 0
        """Packets that had not come when their sound was due."""
        self.late = 0
        """Packets that came after they were declared lost; counted in ``lost`` too."""
        self.duplicates = 0
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
                return released
            released += self.flush()
            self.resets += 1
            self._lost_numbers.clear()
            self._pass(first, released)
            ahead = 0
        self._outlier = None
        late = self._measure(packet, arrived) if duration else 0.0
        if ahead < 0:
            self._count_late(packet, arrived)
        elif packet.sequence_number in self._waiting:
            self.duplicates += 1
        else:
            if ahead == 0 and self._waiting and duration:
                self._learn(packet, arrived)
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
            self._waiting or self._missing or self.silent or self._filled or self._outlier
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
        self.packet_ticks = round(self.packet_ticks * clock_rate / self.clock_rate)
        self.position = round(self.position * clock_rate / self.clock_rate)
        self.clock_rate = clock_rate
        self.next_sequence = -1
        self.resets += 1
        self._waiting.clear()
        self._lost_numbers.clear()
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
    def _expected(self) -> float:
        """Arrival minus stream time of the next packet: the mean, or what held up the last one."""
        return self.transit + max(0.0, self.behind)

    @property
    def deadline(self) -> float | None:
        """When `release` will have something to do, if nothing more arrives; None: never."""
        playout = self._expected + self.position / self.clock_rate + self.depth
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
            ticks = int((now - self._expected - self.depth) * self.clock_rate) - self.position
            if ticks >= SILENCE_S * self.clock_rate:
                released.append(Gap(self.position, ticks, 0, now))
                self.position += ticks
                self._filled += ticks
        return released

    def flush(self) -> list[Released]:
        """Everything that still waits, with its holes: the stream is over."""
        released: list[Released] = []
        while self._waiting:
            self._give_up(released)
        return released

    def _begin(self, packet: RtpPacket, duration: int, arrived: float) -> None:
        """Take the packet for the next in line; after a restart, behind what is missing or the time since."""
        gap = 0
        if self.received:
            gap = round((arrived - self.transit) * self.clock_rate) - self.position
            gap = max(gap if gap > duration else 0, self._missing * self.packet_ticks)
        else:
            self.transit = self.last_transit = arrived
            self.earliest = arrived - HELD_UP_S
        self.next_sequence = packet.sequence_number
        self.next_timestamp = (packet.timestamp - gap) & 0xFFFF_FFFF
        self._filled = 0

    def _transit(self, packet: RtpPacket, arrived: float) -> float:
        ticks = timestamp_delta(packet.timestamp, self.next_timestamp)
        return arrived - (self.position - self._filled + ticks) / self.clock_rate

    def _measure(self, packet: RtpPacket, arrived: float) -> float:
        """Interarrival jitter (RFC 3550, A.8) and mean transit time (Ramjee et al. 1994) of what is on time.

        Returns:
            Seconds by which the packet came later than the mean.
        """
        transit = self._transit(packet, arrived)
        late = transit - self.transit
        if -TIMESTAMP_SLACK_S <= late <= LATE_S:
            self.jitter += JITTER_GAIN * (abs(transit - self.last_transit) - self.jitter)
            self.transit += TRANSIT_GAIN * late
            self.last_transit = transit
        return late

    def _count_late(self, packet: RtpPacket, arrived: float) -> None:
        if packet.sequence_number not in self._lost_numbers:
            self.duplicates += 1
            return
        del self._lost_numbers[packet.sequence_number]
        self.late += 1
        self._learn(packet, arrived)

    def _learn(self, packet: RtpPacket, arrived: float) -> None:
        """A packet came behind its successors, or behind silence in its place: wait so long for the next."""
        delay = self._transit(packet, arrived) - self._expected + LATE_MARGIN_S
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
        gap, skip = self._gap(waiting), 0
        if gap > 0:
            lost = min(gap, self._missing * (self.packet_ticks or duration))
            released.append(Gap(self.position, gap, lost, arrived))
            self.position += gap
        elif gap < 0:
            skip = min(duration, -gap)
        released.append(Heard(packet.payload_type, packet.payload, self.position, duration, skip, arrived))
        self.position += duration - skip
        self.next_timestamp = (packet.timestamp + duration) & 0xFFFF_FFFF
        self.packet_ticks = duration
        self.silent = False
        self._filled = -gap - skip if gap < 0 else 0
        self._missing = 0

    def _gap(self, waiting: _Waiting) -> int:
        """Ticks missing before the packet; if negative, silence has filled so many from its beginning on."""
        packet, duration, _, arrived = waiting
        ticks = timestamp_delta(packet.timestamp, self.next_timestamp)
        transit = self._transit(packet, arrived)
        late = transit - self.transit
        rise = EARLIEST_RISE * (ticks + duration) / self.clock_rate
        earliest = max(self.earliest, min(self.earliest + rise, self.transit))
        by_itself = late >= -TIMESTAMP_SLACK_S or ticks <= TIMESTAMP_SLACK_S * self.clock_rate
        plausible = ticks == 0 or (by_itself and transit >= earliest - TIMESTAMP_SLACK_S)
        in_doubt = late > LATE_S and self._seems_paused(waiting)
        if ticks >= 0 and plausible and not (in_doubt and self._has_paused(waiting)):
            if ticks < self._filled:
                self._learn(packet, arrived)
            # A longer route becomes the rule by and by, a shorter one at once: none comes before it is sent.
            if late > LATE_S:
                self.transit += LATE_GAIN_S
            elif late < -LATE_S:
                self.transit = transit + LATE_S
            self.earliest = min(max(transit, earliest - duration / self.clock_rate), earliest)
            if not in_doubt:
                self.behind = transit - self.transit
            return ticks - self._filled
        # The sender has changed its timeline (re-INVITE, hold, transfer): ours goes on by the clock.
        self.resets += 1
        self.behind = 0.0
        self.transit = max(self.transit, self.earliest - TIMESTAMP_SLACK_S)
        gap = ticks + round((transit - self.transit) * self.clock_rate) - self._filled
        return gap if gap > duration else 0

    def _seems_paused(self, waiting: _Waiting) -> bool:
        """Whether the sender may have paused before the packet and left that out of its timestamps.

        The packet comes later than the one before, all of a sudden, and its timestamp knows of no pause. Less
        than the slack counts only where the sender says that it begins to speak, where silence has taken the
        packet's place, or when it has added up.
        """
        packet, duration, _, arrived = waiting
        ticks = timestamp_delta(packet.timestamp, self.next_timestamp)
        late = self._transit(packet, arrived) - self.transit
        return (
            duration > 0
            and late > (LATE_S if packet.marker or self.silent or self._filled else TIMESTAMP_SLACK_S)
            and late - self.behind > LATE_S
            # Comfort noise may take a packet's time itself.
            and 0 <= ticks <= (self._missing + self.silent) * self.packet_ticks
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
        return ticks < 1.25 * seconds * self.clock_rate

    def _until_newest(self, waiting: _Waiting) -> float:
        """Seconds from the packet to the last of those that wait."""
        newest = next(reversed(self._waiting.values()), waiting)
        return newest.arrived - waiting.arrived
