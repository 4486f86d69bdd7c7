"""UDP datagrams of a capture file: pcap and pcapng, with any link type that tcpdump writes on Linux.

Sources: https://www.ietf.org/archive/id/draft-ietf-opsawg-pcap-04.html, draft-ietf-opsawg-pcapng-02 and
https://www.tcpdump.org/linktypes.html.
"""

from __future__ import annotations

import ipaddress
import logging
import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from serstream.errors import SourceError, readable
from serstream.rtp.datagrams import Sender, sender_at

log = logging.getLogger(__name__)

MAX_RECORD = 1 << 24
"""Bytes; a longer record or block means that the file is broken."""
LATEST_S = 1 << 32
"""Seconds since the Unix epoch, in the year 2106; later time stamps, which only pcapng has, are broken."""

_PCAP_MAGIC = {
    b"\xd4\xc3\xb2\xa1": ("<", 1e-6),
    b"\xa1\xb2\xc3\xd4": (">", 1e-6),
    b"\x4d\x3c\xb2\xa1": ("<", 1e-9),
    b"\xa1\xb2\x3c\x4d": (">", 1e-9),
}
_SECTION_HEADER = b"\x0a\x0d\x0d\x0a"
_INTERFACE, _ENHANCED_PACKET = 1, 6
_ETHERNET, _NULL, _LOOP, _SLL, _SLL2 = 1, 0, 108, 113, 276
_RAW = (12, 14, 101, 228, 229)
_IPV4, _IPV6, _VLANS = 0x0800, 0x86DD, (0x8100, 0x88A8, 0x9100)
_UDP, _FRAGMENT, _IPV6_EXTENSIONS = 17, 44, (0, 43, 60, 135)


class CapturedDatagram(NamedTuple):
    """One UDP datagram as it passed the capture point."""

    time: float
    """UTC, seconds since the Unix epoch."""
    sender: Sender
    payload: bytes


class _Frame(NamedTuple):
    time: float
    link_type: int
    content: bytes


def udp_datagrams(path: Path) -> Iterator[CapturedDatagram]:
    """The UDP datagrams of a capture, in its order; what else it holds is skipped.

    A file that ends in the middle of a packet, as a running capture does, ends there with a warning.

    Raises:
        SourceError: the file cannot be read, is no capture, has a link type without IP or bad time stamps.
    """
    skipped: Counter[str] = Counter()
    name = readable(path)
    try:
        with path.open("rb") as file:
            for frame in _frames(file, name):
                if not 0 <= frame.time <= LATEST_S:
                    raise SourceError(
                        f"capture {name}: a packet {frame.time:.0f} s after 1970, wanted 0 to {LATEST_S} "
                        "(in 2106); mend its time stamps with 'editcap -t'"
                    )
                found = _datagram(frame, name)
                if isinstance(found, CapturedDatagram):
                    yield found
                else:
                    skipped[found] += 1
    except _BrokenError as broken:
        log.warning("capture %s: %s; what is before it is used", name, broken)
    except OSError as error:
        raise SourceError(f"capture {name}: cannot read it: {error.strerror}") from error
    if incomplete := {reason: count for reason, count in skipped.items() if reason != _OTHER}:
        told = ", ".join(f"{count} {reason}" for reason, count in incomplete.items())
        log.warning("capture %s: skipped packets: %s", name, told)


_OTHER = "not UDP"
_TRUNCATED = "ends in the middle of a packet"
_CUT = "cut off by the capture's snapshot length (capture with 'tcpdump -s 0')"
_FRAGMENTED = "fragmented by IP"
_MALFORMED = "with a malformed header"


def _frames(file: BinaryIO, name: str) -> Iterator[_Frame]:
    magic = file.read(4)
    if magic in _PCAP_MAGIC:
        yield from _pcap(file, *_PCAP_MAGIC[magic], name)
    elif magic == _SECTION_HEADER:
        yield from _pcapng(file)
    else:
        raise SourceError(
            f"capture {name}: begins with {magic.hex(' ') or 'nothing'}, wanted pcap or pcapng as tcpdump "
            "and Wireshark write them"
        )


def _pcap(file: BinaryIO, order: str, resolution: float, name: str) -> Iterator[_Frame]:
    header = file.read(20)
    if len(header) < 20:
        raise SourceError(f"capture {name}: ends in its file header, wanted a whole pcap file")
    link_type = struct.unpack(order + "I", header[16:])[0] & 0xFFFF
    record = struct.Struct(order + "IIII")
    while head := _take(file, 16):
        seconds, fraction, length, _ = record.unpack(head)
        yield _Frame(seconds + fraction * resolution, link_type, _body(file, length))


def _pcapng(file: BinaryIO) -> Iterator[_Frame]:
    order = "<"
    interfaces: list[tuple[int, float, int]] = []
    kind = _SECTION_HEADER
    while kind:
        head = _body(file, 4)
        is_section = kind == _SECTION_HEADER
        if is_section:
            order = "<" if _body(file, 4) == b"\x4d\x3c\x2b\x1a" else ">"
            interfaces.clear()
        length = struct.unpack(order + "I", head)[0]
        body = _body(file, length - (12 if is_section else 8))[:-4]
        block = None if is_section else struct.unpack(order + "I", kind)[0]
        if block == _INTERFACE and len(body) >= 8:
            interfaces.append((struct.unpack_from(order + "H", body)[0], *_timing(body[8:], order)))
        elif block == _ENHANCED_PACKET and len(body) >= 20:
            number, high, low, captured, _ = struct.unpack_from(order + "IIIII", body)
            if number >= len(interfaces):
                raise _BrokenError(f"has a packet of interface {number}, and describes {len(interfaces)}")
            if captured > len(body) - 20:
                raise _BrokenError(_TRUNCATED)
            link_type, resolution, offset = interfaces[number]
            time = offset + (high << 32 | low) * resolution
            yield _Frame(time, link_type, body[20 : 20 + captured])
        kind = _take(file, 4)


class _BrokenError(Exception):
    """The file cannot be read further, and why."""


def _take(file: BinaryIO, n: int) -> bytes:
    """The next ``n`` bytes, or none at the end of the file."""
    taken = file.read(n)
    if 0 < len(taken) < n:
        raise _BrokenError(_TRUNCATED)
    return taken


def _body(file: BinaryIO, n: int) -> bytes:
    """The next ``n`` bytes, which must be there."""
    if not 0 <= n <= MAX_RECORD or len(taken := file.read(n)) < n:
        raise _BrokenError(_TRUNCATED)
    return taken


def _timing(options: bytes, order: str) -> tuple[float, int]:
    """Seconds per unit of an interface's time stamps (if_tsresol) and their offset (if_tsoffset)."""
    resolution, offset, at = 1e-6, 0, 0
    while at + 4 <= len(options):
        code, length = struct.unpack_from(order + "HH", options, at)
        value = options[at + 4 : at + 4 + length]
        if code == 9 and len(value) == 1:
            resolution = 2.0 ** -(value[0] & 0x7F) if value[0] & 0x80 else 10.0 ** -value[0]
        elif code == 14 and len(value) == 8:
            offset = struct.unpack(order + "q", value)[0]
        at += 4 + (length + 3) // 4 * 4
    return resolution, offset


def _datagram(frame: _Frame, name: str) -> CapturedDatagram | str:
    """The frame's UDP datagram, or why it has none."""
    ip = _network_layer(frame, name)
    if not ip:
        return _OTHER
    if ip[0] >> 4 == 4 and len(ip) >= 20:
        header, protocol = 4 * (ip[0] & 0x0F), ip[9]
        address: ipaddress.IPv4Address | ipaddress.IPv6Address = ipaddress.IPv4Address(ip[12:16])
        if protocol == _UDP and int.from_bytes(ip[6:8], "big") & 0x3FFF:
            return _FRAGMENTED
    elif ip[0] >> 4 == 6 and len(ip) >= 40:
        header, protocol = 40, ip[6]
        address = ipaddress.IPv6Address(ip[8:24])
        while protocol in _IPV6_EXTENSIONS and header + 8 <= len(ip):
            protocol, header = ip[header], header + 8 + 8 * ip[header + 1]
        if protocol == _FRAGMENT:
            return _FRAGMENTED
    else:
        return _MALFORMED
    if protocol != _UDP:
        return _OTHER
    udp = ip[header:]
    if len(udp) < 8:
        return _MALFORMED
    source_port, _, length, _ = struct.unpack_from("!HHHH", udp)
    if length > len(udp):
        return _CUT
    return CapturedDatagram(frame.time, sender_at(address, source_port), udp[8:length])


def _network_layer(frame: _Frame, name: str) -> bytes:
    """The frame's IP packet, or nothing."""
    content, link_type = frame.content, frame.link_type
    if link_type in _RAW:
        return content
    if link_type in (_NULL, _LOOP):
        return content[4:] if len(content) > 4 and content[4] >> 4 in (4, 6) else b""
    if link_type == _ETHERNET:
        at = 12
    elif link_type == _SLL:
        at = 14
    elif link_type == _SLL2:
        return content[20:] if int.from_bytes(content[:2], "big") in (_IPV4, _IPV6) else b""
    else:
        raise SourceError(
            f"capture {name}: link type {link_type}, wanted Ethernet, Linux cooked, loopback or raw IP; "
            "capture with 'tcpdump -i any'"
        )
    ether_type = int.from_bytes(content[at : at + 2], "big")
    while ether_type in _VLANS:
        at += 4
        ether_type = int.from_bytes(content[at : at + 2], "big")
    return content[at + 2 :] if ether_type in (_IPV4, _IPV6) else b""
