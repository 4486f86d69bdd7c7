"""A capture of RTP as source events: the same as live, driven by the capture's time stamps."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import msgspec

from serstream.config import RtpSettings, as_name
from serstream.errors import SourceError, readable
from serstream.rtp.capture import CapturedDatagram, udp_datagrams
from serstream.rtp.datagrams import MAX_DATAGRAM, TOO_LONG, Datagrams
from serstream.rtp.receiver import TICK_S
from serstream.rtp.streams import Streams
from serstream.types import AudioBlock, AudioChunk, SourceEvent

log = logging.getLogger(__name__)


def source_events(path: Path, settings: RtpSettings, base: Path = Path()) -> Iterator[list[SourceEvent]]:
    """The events of all RTP in a capture, whatever ports it went to.

    Streams make one call named after the file unless the settings say otherwise. Sound has no time of arrival
    (`AudioChunk.arrived` is 0), because nothing is live.

    Args:
        path: a pcap or pcapng file.
        settings: payload types, SDP, keys, roles and bounds; ``port`` only chooses among the
            descriptions of an SDP, ``address`` is not looked at.
        base: folder that a relative ``sdp`` starts from.

    Raises:
        SourceError: the file cannot be read, is no capture, or no stream was found in it.
        ConfigError: payload types, SDP or keys of the configuration are not understood.
    """
    name = as_name(path.stem, "capture")
    if not (settings.call or settings.parties):
        settings = msgspec.structs.replace(settings, call=name)
    streams = Streams(
        settings, utc_offset=0.0, name=name, source=f"file:{readable(Path(path.name))}", base=base
    )
    told = readable(path)
    tick: list[CapturedDatagram] = []
    now = 0.0
    for datagram in udp_datagrams(path):
        if len(datagram.payload) > MAX_DATAGRAM:
            streams.dropped[TOO_LONG] += 1
            continue
        while datagram.time >= now + TICK_S:
            yield _turn(streams, tick, now + TICK_S)
            tick = []
            now = now + TICK_S if len(streams) else datagram.time
        tick.append(datagram)
    yield _turn(streams, tick, now + TICK_S)
    yield _replayed(streams.close("eof"))
    if n_too_long := streams.dropped[TOO_LONG]:
        log.warning("capture %s: datagrams dropped: %d %s", told, n_too_long, TOO_LONG)
    if not streams.n_started:
        dropped = ", ".join(f"{count} {reason}" for reason, count in streams.dropped.items())
        raise SourceError(
            f"capture {told}: no RTP stream found; datagrams dropped: {dropped or 'none'}; dynamic payload "
            "types need sdp or payload_types, SRTP needs keys"
        )


def _turn(streams: Streams, tick: list[CapturedDatagram], now: float) -> list[SourceEvent]:
    events: list[SourceEvent] = []
    if tick:
        datagrams = Datagrams.of([(datagram.payload, datagram.sender, datagram.time) for datagram in tick])
        events = streams.receive(datagrams)
    streams.tell(now)
    return _replayed(events + streams.release(now))


def _replayed(events: list[SourceEvent]) -> list[SourceEvent]:
    return [_without_arrival(event) for event in events]


def _without_arrival(event: SourceEvent) -> SourceEvent:
    match event:
        case AudioChunk():
            return msgspec.structs.replace(event, arrived=0.0)
        case AudioBlock():
            return msgspec.structs.replace(event, arrived=[0.0] * len(event.streams))
    return event
