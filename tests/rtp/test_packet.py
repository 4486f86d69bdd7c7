import ipaddress
import struct

import numpy as np
import pytest
from aiortc.rtp import RtpPacket as ReferencePacket
from hypothesis import example, given, settings
from hypothesis import strategies as st

from serstream.rtp.datagrams import MAX_DATAGRAM, Datagrams, address_of, sender_at
from serstream.rtp.packet import Malformed, RtpPacket, parse, parse_batch, sequence_delta, timestamp_delta

PLAIN = bytes.fromhex("80 80 0001 000000a0 0000cafe 0102 0304")


@pytest.mark.parametrize(
    ("datagram", "expected"),
    [
        ("", Malformed.SHORT),
        ("80 00 0001 000000a0 0000ca", Malformed.SHORT),
        ("40 00 0001 000000a0 0000cafe 01", Malformed.VERSION),
        ("81 00 0001 000000a0 0000cafe 0102", Malformed.CSRC),
        ("90 00 0001 000000a0 0000cafe bede", Malformed.EXTENSION),
        ("90 00 0001 000000a0 0000cafe bede 0002 01020304", Malformed.EXTENSION),
        ("a0 00 0001 000000a0 0000cafe 0100", Malformed.PADDING),
        ("a0 00 0001 000000a0 0000cafe 0103", Malformed.PADDING),
    ],
)
def test_malformed_by_reason(datagram: str, expected: Malformed) -> None:
    assert parse(bytes.fromhex(datagram)) is expected


@pytest.mark.parametrize(
    "datagram",
    [
        "80 80 0001 000000a0 0000cafe 01020304",
        "82 80 0001 000000a0 0000cafe 11111111 22222222 01020304",
        "90 80 0001 000000a0 0000cafe bede 0001 51ff0000 01020304",  # RFC 8285 one byte
        "90 80 0001 000000a0 0000cafe 1000 0001 0502aabb 01020304",  # RFC 8285 two byte
        "a0 80 0001 000000a0 0000cafe 01020304 00000004",
        "b1 80 0001 000000a0 0000cafe 11111111 bede 0000 01020304 000003",
    ],
)
def test_header_fields_of_rfc_3550(datagram: str) -> None:
    assert parse(bytes.fromhex(datagram)) == RtpPacket(True, 0, 1, 160, 0xCAFE, bytes.fromhex("01020304"))


@pytest.mark.parametrize("datagram", ["a0 00 0001 000000a0 0000cafe 0102", "80 00 0001 000000a0 0000cafe"])
def test_a_packet_may_be_empty(datagram: str) -> None:
    assert parse(bytes.fromhex(datagram)) == RtpPacket(False, 0, 1, 160, 0xCAFE, b"")


def headers() -> st.SearchStrategy[bytes]:
    """Datagrams that are RTP often enough to be interesting."""
    first = st.integers(0x7F, 0xBF).map(lambda value: bytes([value]))
    return st.one_of(st.binary(max_size=100), st.builds(lambda a, b: a + b, first, st.binary(max_size=100)))


@settings(max_examples=400, deadline=None)
@given(st.lists(headers(), min_size=1, max_size=20))
@example([PLAIN, PLAIN[:12], b"\xa0" + PLAIN[1:12] + b"\x01"])
def test_one_by_one_equals_batch(datagrams: list[bytes]) -> None:
    batch = parse_batch(Datagrams.of([(datagram, bytes(32), 0.0) for datagram in datagrams]))
    for i, datagram in enumerate(datagrams):
        packet = parse(datagram)
        assert bool(batch.valid[i]) == isinstance(packet, RtpPacket)
        if isinstance(packet, RtpPacket):
            word = int(batch.marker_type_sequence[i])
            assert (bool(word >> 23), word >> 16 & 0x7F, word & 0xFFFF) == packet[:3]
            assert (batch.timestamp[i], batch.ssrc[i]) == packet[3:5]
            assert datagram[batch.begin[i] : batch.end[i]] == packet.payload


@settings(max_examples=400, deadline=None)
@given(headers())
def test_agrees_with_aiortc(datagram: bytes) -> None:
    try:
        reference = ReferencePacket.parse(datagram)
    except (ValueError, IndexError, struct.error):  # what it raises for malformed headers and extensions
        return
    packet = parse(datagram)
    assert packet == RtpPacket(
        bool(reference.marker),
        reference.payload_type,
        reference.sequence_number,
        reference.timestamp,
        reference.ssrc,
        reference.payload,
    )


def test_wrapping_differences() -> None:
    assert sequence_delta(2, 65534) == 4
    assert sequence_delta(65534, 2) == -4
    assert timestamp_delta(100, 2**32 - 60) == 160
    assert timestamp_delta(2**32 - 60, 100) == -160


@pytest.mark.parametrize("ip", ["10.1.2.3", "2001:db8::7"])
def test_source_round_trip(ip: str) -> None:
    address = ipaddress.ip_address(ip)
    sender = sender_at(address, 5004)
    assert len(sender) == 32
    assert address_of(sender) == (address, 5004)


def test_ipv4_sender_on_an_ipv6_socket_keeps_its_address() -> None:
    ip, port = address_of(sender_at(ipaddress.ip_address("::ffff:10.1.2.3"), 9))
    assert (str(ip), port) == ("10.1.2.3", 9)


def test_datagrams_of_any_length_lie_beside_each_other() -> None:
    datagrams = [b"x" * MAX_DATAGRAM, b"", b"y"]
    batch = Datagrams.of([(datagram, bytes(32), 0.0) for datagram in datagrams])
    assert [batch.datagram(i) for i in range(3)] == datagrams
    assert batch.content.dtype == np.uint8
