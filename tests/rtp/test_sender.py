import socket
import threading

import numpy as np

from serstream.rtp import rtcp
from serstream.rtp.codecs import decoder, format_of
from serstream.rtp.packet import RtpPacket, parse
from serstream.rtp.sender import OutgoingStream, encode_mulaw, send_in_real_time


def test_every_mulaw_code_survives_decoding_and_encoding() -> None:
    codes = bytes(range(256))
    samples = decoder(format_of("PCMU/8000", "test")).decode(codes)
    assert samples is not None
    again = encode_mulaw(np.rint(samples * 32768).astype(np.int16))
    assert [i for i in range(256) if again[i] != codes[i]] == [127], "127 is a second zero"


def test_coding_errs_by_at_most_half_a_step() -> None:
    pcm = np.arange(-32_635, 32_636, dtype=np.int16)
    decoded = decoder(format_of("PCMU/8000", "test")).decode(encode_mulaw(pcm))
    assert decoded is not None
    step = np.maximum(8, 2 ** np.floor(np.log2(np.abs(pcm.astype(float)) + 132) - 4))
    assert np.all(np.abs(decoded * 32768 - pcm) <= step / 2 + 1)


def test_packets_are_what_rfc_3550_says() -> None:
    stream = OutgoingStream("127.0.0.1", 5004, 0xDEADBEEF, bytes(400))
    assert stream.n_packets == 3
    packets = [parse(stream.packet(number)) for number in range(3)]
    assert all(isinstance(packet, RtpPacket) for packet in packets)
    first, _, last = packets
    assert isinstance(first, RtpPacket) and isinstance(last, RtpPacket)
    assert (first.ssrc, first.payload_type, first.marker) == (0xDEADBEEF, 0, True)
    assert (last.sequence_number, last.timestamp, last.marker) == (2, 320, False)
    assert len(last.payload) == 80


def test_bye_follows_the_last_packet_on_the_next_port() -> None:
    stopped = threading.Event()
    stopped.set()
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as rtp,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control,
    ):
        rtp.bind(("127.0.0.1", 0))
        control.bind(("127.0.0.1", rtp.getsockname()[1] + 1))
        control.settimeout(5)
        send_in_real_time([OutgoingStream("127.0.0.1", rtp.getsockname()[1], 7, bytes(400))], stopped)
        assert rtcp.parse(control.recv(100)) == [rtcp.Bye((7,))]
