"""A sender and a network without sockets, and the sound that comes out behind them."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from serstream.config import RtpSettings
from serstream.rtp.codecs import ULAW
from serstream.rtp.datagrams import Datagrams, Sender, sender_at
from serstream.rtp.streams import Streams
from serstream.types import AudioBlock, AudioChunk, Samples, SourceEvent, StreamEnd, StreamStart

PTIME_S = 0.02
ALICE = sender_at(ipaddress.ip_address("10.0.0.1"), 20_000)
BOB = sender_at(ipaddress.ip_address("10.0.0.2"), 30_000)
STRANGER = sender_at(ipaddress.ip_address("10.9.9.9"), 666)


@dataclass(frozen=True)
class Sent:
    """A datagram and when it leaves."""

    datagram: bytes
    at: float
    sender: Sender = ALICE


def rtp(
    sequence_number: int,
    timestamp: int,
    payload: bytes,
    *,
    ssrc: int = 0xA11CE,
    payload_type: int = 0,
    marker: bool = False,
) -> bytes:
    return (
        struct.pack(
            "!BBHII",
            0x80,
            (0x80 if marker else 0) | payload_type,
            sequence_number & 0xFFFF,
            timestamp & 0xFFFFFFFF,
            ssrc,
        )
        + payload
    )


def speech(seconds: float, seed: int = 1) -> bytes:
    """Mu-law whose every stretch is recognised: random bytes."""
    return np.random.default_rng(seed).integers(0, 256, round(8000 * seconds), dtype=np.uint8).tobytes()


def decoded(payload: bytes) -> Samples:
    return ULAW[np.frombuffer(payload, np.uint8)]


def talk(
    payload: bytes,
    *,
    ssrc: int = 0xA11CE,
    sender: Sender = ALICE,
    sequence_number: int = 100,
    timestamp: int = 5000,
    start: float = 100.0,
    n_bytes: int = 160,
) -> list[Sent]:
    """One packet every 20 ms (for 160 bytes), in order."""
    return [
        Sent(
            rtp(
                sequence_number + i,
                timestamp + i * n_bytes,
                payload[i * n_bytes : (i + 1) * n_bytes],
                ssrc=ssrc,
            ),
            start + i * n_bytes / 8000,
            sender,
        )
        for i in range(len(payload) // n_bytes)
    ]


def receive(
    streams: Streams, arriving: Iterable[Sent], *, tick_s: float = 0.01, settle_s: float = 1.0
) -> list[SourceEvent]:
    """Let datagrams arrive at their times: every tick what has come, then what is due, as live."""
    queue = sorted(arriving, key=lambda sent: sent.at)
    events: list[SourceEvent] = []
    now, taken = queue[0].at, 0
    while taken < len(queue) or now < queue[-1].at + settle_s:
        now += tick_s
        due = taken
        while due < len(queue) and queue[due].at <= now:
            due += 1
        if due > taken:
            batch = [(sent.datagram, sent.sender, sent.at) for sent in queue[taken:due]]
            events += streams.receive(Datagrams.of(batch))
            taken = due
        events += streams.release(now)
    return events


def bye(ssrc: int) -> bytes:
    """An RTCP packet, behind an empty receiver report."""
    return struct.pack("!BBHI", 0x80, 201, 1, ssrc) + struct.pack("!BBHI", 0x81, 203, 1, ssrc)


def listen(arriving: Iterable[Sent], settings: RtpSettings | None = None) -> list[SourceEvent]:
    """All events, to the end of every stream."""
    streams = Streams(settings or RtpSettings(), 0.0)
    return [*receive(streams, arriving), *streams.close()]


def starts(events: Sequence[SourceEvent]) -> list[StreamStart]:
    return [event for event in events if isinstance(event, StreamStart)]


def names(events: Sequence[SourceEvent]) -> list[str]:
    return [event.stream for event in events if isinstance(event, StreamStart)]


def ends(events: Sequence[SourceEvent]) -> dict[str, str]:
    return {event.stream: event.reason for event in events if isinstance(event, StreamEnd)}


def chunks(events: Sequence[SourceEvent], stream: str | None = None) -> list[AudioChunk]:
    found: list[AudioChunk] = []
    for event in events:
        found += event.chunks() if isinstance(event, AudioBlock) else ()
        found += [event] if isinstance(event, AudioChunk) else ()
    return [chunk for chunk in found if stream is None or chunk.stream == stream]


def sound(events: Sequence[SourceEvent], stream: str | None = None) -> tuple[Samples, int]:
    """The samples of a stream, holes filled with silence, and how many of them were lost."""
    pieces = chunks(events, stream)
    line = np.zeros(pieces[-1].start + len(pieces[-1].samples), np.float32)
    position = 0
    for chunk in pieces:
        assert chunk.start >= position, "chunks overlap"
        position = chunk.start + len(chunk.samples)
        line[chunk.start : position] = chunk.samples
    return line, sum(chunk.lost for chunk in pieces)
