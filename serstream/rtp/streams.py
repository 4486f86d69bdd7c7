"""The streams of one RTP port: which packets belong together, when a stream begins, changes and ends."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from enum import StrEnum
from pathlib import Path

from serstream.config import RtpSettings
from serstream.pacing import ALWAYS, Pacing
from serstream.rtp import rtcp
from serstream.rtp.admission import MAX_KEPT, MIN_SEQUENTIAL, AllowList, Arrival, Probation
from serstream.rtp.codecs import STATIC_FORMATS
from serstream.rtp.datagrams import Datagrams, Sender, address_of, one_port_below
from serstream.rtp.jitter import JitterBuffer
from serstream.rtp.lanes import MIN_PACKETS, PAYLOAD_TYPES
from serstream.rtp.packet import Malformed, RtpPacket, parse
from serstream.rtp.parties import Parties
from serstream.rtp.roster import Member, Roster
from serstream.rtp.sdp import media_of
from serstream.rtp.srtp import Refused, Unprotector
from serstream.rtp.status import PortStatus, StreamStatus
from serstream.rtp.stream import SOUND, Stream
from serstream.rtp.stream_log import StreamLog
from serstream.rtp.wallclock import WallClocks
from serstream.types import AudioChunk, EndReason, SourceEvent, StreamEnd, StreamStart

log = logging.getLogger(__name__)

PACKETS_MISSED = 3
"""An SSRC that lets so many packets fail to come while a new one is heard has changed to it."""
RETIRED_S = 2.0
"""So long after BYE, stray packets do not begin a new stream."""
LEFT_S = 0.2
"""So long after a change of SSRC, those of the old one do not: what the network held up has come by then, and
the old one may return."""
SWEEP_S = 0.1
"""How often streams are looked at for silence."""


class Refusal(StrEnum):
    """Why a well-formed packet was dropped."""

    NOT_ALLOWED = "from outside of 'allow'"
    LATCHED = "from another address than the first"
    TOO_MANY_STREAMS = "beyond max_streams"
    UNDECLARED = "of an undeclared payload type"
    NO_SOUND = "without sound, of no stream"
    RETIRED = "of an SSRC that has ended"
    MALFORMED_RTCP = "of malformed RTCP"


class Streams:
    """Sorts the datagrams of one port into streams.

    Clock-free: times are monotonic seconds that the caller passes in.

    Args:
        settings: of the port.
        utc_offset: seconds to add to monotonic time for UTC.
        name: what stream names begin with; empty: as the settings say.
        source: `StreamStart.source`; empty: ``rtp:PORT``.
        numbers: how many streams and calls have been named so far, by what their names begin with; shared by
            those that may use the same name one after the other.
        base: folder that a relative ``sdp`` starts from.

    Raises:
        ConfigError: payload types, SDP or keys of the configuration are not understood.
    """

    def __init__(
        self,
        settings: RtpSettings,
        utc_offset: float,
        name: str = "",
        source: str = "",
        numbers: Counter[str] | None = None,
        base: Path = Path(),
    ):
        self._settings = settings
        self._where = f"rtp {settings.address}:{settings.port}"
        media = media_of(settings, base)
        self._formats = media.formats
        self._unprotector = Unprotector(media.keys, settings.max_streams) if media.keys else None
        self._log = StreamLog(self._where)
        self._allowed = AllowList(settings)
        self._name = name or settings.prefix
        self._source = source or f"rtp:{settings.port}"
        self._numbers: Counter[str] = Counter() if numbers is None else numbers
        self._parties = Parties(settings, self._name, self._numbers)
        self._probation = Probation()
        has_lanes = (type_ for type_ in PAYLOAD_TYPES if self._formats.get(type_) == STATIC_FORMATS[type_])
        self._roster = Roster(settings.max_streams, has_lanes)
        self._restless: dict[Member, None] = {}
        """Those whose jitter buffer has a deadline."""
        self._retired: dict[tuple[Sender, int], float] = {}
        self._wall_clocks = WallClocks()
        self.n_started = 0
        """Streams so far."""
        self._next_sweep = 0.0
        self._undeclared: set[int] = set()
        """Payload types that packets had although they are not declared."""
        self._told_undeclared: set[int] = set()
        """Those that were warned of."""
        self._pacing = Pacing()
        """Of the warnings of these."""
        self._has_told_full = False
        """Whether it was warned that there is no room since a stream has last ended."""
        self.utc_offset = utc_offset
        """May be set anew when the wall clock was."""
        self.dropped: Counter[str] = Counter()
        """Packets that no stream got, by reason."""
        self._over: Counter[str] = Counter()
        """Packets of the streams that are over, by fate."""

    def __len__(self) -> int:
        return len(self._roster)

    @property
    def is_idle(self) -> bool:
        """Whether nothing falls due before the next packet."""
        return not self._roster and not self._probation

    def receive(self, datagrams: Datagrams, *, overflowed: bool = False) -> list[SourceEvent]:
        """Take datagrams of the RTP port, in order of arrival.

        Args:
            datagrams: from the socket.
            overflowed: its buffer has dropped some of late; what is missing is not waited for.
        """
        datagrams = self._unprotected(datagrams)
        events: list[SourceEvent] = []
        rest: Iterable[int] = range(len(datagrams))
        many = len(datagrams) >= MIN_PACKETS
        if many:
            blocks, rest = self._roster.take(datagrams, overflowed=overflowed)
            events += blocks
        for i in rest:
            sender, arrived = datagrams.sender(i), float(datagrams.arrived[i])
            events += self._receive_one(datagrams.datagram(i), sender, arrived)
        if many:
            self._roster.enter_lanes()
        return events

    def receive_rtcp(self, datagrams: Datagrams) -> list[SourceEvent]:
        """Take datagrams of the RTCP port."""
        datagrams = self._unprotected(datagrams)
        events: list[SourceEvent] = []
        for i in range(len(datagrams)):
            events += self._control(datagrams.datagram(i), datagrams.sender(i), float(datagrams.arrived[i]))
        return events

    def release(self, now: float) -> list[SourceEvent]:
        """What is due: holes whose playout deadline has passed, streams that have been silent too long."""
        events: list[SourceEvent] = []
        for member in list(self._restless):
            events += member.stream.release(now)
            self._settle(member)
        if now >= self._next_sweep:
            self._next_sweep = now + SWEEP_S
            silent_since = now - self._settings.silence_timeout_s
            for member in list(self._roster.members.values()):
                if self._roster.last_arrived(member) < silent_since:
                    events += self._end(member, "timeout")
            self._retired = {key: until for key, until in self._retired.items() if until > now}
            self._probation.forget_silent(now)
        return events

    def close(self, reason: EndReason = "shutdown") -> list[SourceEvent]:
        """End every stream, and tell what there is no later line for."""
        members = list(self._roster.members.values())
        events = [event for member in members for event in self._end(member, reason)]
        self.tell(math.inf)
        return events

    def tell(self, now: float) -> None:
        """Log what shares a line with others; call it about once a second.

        Undeclared payload types are told once of each, together, for noise has all of them.
        """
        self._log.tell(now)
        new = self._undeclared - self._told_undeclared
        if new and self._pacing.is_due(now):
            self._pacing.tell(now)
            self._told_undeclared |= new
            log.warning(
                "%s: undeclared payload types are dropped: %s; declare them in payload_types, "
                'e.g. { %d = "opus/48000/2" }, or give the sender\'s SDP in sdp',
                *(self._where, ", ".join(map(str, sorted(new))), min(new)),
                extra=ALWAYS,
            )

    def status(self) -> PortStatus:
        """Counts of the port and of each live stream."""
        streams = [StreamStatus.of(stream) for stream in self._roster.streams()]
        packets = Counter(self._over)
        for stream in streams:
            packets.update(stream.packets)
        return PortStatus(
            port=self._settings.port,
            dropped=dict(self.dropped),
            streams=streams,
            packets=packets,
        )

    def _receive_one(self, datagram: bytes, sender: Sender, arrived: float) -> Sequence[SourceEvent]:
        if rtcp.is_rtcp(datagram):
            return self._control(datagram, sender, arrived)
        packet = parse(datagram)
        if isinstance(packet, Malformed):
            self.dropped[f"malformed: {packet}"] += 1
            return []
        member = self._roster.members.get((sender, packet.ssrc))
        return self._push(member, packet, arrived) if member else self._admit(sender, packet, arrived)

    def _push(self, member: Member, packet: RtpPacket, arrived: float) -> list[AudioChunk]:
        self._roster.leave_lane(member)
        if packet.payload_type not in self._formats:
            self._undeclared.add(packet.payload_type)
            self.dropped[Refusal.UNDECLARED] += 1
        chunks = member.stream.push(packet, arrived)
        self._settle(member)
        return chunks

    def _settle(self, member: Member) -> None:
        if member.stream.jitter.restless:
            self._restless[member] = None
        else:
            self._restless.pop(member, None)

    # Beginning, change and end of streams.

    def _admit(self, sender: Sender, packet: RtpPacket, arrived: float) -> list[SourceEvent]:
        """Take a packet of an SSRC that is no stream, which may make it one."""
        refusal = self._refusal(sender, packet, arrived)
        if refusal:
            self.dropped[refusal] += 1
            return []
        row = self._probation.add(sender, packet, arrived)
        if len(row) < MIN_SEQUENTIAL:
            return []
        heir_of = self._predecessor(sender, packet.ssrc, row[0].arrived)
        if heir_of and not self._is_missed(heir_of, row):
            return []
        self._probation.forget(sender, packet.ssrc)
        if heir_of is None and len(self._roster) >= self._settings.max_streams:
            self.dropped[Refusal.TOO_MANY_STREAMS] += len(row)
            self._warn_full(sender, packet.ssrc)
            return []
        events = self._change_ssrc(heir_of, packet.ssrc, arrived) if heir_of else self._start(sender, row[0])
        member = self._roster.members[sender, packet.ssrc]
        for arrival in row:
            events += self._push(member, arrival.packet, arrival.arrived)
        return events

    def _refusal(self, sender: Sender, packet: RtpPacket, now: float) -> Refusal | None:
        if sender not in self._allowed:
            return Refusal.NOT_ALLOWED
        if self._retired.get((sender, packet.ssrc), 0.0) > now:
            return Refusal.RETIRED
        if self._settings.latch == "stream" and self._roster.sender_of(packet.ssrc) not in (sender, None):
            return Refusal.LATCHED
        if self._settings.latch == "port" and len(self._roster) and not self._roster.of_sender(sender):
            return Refusal.LATCHED
        declared = self._formats.get(packet.payload_type)
        if declared is None:
            self._undeclared.add(packet.payload_type)
            return Refusal.UNDECLARED
        return None if declared.encoding in SOUND and packet.payload else Refusal.NO_SOUND

    def _predecessor(self, sender: Sender, ssrc: int, since: float) -> Member | None:
        """The only stream of a sender, if it fell silent a moment before and may be of the same party."""
        own = self._roster.of_sender(sender)
        if len(own) != 1:
            return None
        (member,) = own
        in_time = 0 <= since - self._roster.last_arrived(member) < self._settings.ssrc_change_s
        return member if in_time and self._parties.may_be(member.stream.start.stream, sender, ssrc) else None

    def _is_missed(self, member: Member, row: list[Arrival]) -> bool:
        """Whether a stream that sent nothing while the row came should have."""
        timeline = member.stream.jitter.timeline
        elapsed = row[-1].arrived - row[0].arrived
        return len(row) == MAX_KEPT or elapsed * timeline.clock_rate >= PACKETS_MISSED * timeline.packet_ticks

    def _start(self, sender: Sender, first: Arrival) -> list[SourceEvent]:
        self.n_started += 1
        self._numbers[self._name] += 1
        name = f"{self._name}-{self._numbers[self._name]}"
        call, role = self._parties.join(name, sender, first.packet.ssrc)
        clock_rate = self._formats[first.packet.payload_type].clock_rate
        by_arrival = first.arrived + self.utc_offset
        start = StreamStart(
            stream=name,
            call=call,
            role=role,
            source=self._source,
            started_at=self._wall_clocks.utc_of(address_of(sender)[0], first.packet, clock_rate, by_arrival),
        )
        jitter = JitterBuffer(
            clock_rate, self._settings.jitter_min_ms / 1000, self._settings.jitter_max_ms / 1000
        )
        self._roster.enrol(Member(Stream(start, sender, first.packet.ssrc, self._formats, jitter)))
        self._log.add(name, "began", f", SSRC 0x{first.packet.ssrc:08X}, role {role}")
        return [start]

    def _change_ssrc(self, member: Member, ssrc: int, now: float) -> list[SourceEvent]:
        self._roster.strike(member)
        stream = member.stream
        self._log.add(stream.start.stream, "goes on", f", SSRC 0x{ssrc:08X} after 0x{stream.ssrc:08X}")
        self._retired[stream.sender, stream.ssrc] = now + LEFT_S
        chunks = stream.change_ssrc(ssrc)
        self._roster.enrol(member)
        return [*chunks]

    def _end(self, member: Member, reason: EndReason) -> list[SourceEvent]:
        self._roster.strike(member)
        self._restless.pop(member, None)
        self._has_told_full = False
        stream = member.stream
        self._parties.leave(stream.start.stream)
        counts = f": {stream.jitter.received} packets, {stream.jitter.lost} lost"
        self._log.add(stream.start.stream, f"is over ({reason})", counts)
        rest = stream.flush()
        self._over.update(StreamStatus.of(stream).packets)
        return [*rest, StreamEnd(stream.start.stream, reason)]

    def _warn_full(self, sender: Sender, ssrc: int) -> None:
        """Once each time that there is no room."""
        if not self._has_told_full:
            self._has_told_full = True
            address, port = address_of(sender)
            log.warning(
                "%s: SSRC 0x%08X of %s port %d is refused: there are %d streams, max_streams allows no more",
                *(self._where, ssrc, address, port, len(self._roster)),
            )

    # Before packets are sorted, and beside them.

    def _unprotected(self, datagrams: Datagrams) -> Datagrams:
        if self._unprotector is None:
            return datagrams
        passed: list[tuple[bytes, Sender, float]] = []
        for i in range(len(datagrams)):
            sender, arrived = datagrams.sender(i), float(datagrams.arrived[i])
            # Strangers must not use up the tries of callers.
            if sender not in self._allowed:
                self.dropped[Refusal.NOT_ALLOWED] += 1
                continue
            plain = self._unprotector.plain(datagrams.datagram(i), arrived)
            if isinstance(plain, Refused):
                self.dropped[plain] += 1
            else:
                passed.append((plain, sender, arrived))
        return Datagrams.of(passed)

    def _control(self, datagram: bytes, sender: Sender, arrived: float) -> list[SourceEvent]:
        reports = rtcp.parse(datagram)
        if reports is None or sender not in self._allowed:
            self.dropped[Refusal.MALFORMED_RTCP if reports is None else Refusal.NOT_ALLOWED] += 1
            return []
        events: list[SourceEvent] = []
        for report in reports:
            if isinstance(report, rtcp.SenderReport):
                self._wall_clocks.note(address_of(sender)[0], report)
                continue
            # RTCP of a stream comes from its own address, or from the next port (RFC 3550, section 11).
            for ssrc in report.ssrcs:
                for origin in (sender, one_port_below(sender)):
                    if member := self._roster.members.get((origin, ssrc)):
                        events += self._end(member, "bye")
                        self._retired[origin, ssrc] = arrived + RETIRED_S
        return events
