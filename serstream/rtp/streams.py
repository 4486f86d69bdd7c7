"""The streams of one RTP port: who may send, which packets belong together, when a stream begins and ends."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from serstream.config import RtpSettings
from serstream.rtp.codecs import ALAW, G711, ULAW, Decoder
from serstream.rtp.jitter import Gap, Heard, JitterBuffer, Released
from serstream.rtp.packet import Malformed, RtpPacket, parse
from serstream.types import AudioChunk, EndReason, Samples, SourceEvent, StreamEnd, StreamStart

log = logging.getLogger(__name__)

Address: TypeAlias = tuple[str, int]
"""IP address and UDP port."""

MIN_DEPTH_S = 0.04
MAX_DEPTH_S = 0.4

_CODECS: dict[int, Callable[[], Decoder]] = {0: lambda: G711(ULAW), 8: lambda: G711(ALAW)}


class Stream:
    """One direction of one call: an SSRC from one address."""

    def __init__(self, name: str, address: Address, payload_type: int):
        self.name = name
        self.address = address
        self.payload_type = payload_type
        self.decoder = _CODECS[payload_type]()
        self.jitter = JitterBuffer(self.decoder.clock_rate, MIN_DEPTH_S, MAX_DEPTH_S)
        self.position = 0

    def chunks(self, released: list[Released]) -> list[SourceEvent]:
        """Decode what the jitter buffer has released."""
        return [self._chunk(item) for item in released]

    def _chunk(self, item: Heard | Gap) -> AudioChunk:
        ratio = self.decoder.sample_rate // self.decoder.clock_rate
        lost = 0
        if isinstance(item, Heard):
            samples: Samples = self.decoder.decode(item.payload)[item.skip * ratio :]
        else:
            samples = np.zeros(item.ticks * ratio, np.float32)
            lost = item.lost * ratio
        start = self.position
        self.position += len(samples)
        return AudioChunk(self.name, samples, self.decoder.sample_rate, start, lost, item.arrived)


class Streams:
    """Sorts the packets of one port into streams; clock-free.

    ``arrived`` and ``now`` are monotonic seconds; ``utc_offset`` turns them into UTC.
    """

    def __init__(self, settings: RtpSettings, utc_offset: float):
        self._settings = settings
        self._utc_offset = utc_offset
        self._streams: dict[tuple[Address, int], Stream] = {}
        self._started = 0
        self.counters: Counter[str] = Counter()

    def receive(self, datagram: bytes, address: Address, arrived: float) -> list[SourceEvent]:
        """Take one datagram of the RTP port."""
        packet = parse(datagram)
        if isinstance(packet, Malformed):
            self.counters[f"malformed {packet}"] += 1
            return []
        if packet.payload_type not in _CODECS:
            self.counters["undeclared payload type"] += 1
            return []
        events: list[SourceEvent] = []
        key = (address, packet.ssrc)
        stream = self._streams.get(key)
        if stream is None:
            stream = self._streams[key] = self._start(packet, address, arrived, events)
        duration = stream.decoder.duration(packet.payload)
        return events + stream.chunks(stream.jitter.push(packet, duration, arrived))

    def receive_rtcp(self, datagram: bytes, address: Address) -> list[SourceEvent]:
        """Take one datagram of the RTCP port: BYE ends its stream."""
        events: list[SourceEvent] = []
        offset = 0
        while offset + 8 <= len(datagram):
            if datagram[offset + 1] == 203:
                ssrc = int.from_bytes(datagram[offset + 4 : offset + 8], "big")
                for key in [key for key in self._streams if key[1] == ssrc and key[0][0] == address[0]]:
                    events += self._end(key, "bye")
            offset += 4 + 4 * int.from_bytes(datagram[offset + 2 : offset + 4], "big")
        return events

    def release(self, now: float) -> list[SourceEvent]:
        """What is due: holes whose playout deadline has passed, streams that have fallen silent."""
        events: list[SourceEvent] = []
        for key, stream in list(self._streams.items()):
            if now - stream.jitter.last_arrived > self._settings.silence_timeout_s:
                events += self._end(key, "timeout")
            else:
                events += stream.chunks(stream.jitter.release(now))
        return events

    def close(self) -> list[SourceEvent]:
        """End every stream."""
        events: list[SourceEvent] = []
        for key in list(self._streams):
            events += self._end(key, "shutdown")
        return events

    def __len__(self) -> int:
        return len(self._streams)

    def _start(
        self, packet: RtpPacket, address: Address, arrived: float, events: list[SourceEvent]
    ) -> Stream:
        self._started += 1
        stream = Stream(f"rtp-{self._settings.port}-{self._started}", address, packet.payload_type)
        events.append(
            StreamStart(
                stream=stream.name,
                call=self._settings.call or stream.name,
                role=self._settings.role,
                source=f"rtp:{self._settings.port}",
                started_at=arrived + self._utc_offset,
            )
        )
        return stream

    def _end(self, key: tuple[Address, int], reason: EndReason) -> list[SourceEvent]:
        stream = self._streams.pop(key)
        events = stream.chunks(stream.jitter.flush())
        events.append(StreamEnd(stream.name, reason))
        return events
