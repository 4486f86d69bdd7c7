"""What a port counts, as a value that can be shown or sent."""

from __future__ import annotations

from collections import Counter

import msgspec

from serstream.rtp.stream import Stream

FATES = ("received", "lost", "late", "duplicates", "undecodable")
"""What may become of packets: one that came is received; one that came after all is lost and late."""


class StreamStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Packets of one live stream."""

    stream: str
    call: str
    ssrc: int
    received: int
    lost: int
    late: int
    """Of the lost, those that came after all."""
    duplicates: int
    undecodable: int
    resets: int
    """New SSRCs, sequences and timelines."""
    jitter_ms: float
    """Interarrival jitter (RFC 3550, A.8)."""
    depth_ms: float
    """How long a missing packet is waited for at present."""

    @property
    def packets(self) -> Counter[str]:
        """By fate."""
        return Counter({fate: getattr(self, fate) for fate in FATES})

    @staticmethod
    def of(stream: Stream) -> StreamStatus:
        """A snapshot."""
        jitter = stream.jitter
        return StreamStatus(
            stream=stream.start.stream,
            call=stream.start.call,
            ssrc=stream.ssrc,
            received=jitter.received,
            lost=jitter.lost,
            late=jitter.late,
            duplicates=jitter.duplicates,
            undecodable=stream.undecodable,
            resets=jitter.timeline.resets,
            jitter_ms=round(jitter.timeline.jitter * 1000, 1),
            depth_ms=round(jitter.timeline.depth * 1000, 1),
        )


class PortStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One RTP port."""

    port: int
    dropped: dict[str, int]
    """Datagrams that no stream got, by reason."""
    streams: list[StreamStatus]
    packets: dict[str, int] = {}
    """Of all streams since the start, by fate."""
    receive_buffer_bytes: int = 0
    """Granted by the kernel; 0: no socket, a capture is replayed."""
    kernel_drops: int = 0
    """Datagrams that the kernel dropped because that buffer was full."""
