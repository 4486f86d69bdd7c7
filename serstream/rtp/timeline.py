"""Stream time of one stream: where a packet's timestamp puts its sound, judged by our clock.

Stream time is the sender's, and our clock its judge. The mean transit time is that of the packets on time: a
late one says something about the network and next to nothing about the sender's clock, so a stall moves
nothing unless it looks like a pause.

What is missing is waited for until its own sound should have been played (Ramjee et al. 1994): mean transit
time, or that of the last packet if it took longer, plus a depth that follows the jitter of RFC 3550, A.8.
"""

from __future__ import annotations

from serstream.rtp.packet import RtpPacket, timestamp_delta

TIMESTAMP_SLACK_S = 1.0
"""How far a gap, and all of them (`Timeline.earliest`), may bring timestamps ahead of the clock; beyond that
the sender has changed its timeline. And how far they may fall behind by pauses of which nothing but the clock
tells."""
HELD_UP_S = 3.0
"""So long the network may have held up the first packets of a stream; the clock knows nothing of it then."""
STRAGGLER_S = 10.0
"""So long the network may hold up a packet while others pass it."""
EARLIEST_RISE = 0.01
"""Seconds by which the earliest transit rises towards the mean in every second of the stream: routes grow
longer, clocks drift."""
LATE_S = 0.2
"""What comes so much later than the mean is late: it was held up, or the sender paused before it."""
LATE_GAIN_S = 0.0002
"""By how much one late packet raises the mean: 10 ms a second, so that a longer route becomes the rule."""
JITTERS = 4
"""Depth in units of the interarrival jitter, the safety factor of Ramjee et al."""
TRANSIT_GAIN = 1 / 64
JITTER_GAIN = 1 / 16
LATE_MARGIN_S = 0.02
"""Added to the delay of a packet that came behind its successors."""
LATE_DECAY = 0.01
"""Seconds by which the depth that a late packet asked for shrinks every second."""


class Timeline:
    """Where the sound of one stream lies, and when it is due; every packet that is next in line moves it on.

    Positions and durations are ticks of the RTP clock; ``arrived`` and ``now`` are monotonic seconds.
    """

    __slots__ = (
        "_former_timestamp",
        "_late_at",
        "_late_depth",
        "_max_depth",
        "_min_depth",
        "behind",
        "clock_rate",
        "earliest",
        "filled",
        "jitter",
        "last_arrived",
        "last_transit",
        "next_timestamp",
        "packet_ticks",
        "position",
        "resets",
        "transit",
    )

    def __init__(self, clock_rate: int, min_depth_s: float, max_depth_s: float):
        self.clock_rate = clock_rate
        self._min_depth = min_depth_s
        self._max_depth = max_depth_s
        self._late_depth = 0.0
        self._late_at = 0.0
        self.filled = 0
        """Ticks released as silence beyond `next_timestamp`, where the sender has not been yet."""
        self.next_timestamp = 0
        """Where the last packet of sound ended, in the sender's ticks."""
        self._former_timestamp = 0
        """The same where the sender left its timeline for this one."""
        self.position = 0
        """Ticks released so far."""
        self.packet_ticks = 0
        """Duration of the last packet of sound."""
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
        """When the last packet came, of whatever kind."""
        self.resets = 0
        """New sequences or timelines that the sender began."""

    @property
    def depth(self) -> float:
        """Seconds after its mean arrival time at which a missing packet is given up."""
        late = self._late_depth - LATE_DECAY * (self.last_arrived - self._late_at)
        return min(self._max_depth, max(self._min_depth, JITTERS * self.jitter, late))

    @property
    def playout(self) -> float:
        """When the sound behind `position` should be played."""
        return self._expected + self.position / self.clock_rate + self.depth

    def overdue(self, now: float) -> int:
        """Ticks of sound that should have been played and are not there."""
        return int((now - self._expected - self.depth) * self.clock_rate) - self.position

    def begin(self, packet: RtpPacket, arrived: float) -> None:
        """The stream's first packet."""
        self.transit = self.last_transit = arrived
        self.earliest = arrived - HELD_UP_S
        self.next_timestamp = self._former_timestamp = packet.timestamp
        self.filled = 0

    def begin_anew(self, packet: RtpPacket, duration: int, arrived: float, n_missing: int) -> None:
        """The first packet after `change_clock`: behind what is missing, or behind the time since."""
        gap = round((arrived - self.transit) * self.clock_rate) - self.position
        gap = max(gap if gap > duration else 0, n_missing * self.packet_ticks)
        self.next_timestamp, self.filled = (packet.timestamp - gap) & 0xFFFF_FFFF, 0

    def change_clock(self, clock_rate: int) -> None:
        """Go on in ticks of another clock."""
        self.packet_ticks = round(self.packet_ticks * clock_rate / self.clock_rate)
        self.position = round(self.position * clock_rate / self.clock_rate)
        self.clock_rate = clock_rate
        self.resets += 1

    def is_past(self, packet: RtpPacket, n_behind: int = 0) -> bool:
        """Whether a timestamp is of sound whose time has passed a moment ago.

        Args:
            packet: of a sequence number that has passed.
            n_behind: packets that came since, if they shall tell; of those that last longer, half are enough.
        """
        latest = -max(1, n_behind * self.packet_ticks // 2)
        return any(
            -STRAGGLER_S * self.clock_rate <= timestamp_delta(packet.timestamp, end) <= latest
            for end in (self.next_timestamp, self._former_timestamp)
        )

    def measure(self, packet: RtpPacket, arrived: float) -> float:
        """Interarrival jitter (RFC 3550, A.8) and mean transit time (Ramjee et al. 1994) of what is on time.

        Returns:
            Seconds by which the packet came later than the mean.
        """
        transit = self._transit_of(packet, arrived)
        late = transit - self.transit
        if -TIMESTAMP_SLACK_S <= late <= LATE_S:
            self.jitter += JITTER_GAIN * (abs(transit - self.last_transit) - self.jitter)
            self.transit += TRANSIT_GAIN * late
            self.last_transit = transit
        return late

    def learn(self, packet: RtpPacket, arrived: float) -> None:
        """A packet came behind its successors, or behind silence in its place: wait so long for the next."""
        delay = self._transit_of(packet, arrived) - self._expected + LATE_MARGIN_S
        if self.depth < delay <= TIMESTAMP_SLACK_S:
            self._late_depth, self._late_at = delay, arrived

    def seems_paused(self, packet: RtpPacket, arrived: float, *, announced: bool, n_missing: int) -> bool:
        """Whether the sender may have paused before a packet and left that out of its timestamps.

        The packet comes later than the one before, all of a sudden, and its timestamp knows of no pause. Less
        than the slack counts only where the sender says that it begins to speak, where silence has taken the
        packet's place, or when it has added up.

        Args:
            packet: of sound.
            arrived: when it came.
            announced: the sender said that it fell silent, or that it begins to speak.
            n_missing: packets before it whose time its timestamp may well count.
        """
        late = self._transit_of(packet, arrived) - self.transit
        ticks = timestamp_delta(packet.timestamp, self.next_timestamp)
        return (
            late > (LATE_S if announced or self.filled else TIMESTAMP_SLACK_S)
            and late - self.behind > LATE_S
            and 0 <= ticks <= n_missing * self.packet_ticks
        )

    def gap(self, packet: RtpPacket, duration: int, arrived: float, *, in_doubt: bool, paused: bool) -> int:
        """Judge the packet that is next in line: ticks missing before it, before `take`.

        Args:
            packet: of sound.
            duration: its ticks.
            arrived: when it came.
            in_doubt: its sender may have paused before it.
            paused: its sender has.

        Returns:
            If negative, silence has filled so many from its beginning on.
        """
        ticks = timestamp_delta(packet.timestamp, self.next_timestamp)
        transit = self._transit_of(packet, arrived)
        late = transit - self.transit
        rise = EARLIEST_RISE * (ticks + duration) / self.clock_rate
        earliest = max(self.earliest, min(self.earliest + rise, self.transit))
        by_itself = late >= -TIMESTAMP_SLACK_S or ticks <= TIMESTAMP_SLACK_S * self.clock_rate
        plausible = ticks == 0 or (by_itself and transit >= earliest - TIMESTAMP_SLACK_S)
        if ticks >= 0 and plausible and not paused:
            if ticks < self.filled:
                self.learn(packet, arrived)
            # A longer route becomes the rule by and by, a shorter one at once: none comes before it is sent.
            if late > LATE_S:
                self.transit += LATE_GAIN_S
            elif late < -LATE_S:
                self.transit = transit + LATE_S
            self.earliest = min(max(transit, earliest - duration / self.clock_rate), earliest)
            if not in_doubt:
                self.behind = transit - self.transit
            return ticks - self.filled
        # The sender has changed its timeline (re-INVITE, hold, transfer): ours goes on by the clock.
        self.resets += 1
        self._former_timestamp = self.next_timestamp
        self.behind = 0.0
        self.transit = max(self.transit, self.earliest - TIMESTAMP_SLACK_S)
        gap = ticks + round((transit - self.transit) * self.clock_rate) - self.filled
        return gap if gap > duration else 0

    def take(self, packet: RtpPacket, duration: int, gap: int) -> int:
        """Go on behind a packet and the `gap` before it; ticks of it that silence has already filled."""
        skip = min(duration, max(0, -gap))
        self.position += max(gap, 0) + duration - skip
        self.next_timestamp = (packet.timestamp + duration) & 0xFFFF_FFFF
        self.packet_ticks = duration
        self.filled = max(0, -gap - skip)
        return skip

    def fill(self, ticks: int) -> None:
        """So much silence was released before its time is known."""
        self.position += ticks
        self.filled += ticks

    @property
    def _expected(self) -> float:
        """Arrival minus stream time of the next packet: the mean, or what held up the last one."""
        return self.transit + max(0.0, self.behind)

    def _transit_of(self, packet: RtpPacket, arrived: float) -> float:
        """Arrival minus stream time."""
        ticks = timestamp_delta(packet.timestamp, self.next_timestamp)
        return arrived - (self.position - self.filled + ticks) / self.clock_rate
