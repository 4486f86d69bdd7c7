"""RTP packets on the wire (RFC 3550, section 5.1)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from serstream.rtp.datagrams import Datagrams

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


class RtpPacket(NamedTuple):
    """The fields of RFC 3550 that a receiver of audio needs."""

    marker: bool
    payload_type: int
    sequence_number: int
    timestamp: int
    ssrc: int
    payload: bytes
    """Empty where all is padding, or nothing: such a packet only keeps a path open, or measures it."""


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
    return RtpPacket(
        marker=second >= 0x80,
        payload_type=second & 0x7F,
        sequence_number=sequence_number,
        timestamp=timestamp,
        ssrc=ssrc,
        payload=datagram[begin:end],
    )


@dataclass(slots=True)
class Headers:
    """The headers of many datagrams at once; all arrays have shape (n,)."""

    valid: NDArray[np.bool_]
    """False where `parse` says `Malformed`; the other fields mean nothing there."""
    marker_type_sequence: NDArray[np.uint32]
    """Marker (bit 23), payload type (bits 16 to 22) and sequence number (bits 0 to 15)."""
    timestamp: NDArray[np.uint32]
    ssrc: NDArray[np.uint32]
    begin: NDArray[np.int64]
    """Where the payload begins in its datagram."""
    end: NDArray[np.int64]


def parse_batch(datagrams: Datagrams) -> Headers:
    """What `parse` does, for a whole batch."""
    content, lengths = datagrams.content, datagrams.lengths
    words = np.ascontiguousarray(content[:, :RTP_HEADER_LENGTH]).view(">u4").astype(np.uint32)
    first = words[:, 0] >> 24
    valid = (lengths >= RTP_HEADER_LENGTH) & (first >> 6 == RTP_VERSION)
    begin = np.full(len(lengths), RTP_HEADER_LENGTH, np.int64)
    end = lengths.copy()
    rare = np.flatnonzero(valid & (first != RTP_VERSION << 6))
    if len(rare):
        begin[rare] += 4 * (first[rare] & 0x0F).astype(np.int64)
        extended = rare[first[rare] & 0x10 != 0]
        whole = begin[extended] + 4 <= lengths[extended]
        valid[extended[~whole]] = False
        extended = extended[whole]
        at = begin[extended]
        begin[extended] += 4 + 4 * (
            content[extended, at + 2].astype(np.int64) << 8 | content[extended, at + 3]
        )
        padded = rare[first[rare] & 0x20 != 0]
        padding = content[padded, lengths[padded] - 1].astype(np.int64)
        end[padded] -= padding
        valid[padded[padding == 0]] = False
        valid[rare] &= begin[rare] <= end[rare]
    return Headers(valid, words[:, 0] & np.uint32(0x00FF_FFFF), words[:, 1], words[:, 2], begin, end)


def sequence_delta(a: int, b: int) -> int:
    """How far sequence number ``a`` is ahead of ``b``, -32768 to 32767 (RFC 1982 arithmetic)."""
    return ((a - b + 0x8000) & 0xFFFF) - 0x8000


def timestamp_delta(a: int, b: int) -> int:
    """How far timestamp ``a`` is ahead of ``b``, -2**31 to 2**31 - 1."""
    return ((a - b + 0x8000_0000) & 0xFFFF_FFFF) - 0x8000_0000
