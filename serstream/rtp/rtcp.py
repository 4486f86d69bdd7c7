"""What the monitor wants from RTCP (RFC 3550, section 6): a sender's wall clock (SR) and its end (BYE)."""

from __future__ import annotations

import struct
from typing import NamedTuple

SENDER_REPORT = 200
BYE = 203
PACKET_TYPES = range(192, 224)
"""The second byte of RTCP; RTP with a payload type that is in use never has it (RFC 5761, section 4)."""

_NTP_EPOCH = 2_208_988_800
"""Seconds from 1900 to 1970."""


class SenderReport(NamedTuple):
    """One moment, in the sender's wall clock and in its RTP timestamps."""

    ssrc: int
    utc: float
    """Seconds since the Unix epoch."""
    timestamp: int


class Bye(NamedTuple):
    """Sources that stop sending."""

    ssrcs: tuple[int, ...]


def parse(datagram: bytes) -> list[SenderReport | Bye] | None:
    """Read a compound packet; other packet types are skipped.

    Returns:
        Its reports and goodbyes, or None if it is malformed (RFC 3550, A.2).
    """
    found: list[SenderReport | Bye] = []
    offset = 0
    while offset < len(datagram):
        if offset + 4 > len(datagram):
            return None
        first, packet_type, words = struct.unpack_from("!BBH", datagram, offset)
        body = datagram[offset + 4 : offset + 4 + 4 * words]
        if first >> 6 != 2 or packet_type not in PACKET_TYPES or len(body) < 4 * words:
            return None
        if packet_type == SENDER_REPORT:
            if len(body) < 24:
                return None
            ssrc, seconds, fraction, timestamp = struct.unpack_from("!IIII", body)
            found.append(SenderReport(ssrc, seconds - _NTP_EPOCH + fraction / 2**32, timestamp))
        elif packet_type == BYE:
            count = first & 0x1F
            if len(body) < 4 * count:
                return None
            found.append(Bye(struct.unpack_from(f"!{count}I", body)))
        offset += 4 + 4 * words
    return found or [] if offset else None


def is_rtcp(datagram: bytes) -> bool:
    """Whether a datagram of an RTP port is RTCP (RFC 5761, section 4)."""
    return len(datagram) >= 8 and datagram[0] >> 6 == 2 and datagram[1] in PACKET_TYPES
