"""The streams of one RTP port: which packets belong together, when a stream begins, changes and ends."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np

from serstream.config import RtpSettings
from serstream.rtp import rtcp
from serstream.rtp.admission import MIN_SEQUENTIAL, AllowList, Arrival, Probation
from serstream.rtp.codecs import STATIC_FORMATS
from serstream.rtp.datagrams import Datagrams, Source, address_of, one_port_below
from serstream.rtp.jitter import JitterBuffer
from serstream.rtp.lanes import CLOCK_RATE, MAX_PAYLOAD, MIN_PACKETS, PAYLOAD_TYPES, Lanes, Pieces
from serstream.rtp.packet import Malformed, RtpPacket, parse
from serstream.rtp.parties import Parties
from serstream.rtp.sdp import media_of
from serstream.rtp.srtp import Unprotector
from serstream.rtp.status import PortStatus, StreamStatus
from serstream.rtp.stream import SOUND, Stream
from serstream.rtp.wallclock import WallClocks
from serstream.types import AudioBlock, AudioChunk, EndReason, SourceEvent, StreamEnd, StreamStart

log = logging.getLogger(__name__)

MIN_SEQUENTIAL_CHANGE = 3
"""Packets in a row that make a new SSRC the heir of one that fell silent."""
RETIRED_S = 2.0
"""So long after BYE or a change of SSRC, stray packets of the old one do not begin a new stream."""
SWEEP_S = 0.1
"""How often streams are looked at for silence."""
WARNING_S = 1.0
"""Least time between two warnings."""


class Refusal(StrEnum):
    """Why a well-formed packet was dropped."""

    NOT_ALLOWED = "from outside of 'allow'"
    LATCHED = "from another address than the first"
    TOO_MANY_STREAMS = "beyond max_streams"
    UNDECLARED = "of an undeclared payload type"
    NO_SOUND = "without sound, of no stream"
    RETIRED = "of a stream that has ended"
    MALFORMED_RTCP = "of malformed RTCP"


@dataclass(slots=True, eq=False)
class _Member:
    """A live stream and its lane."""

    stream: Stream
    lane: int = -1
    in_lane: bool = False


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
        self._allowed = AllowList(settings)
        self._name = name or settings.prefix
        self._source = source or f"rtp:{settings.port}"
        self._numbers: Counter[str] = Counter() if numbers is None else numbers
        self._parties = Parties(settings, self._name, self._numbers)
        self._probation = Probation()
        self._members: dict[tuple[Source, int], _Member] = {}
        self._by_source: dict[Source, list[_Member]] = {}
        self._by_ssrc: dict[int, Source] = {}
        """The latest sender of each; the only one unless ``latch`` is off."""
        self._restless: dict[_Member, None] = {}
        """Those whose jitter buffer has a deadline."""
        self._lanes = Lanes(settings.max_streams)
        self._by_lane: dict[int, _Member] = {}
        self._has_lanes = tuple(t for t in PAYLOAD_TYPES if self._formats[t] == STATIC_FORMATS[t])
        self._retired: dict[tuple[Source, int], float] = {}
        self._wall_clocks = WallClocks()
        self.n_started = 0
        """Streams so far."""
        self._next_sweep = 0.0
        self._undeclared: set[int] = set()
        """Payload types that were warned of."""
        self._next_warning = 0.0
        self.utc_offset = utc_offset
        """May be set anew when the wall clock was."""
        self.dropped: Counter[str] = Counter()
        """Packets that no stream got, by reason."""
        self._over: Counter[str] = Counter()
        """Packets of the streams that are over, by fate."""

    def __len__(self) -> int:
        return len(self._members)

    def receive(self, datagrams: Datagrams, *, overflowed: bool = False) -> list[SourceEvent]:
        """Take datagrams of the RTP port, in order of arrival.

        Args:
            datagrams: from the socket.
            overflowed: its buffer has dropped some of late; what is missing is not waited for.
        """
        datagrams = self._unprotected(datagrams)
        events: list[SourceEvent] = []
        rest = range(len(datagrams))
        many = len(datagrams) >= MIN_PACKETS
        if many and self._by_lane:
            pieces, others = self._lanes.take(datagrams, overflowed=overflowed)
            events += map(self._block, pieces)
            rest = others.tolist()
        touched: dict[_Member, None] = {}
        for i in rest:
            source, arrived = datagrams.source(i), float(datagrams.arrived[i])
            events += self._receive_one(datagrams.datagram(i), source, arrived, touched)
        if many:
            for member in touched:
                self._enter_lane(member)
        return events

    def receive_rtcp(self, datagrams: Datagrams) -> list[SourceEvent]:
        """Take datagrams of the RTCP port."""
        datagrams = self._unprotected(datagrams)
        events: list[SourceEvent] = []
        for i in range(len(datagrams)):
            events += self._control(datagrams.datagram(i), datagrams.source(i), float(datagrams.arrived[i]))
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
            for key, member in list(self._members.items()):
                if self._last_arrived(member) < silent_since:
                    events += self._end(key, "timeout")
            self._retired = {key: until for key, until in self._retired.items() if until > now}
        return events

    def close(self, reason: EndReason = "shutdown") -> list[SourceEvent]:
        """End every stream."""
        return [event for key in list(self._members) for event in self._end(key, reason)]

    def status(self) -> PortStatus:
        """Counts of the port and of each live stream."""
        for member in self._members.values():
            if member.in_lane:
                self._lanes.copy_back(member.lane, member.stream.jitter)
        streams = [StreamStatus.of(member.stream) for member in self._members.values()]
        packets = Counter(self._over)
        for stream in streams:
            packets.update(stream.packets)
        return PortStatus(
            port=self._settings.port,
            dropped=dict(self.dropped),
            streams=streams,
            packets=packets,
        )

    def _receive_one(
        self, datagram: bytes, source: Source, arrived: float, touched: dict[_Member, None]
    ) -> list[SourceEvent]:
        if rtcp.is_rtcp(datagram):
            return self._control(datagram, source, arrived)
        packet = parse(datagram)
        if isinstance(packet, Malformed):
            self.dropped[f"malformed: {packet}"] += 1
            return []
        member = self._members.get((source, packet.ssrc))
        events: list[SourceEvent] = []
        if member:
            events += self._push(member, packet, arrived)
        else:
            member = self._admit(source, packet, arrived, events)
        if member:
            touched[member] = None
        return events

    def _push(self, member: _Member, packet: RtpPacket, arrived: float) -> list[AudioChunk]:
        self._leave_lane(member)
        if packet.payload_type not in self._formats:
            self._warn_undeclared(packet.payload_type, arrived)
            self.dropped[Refusal.UNDECLARED] += 1
        chunks = member.stream.push(packet, arrived)
        self._settle(member)
        return chunks

    def _settle(self, member: _Member) -> None:
        if member.stream.jitter.restless:
            self._restless[member] = None
        else:
            self._restless.pop(member, None)

    # Beginning, change and end of streams.

    def _admit(
        self, source: Source, packet: RtpPacket, arrived: float, events: list[SourceEvent]
    ) -> _Member | None:
        """Take a packet of an SSRC that is no stream; the member it belongs to if that makes it one."""
        refusal = self._refusal(source, packet, arrived)
        if refusal:
            self.dropped[refusal] += 1
            return None
        row = self._probation.add(source, packet, arrived)
        if len(row) < MIN_SEQUENTIAL:
            return None
        heir_of = self._fallen_silent(source, row[0].arrived)
        if heir_of and len(row) < MIN_SEQUENTIAL_CHANGE:
            return None
        if heir_of is None and len(self._members) >= self._settings.max_streams:
            self.dropped[Refusal.TOO_MANY_STREAMS] += 1
            return None
        member = (
            self._change_ssrc(heir_of, source, packet.ssrc, events)
            if heir_of
            else self._start(source, row[0], events)
        )
        for arrival in row:
            events += self._push(member, arrival.packet, arrival.arrived)
        self._probation.forget(source, packet.ssrc)
        return member

    def _refusal(self, source: Source, packet: RtpPacket, now: float) -> Refusal | None:
        if source not in self._allowed:
            return Refusal.NOT_ALLOWED
        if self._retired.get((source, packet.ssrc), 0.0) > now:
            return Refusal.RETIRED
        if self._settings.latch == "stream" and self._by_ssrc.get(packet.ssrc, source) != source:
            return Refusal.LATCHED
        if self._settings.latch == "port" and self._by_source and source not in self._by_source:
            return Refusal.LATCHED
        declared = self._formats.get(packet.payload_type)
        if declared is None:
            self._warn_undeclared(packet.payload_type, now)
            return Refusal.UNDECLARED
        return None if declared.encoding in SOUND and packet.payload else Refusal.NO_SOUND

    def _fallen_silent(self, source: Source, since: float) -> _Member | None:
        """The only stream of a source, if it has sent nothing since but a moment before."""
        own = self._by_source.get(source, [])
        if len(own) != 1:
            return None
        pause = since - self._last_arrived(own[0])
        return own[0] if 0 < pause <= self._settings.ssrc_change_s else None

    def _start(self, source: Source, first: Arrival, events: list[SourceEvent]) -> _Member:
        self.n_started += 1
        self._numbers[self._name] += 1
        name = f"{self._name}-{self._numbers[self._name]}"
        call, role = self._parties.join(name, source, first.packet.ssrc)
        clock_rate = self._formats[first.packet.payload_type].clock_rate
        by_arrival = first.arrived + self.utc_offset
        start = StreamStart(
            stream=name,
            call=call,
            role=role,
            source=self._source,
            started_at=self._wall_clocks.utc_of(address_of(source)[0], first.packet, clock_rate, by_arrival),
        )
        jitter = JitterBuffer(
            clock_rate, self._settings.jitter_min_ms / 1000, self._settings.jitter_max_ms / 1000
        )
        stream = Stream(start, source, first.packet.ssrc, self._formats, jitter)
        member = _Member(stream)
        self._enrol(member)
        events.append(start)
        log.info("%s: stream %s began, SSRC 0x%08X, role %s", self._where, name, first.packet.ssrc, role)
        return member

    def _change_ssrc(self, member: _Member, source: Source, ssrc: int, events: list[SourceEvent]) -> _Member:
        self._leave_lane(member)
        stream = member.stream
        self._retire((stream.source, stream.ssrc), self._last_arrived(member))
        self._strike(member)
        log.info(
            "%s: stream %s goes on, SSRC 0x%08X after 0x%08X",
            *(self._where, stream.start.stream, ssrc, stream.ssrc),
        )
        events += stream.change_ssrc(source, ssrc)
        self._enrol(member)
        return member

    def _end(self, key: tuple[Source, int], reason: EndReason) -> list[SourceEvent]:
        member = self._members[key]
        self._leave_lane(member)
        self._strike(member)
        self._restless.pop(member, None)
        stream = member.stream
        self._parties.leave(stream.start.stream)
        log.info(
            "%s: stream %s is over (%s): %d packets, %d lost",
            *(self._where, stream.start.stream, reason, stream.jitter.received, stream.jitter.lost),
        )
        rest = stream.flush()
        self._over.update(StreamStatus.of(stream).packets)
        return [*rest, StreamEnd(stream.start.stream, reason)]

    def _enrol(self, member: _Member) -> None:
        """Make the stream known under its source and SSRC."""
        source, ssrc = member.stream.source, member.stream.ssrc
        member.lane = self._lanes.allot(ssrc, np.frombuffer(source, np.uint64))
        self._by_lane[member.lane] = self._members[source, ssrc] = member
        self._by_source.setdefault(source, []).append(member)
        self._by_ssrc[ssrc] = source

    def _strike(self, member: _Member) -> None:
        """Forget what `_enrol` noted."""
        source, ssrc = member.stream.source, member.stream.ssrc
        self._lanes.give_back(member.lane)
        del self._by_lane[member.lane], self._members[source, ssrc]
        self._by_source[source].remove(member)
        if not self._by_source[source]:
            del self._by_source[source]
        if self._by_ssrc.get(ssrc) == source:
            del self._by_ssrc[ssrc]

    def _retire(self, key: tuple[Source, int], now: float) -> None:
        self._retired[key] = now + RETIRED_S

    def _last_arrived(self, member: _Member) -> float:
        if member.in_lane:
            return float(self._lanes.last_arrived[member.lane])
        return member.stream.jitter.last_arrived

    def _warn_undeclared(self, payload_type: int, now: float) -> None:
        """Once for each, and at most one a second: noise has all of them."""
        if payload_type not in self._undeclared and now >= self._next_warning:
            self._undeclared.add(payload_type)
            self._next_warning = now + WARNING_S
            log.warning(
                "%s: payload type %d is not declared and dropped; declare it in payload_types, e.g. "
                '{ %d = "opus/48000/2" }, or give the sender\'s SDP in sdp',
                *(self._where, payload_type, payload_type),
            )

    # Lanes.

    def _enter_lane(self, member: _Member) -> None:
        stream = member.stream
        n_bytes = len(stream.last_payload)
        if (
            not member.in_lane
            and stream.last_payload_type in self._has_lanes
            and 0 < n_bytes <= MAX_PAYLOAD
            and n_bytes % 2 == 0
            and stream.jitter.in_order
            and (stream.source, stream.ssrc) in self._members
        ):
            self._lanes.open(member.lane, stream.jitter, stream.last_payload_type, stream.last_payload)
            member.in_lane = True

    def _leave_lane(self, member: _Member) -> None:
        if member.in_lane:
            member.stream.resume(self._lanes.close(member.lane, member.stream.jitter))
            member.in_lane = False

    def _block(self, pieces: Pieces) -> AudioBlock:
        return AudioBlock(
            [self._by_lane[lane].stream.start.stream for lane in pieces.lanes.tolist()],
            pieces.pcm,
            CLOCK_RATE,
            pieces.position.tolist(),
            pieces.arrived.tolist(),
            pieces.lost,
        )

    # Before packets are sorted, and beside them.

    def _unprotected(self, datagrams: Datagrams) -> Datagrams:
        if self._unprotector is None:
            return datagrams
        plain, refused = self._unprotector.datagrams(datagrams)
        self.dropped.update(refused)
        return plain

    def _control(self, datagram: bytes, source: Source, arrived: float) -> list[SourceEvent]:
        reports = rtcp.parse(datagram)
        if reports is None or source not in self._allowed:
            self.dropped[Refusal.MALFORMED_RTCP if reports is None else Refusal.NOT_ALLOWED] += 1
            return []
        events: list[SourceEvent] = []
        for report in reports:
            if isinstance(report, rtcp.SenderReport):
                self._wall_clocks.note(address_of(source)[0], report)
                continue
            # RTCP of a stream comes from its own address, or from the next port (RFC 3550, section 11).
            for ssrc in report.ssrcs:
                for sender in (source, one_port_below(source)):
                    if (sender, ssrc) in self._members:
                        events += self._end((sender, ssrc), "bye")
                        self._retire((sender, ssrc), arrived)
        return events
