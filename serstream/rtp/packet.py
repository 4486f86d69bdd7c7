"""RTP packets on the wire (RFC 3550, section 5.1)."""

from __future__ import annotations

import struct
from enum import StrEnum
from typing import NamedTuple

RTP_VERSION = 2
RTP_HEADER_LENGTH = 12

_HEADER = struct.Struct("!BBHII")


class Malformed(StrEnum):
    """Why a datagram is not an RTP packet."""

    SHORT = "short"
    """Less than a fixed header."""
    VERSION = "version"
    """Another version than 2."""
    CSRC = "csrc"
    """The CSRC list is cut off."""
    EXTENSION = "extension"
    """The header extension is cut off."""
    PADDING = "padding"
    """The padding is longer than the packet, or 0."""
    EMPTY = "empty"
    """No payload."""


class RtpPacket(NamedTuple):
    """The fields of RFC 3550 that a receiver of audio needs."""

    marker: bool
    payload_type: int
    sequence_number: int
    timestamp: int
    ssrc: int
    payload: bytes


def parse(datagram: bytes) -> RtpPacket | Malformed:
    """Read one datagram; never raises."""
    length = len(datagram)
    if length < RTP_HEADER_LENGTH:
        return Malformed.SHORT
    first, second, sequence_number, timestamp, ssrc = _HEADER.unpack_from(datagram)
    if first >> 6 != RTP_VERSION:
        return Malformed.VERSION
    begin = RTP_HEADER_LENGTH + 4 * (first & 0x0F)
    if begin > length:
        return Malformed.CSRC
    if first & 0x10:
        if begin + 4 > length:
            return Malformed.EXTENSION
        begin += 4 + 4 * int.from_bytes(datagram[begin + 2 : begin + 4], "big")
        if begin > length:
            return Malformed.EXTENSION
    end = length
    if first & 0x20:
        padding = datagram[-1]
        end -= padding
        if padding == 0 or end < begin:
            return Malformed.PADDING
    if begin == end:
        return Malformed.EMPTY
    return RtpPacket(
        marker=second >= 0x80,
        payload_type=second & 0x7F,
        sequence_number=sequence_number,
        timestamp=timestamp,
        ssrc=ssrc,
        payload=datagram[begin:end],
    )


def sequence_delta(a: int, b: int) -> int:
    """How far sequence number ``a`` is ahead of ``b``, -32768 to 32767 (RFC 1982 arithmetic)."""
    return ((a - b + 0x8000) & 0xFFFF) - 0x8000


def timestamp_delta(a: int, b: int) -> int:
    """How far timestamp ``a`` is ahead of ``b``, -2**31 to 2**31 - 1."""
    return ((a - b + 0x8000_0000) & 0xFFFF_FFFF) - 0x8000_0000
