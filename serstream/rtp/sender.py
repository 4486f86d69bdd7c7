"""A plain G.711 RTP sender in real time: the peer of the demo and of the benchmarks."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from serstream.rtp.rtcp import BYE

PCMU = 0
"""Static payload type (RFC 3551)."""

CLOCK_RATE = 8000
PTIME_S = 0.02
PACKET_SAMPLES = 160


def encode_mulaw(samples: NDArray[np.int16]) -> bytes:
    """G.711 mu-law, one byte per sample; what a mu-law decoder made is encoded back to the same bytes."""
    magnitude = np.minimum(np.abs(samples.astype(np.int32)), 32_635) + 132
    exponent = np.floor(np.log2(magnitude)).astype(np.int32) - 7
    mantissa = (magnitude >> (exponent + 3)) & 0x0F
    sign = np.where(samples < 0, 0x80, 0)
    code: NDArray[np.uint8] = (~(sign | (exponent << 4) | mantissa) & 0xFF).astype(np.uint8)
    return code.tobytes()


@dataclass(slots=True)
class OutgoingStream:
    """One G.711 stream to be sent."""

    host: str
    port: int
    """RTP port; RTCP goes to the next one (RFC 3550, section 11)."""
    ssrc: int
    payload: bytes
    """One byte per sample at 8 kHz."""
    payload_type: int = PCMU
    sent_at: list[float] = field(default_factory=list)
    """Monotonic time at which each packet left."""

    def packet(self, number: int) -> bytes:
        """The RTP packet with the given number, from 0; a shorter last one is kept short."""
        begin = number * PACKET_SAMPLES
        marker = 0x80 if number == 0 else 0
        header = struct.pack(
            "!BBHII", 0x80, marker | self.payload_type, number & 0xFFFF, begin & 0xFFFFFFFF, self.ssrc
        )
        return header + self.payload[begin : begin + PACKET_SAMPLES]

    @property
    def n_packets(self) -> int:
        """Packets of 20 ms that the payload fills, the last one perhaps in part."""
        return -(-len(self.payload) // PACKET_SAMPLES)

    def bye(self) -> bytes:
        """RTCP BYE behind the empty receiver report that a compound packet begins with (RFC 3550, 6.1)."""
        return struct.pack("!BBHI", 0x80, 201, 1, self.ssrc) + struct.pack("!BBHI", 0x81, BYE, 1, self.ssrc)


def send_in_real_time(streams: Sequence[OutgoingStream], stopped: threading.Event | None = None) -> None:
    """Send all streams side by side, one packet each every 20 ms, and say BYE behind the last.

    Args:
        streams: what to send; their ``sent_at`` is filled.
        stopped: set it from another thread to end early (still with BYE).
    """
    stopped = stopped or threading.Event()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        began = time.monotonic()
        for number in range(max(stream.n_packets for stream in streams)):
            if stopped.wait(max(0.0, began + number * PTIME_S - time.monotonic())):
                break
            for stream in streams:
                if number < stream.n_packets:
                    udp.sendto(stream.packet(number), (stream.host, stream.port))
                    stream.sent_at.append(time.monotonic())
        for stream in streams:
            udp.sendto(stream.bye(), (stream.host, stream.port + 1))
