import ipaddress
import logging
import struct
from pathlib import Path

import numpy as np
import pytest
from network import chunks, decoded, rtp, sound, talk
from network import speech as words

from serstream.config import RtpSettings
from serstream.errors import SourceError
from serstream.rtp.capture import udp_datagrams
from serstream.rtp.datagrams import address_of
from serstream.rtp.pcap import source_events
from serstream.rtp.stream_log import LINES
from serstream.types import SourceEvent, StreamEnd, StreamStart

SPEECH = words(2)
UTC = 1_700_000_000.5


def ipv4(payload: bytes, flags: int = 0) -> bytes:
    udp = struct.pack("!HHHH", 20_000, 5004, 8 + len(payload), 0) + payload
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 0, flags, 64, 17, 0)
    return header + bytes([10, 0, 0, 1, 10, 0, 0, 9]) + udp


def ipv6(payload: bytes) -> bytes:
    """With a hop-by-hop extension header."""
    udp = struct.pack("!HHHH", 20_000, 5004, 8 + len(payload), 0) + payload
    addresses = ipaddress.ip_address("2001:db8::1").packed + ipaddress.ip_address("2001:db8::9").packed
    return struct.pack("!IHBB", 6 << 28, 8 + len(udp), 0, 64) + addresses + bytes([17, 0] + [0] * 6) + udp


MAC = bytes(12)
LINKS = {
    "ethernet": (1, lambda content: MAC + b"\x08\x00" + ipv4(content)),
    "ethernet-vlan": (1, lambda content: MAC + b"\x81\x00\x00\x05\x08\x00" + ipv4(content)),
    "ethernet-ipv6": (1, lambda content: MAC + b"\x86\xdd" + ipv6(content)),
    "cooked": (113, lambda content: bytes(14) + b"\x08\x00" + ipv4(content)),
    "cooked-v2": (276, lambda content: b"\x08\x00" + bytes(18) + ipv4(content)),
    "raw": (101, ipv4),
    "loopback": (0, lambda content: b"\x02\0\0\0" + ipv4(content)),
}


def pcap(
    link_type: int, frames: list[tuple[float, bytes]], order: str = "<", magic: int = 0xA1B2C3D4
) -> bytes:
    unit = 1e9 if magic == 0xA1B23C4D else 1e6
    content = struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 262_144, link_type)
    for at, frame in frames:
        seconds = int(at)
        fraction = round((at - seconds) * unit)
        content += struct.pack(order + "IIII", seconds, fraction, len(frame), len(frame)) + frame
    return content


def block(kind: int, body: bytes, order: str) -> bytes:
    body += bytes(-len(body) % 4)
    length = struct.pack(order + "I", 12 + len(body))
    return struct.pack(order + "I", kind) + length + body + length


def pcapng(link_type: int, frames: list[tuple[float, bytes]], order: str = "<") -> bytes:
    """Two interfaces, the second with nanoseconds; an unknown block in between."""
    content = block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1), order)
    content += block(1, struct.pack(order + "HHI", 127, 0, 0), order)
    nanoseconds = struct.pack(order + "HHB3xHH", 9, 1, 9, 0, 0)
    content += block(1, struct.pack(order + "HHI", link_type, 0, 0) + nanoseconds, order)
    content += block(0xBAD, b"whatever", order)
    for at, frame in frames:
        stamp = round(at * 1e9)
        head = struct.pack(order + "IIIII", 1, stamp >> 32, stamp & 0xFFFFFFFF, len(frame), len(frame))
        content += block(6, head + frame, order)
    return content


def pcapng_timed(resolution: int, offset_s: int) -> bytes:
    """Microseconds, whatever the options say that they are."""
    options = struct.pack("<HHB3xHHqHH", 9, 1, resolution, 14, 8, offset_s, 0, 0)
    content = block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1), "<")
    content += block(1, struct.pack("<HHI", 101, 0, 0) + options, "<")
    for packet in talk(SPEECH):
        stamp, frame = round(packet.at * 1e6), ipv4(packet.datagram)
        head = struct.pack("<IIIII", 0, stamp >> 32, stamp & 0xFFFFFFFF, len(frame), len(frame))
        content += block(6, head + frame, "<")
    return content


def frames(link: str) -> tuple[int, list[tuple[float, bytes]]]:
    link_type, wrap = LINKS[link]
    return link_type, [(packet.at - 100 + UTC, wrap(packet.datagram)) for packet in talk(SPEECH)]


def replay(path: Path) -> list[SourceEvent]:
    return [event for tick in source_events(path, RtpSettings()) for event in tick]


@pytest.mark.parametrize("link", LINKS)
def test_a_call_is_heard_in_every_link_type(tmp_path: Path, link: str) -> None:
    path = tmp_path / "my call.pcap"
    path.write_bytes(pcap(*frames(link)))
    events = replay(path)
    start = events[0]
    assert isinstance(start, StreamStart)
    assert (start.stream, start.call, start.source) == ("my-call-1", "my-call", "file:my call.pcap")
    assert start.started_at == pytest.approx(UTC, abs=1e-4)
    np.testing.assert_array_equal(sound(events)[0], decoded(SPEECH))
    assert events[-1] == StreamEnd("my-call-1", "eof")
    assert all(chunk.arrived == 0 for chunk in chunks(events))


def test_captures_of_long_names_that_begin_alike_are_different_calls(tmp_path: Path) -> None:
    calls = set()
    for number in "1", "2":
        path = tmp_path / f"2026-11-22_customer-service-berlin-queue-north_{number}.pcap"
        path.write_bytes(pcap(*frames("raw")))
        calls.add(replay(path)[0].call)
    assert len(calls) == 2


def test_every_stream_of_a_capture_has_a_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    packets = [
        (UTC + 60 * ssrc + 0.02 * i, ipv4(rtp(i, 160 * i, bytes(160), ssrc=ssrc)))
        for ssrc in range(1, LINES + 2)
        for i in range(5)
    ]
    path = tmp_path / "call.pcap"
    path.write_bytes(pcap(101, packets))
    replay(path)
    assert sum(" began, SSRC" in message for message in caplog.messages) == LINES + 1


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["microseconds", "nanoseconds", "pcapng"])
def test_every_container(tmp_path: Path, order: str, kind: str) -> None:
    link_type, content = frames("ethernet")
    path = tmp_path / "call.pcap"
    if kind == "pcapng":
        path.write_bytes(pcapng(link_type, content, order))
    else:
        path.write_bytes(pcap(link_type, content, order, 0xA1B23C4D if kind == "nanoseconds" else 0xA1B2C3D4))
    found = list(udp_datagrams(path))
    assert [datagram.time for datagram in found] == pytest.approx([at for at, _ in content], abs=2e-6)
    assert [datagram.payload for datagram in found] == [packet.datagram for packet in talk(SPEECH)]
    assert str(address_of(found[0].sender)[0]) == "10.0.0.1"


def test_a_growing_file_ends_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for content in (pcap(*frames("raw")), pcapng(*frames("raw"))):
        path = tmp_path / "call.pcap"
        path.write_bytes(content[:-100])
        assert len(list(udp_datagrams(path))) == 99
        assert "ends in the middle" in caplog.messages[-1]


def test_a_packet_of_an_interface_that_is_not_described_ends_a_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = pcapng(*frames("raw"))
    last = whole.rindex(struct.pack("<I", 6))
    path = tmp_path / "call.pcap"
    path.write_bytes(whole[: last + 8] + struct.pack("<I", 7) + whole[last + 12 :])
    assert len(list(udp_datagrams(path))) == 99
    assert "has a packet of interface 7, and describes 2" in caplog.messages[-1]


def test_what_cannot_be_used_is_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    packet = talk(SPEECH)[0].datagram
    arp = MAC + b"\x08\x06" + bytes(28)
    cut = MAC + b"\x08\x00" + ipv4(packet)[:60]
    fragment = MAC + b"\x08\x00" + ipv4(packet, flags=0x2000)
    path = tmp_path / "call.pcap"
    path.write_bytes(pcap(1, [(1.0, arp), (1.0, cut), (1.0, fragment), (1.0, MAC), (1.0, b"")]))
    assert not list(udp_datagrams(path))
    assert "1 cut off by the capture's snapshot length" in caplog.messages[0]
    assert "1 fragmented by IP" in caplog.messages[0]


def l16_stereo(n_packets: int) -> list[bytes]:
    """20 ms of 44.1 kHz in each packet, 3540 bytes."""
    rng = np.random.default_rng(1)
    return [rtp(i, 882 * i, rng.bytes(4 * 882), payload_type=10) for i in range(n_packets)]


def test_linear_sound_in_stereo_is_heard_whole(tmp_path: Path) -> None:
    packets = l16_stereo(50)
    path = tmp_path / "call.pcap"
    path.write_bytes(pcap(101, [(UTC + 0.02 * i, ipv4(packet)) for i, packet in enumerate(packets)]))
    heard, lost = sound(replay(path))
    sent = np.frombuffer(b"".join(packet[12:] for packet in packets), ">i2").reshape(-1, 2)
    np.testing.assert_allclose(heard, sent.mean(axis=1) / 32768, atol=1e-6)
    assert lost == 0


def test_what_is_too_long_is_counted_and_lost(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    packets = l16_stereo(50)
    packets[20] += bytes(4096)
    path = tmp_path / "call.pcap"
    path.write_bytes(pcap(101, [(UTC + 0.02 * i, ipv4(packet)) for i, packet in enumerate(packets)]))
    assert sound(replay(path))[1] == 882
    assert caplog.messages == [f"capture {path}: datagrams dropped: 1 longer than 4096 bytes"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"RIFF1234", "begins with 52 49 46 46, wanted pcap or pcapng"),
        (b"", "begins with nothing"),
        (pcap(127, [(1.0, bytes(50))]), "link type 127, wanted Ethernet"),
        (pcap(101, []), "no RTP stream found; datagrams dropped: none"),
        (pcap(101, [(1.0, ipv4(b"dns query"))]), "datagrams dropped: 1 malformed: short"),
        (pcapng_timed(0, 1 << 40), "a packet 1099611627776 s after 1970, wanted 0 to 4294967296"),
        (pcapng_timed(6, 10**12), "a packet 1000000000100 s after 1970"),
        (pcapng_timed(6, 1 << 60), "a packet 1152921504606846976 s after 1970"),
        (pcapng_timed(6, -200), "a packet -100 s after 1970"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "x.pcap"
    path.write_bytes(content)
    with pytest.raises(SourceError) as error:
        replay(path)
    assert str(path) in str(error.value)
    assert message in str(error.value)


ODD_NAME = "bad\udcff\x1b.pcap"
ODD_NAME_TOLD = r"bad\xff\x1b.pcap: "


@pytest.mark.parametrize(
    "content",
    [None, b"RIFF", pcap(1, [])[:20], pcap(127, [(1.0, b"")]), pcap(1, []), pcapng_timed(6, -200)],
    ids=["missing", "other", "cut", "link type", "empty", "time stamps"],
)
def test_odd_names_are_refused_in_plain_text(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / ODD_NAME
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SourceError) as error:
        replay(path)
    assert ODD_NAME_TOLD in str(error.value)
    assert str(error.value).isprintable() and str(error.value).isascii()


def test_warnings_of_odd_names_are_plain_text(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / ODD_NAME
    link_type, content = frames("raw")
    fragment, too_long = ipv4(SPEECH[:100], flags=0x2000), ipv4(bytes(5000))
    whole = pcap(link_type, [*content, (UTC + 3, fragment), (UTC + 3, too_long)])
    for captured in (whole, whole[:-1]):
        path.write_bytes(captured)
        replay(path)
    assert len(caplog.messages) == 4
    assert all(ODD_NAME_TOLD in message and message.isascii() for message in caplog.messages)
