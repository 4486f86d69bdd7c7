import socket
import threading
import time
from multiprocessing import Pipe

import numpy as np

from serstream.bench.generator import FIRST_SSRC, SLOTS, Plan, Sent, generate
from serstream.rtp import rtcp
from serstream.rtp.packet import RtpPacket, parse

STREAMS = 23


def test_every_stream_begins_in_its_turn_and_sends_its_script_packet_by_packet_with_bye() -> None:
    payloads = np.random.default_rng(0).integers(0, 256, (2, 30, 160), dtype=np.uint8)
    receiver, sender = Pipe(duplex=False)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as rtp:
        while True:  # two ports in a row
            rtp.bind(("127.0.0.1", 0))
            port = rtp.getsockname()[1]
            control = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            try:
                control.bind(("127.0.0.1", port + 1))
                break
            except OSError:
                control.close()
                rtp.close()
                rtp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        rtp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 21)
        plan = Plan("127.0.0.1", port, STREAMS, ramp_s=0.2, seconds=0.4)
        own = threading.Thread(target=generate, args=(plan, payloads, [0], sender))
        own.start()
        own.join()
        rtp.setblocking(False)
        packets: list[RtpPacket] = []
        while (datagram := _receive(rtp)) is not None:
            packet = parse(datagram)
            assert isinstance(packet, RtpPacket)
            packets.append(packet)
        control.setblocking(False)
        byes = []
        while (datagram := _receive(control)) is not None:
            byes += [ssrc for report in rtcp.parse(datagram) or [] for ssrc in getattr(report, "ssrcs", ())]
        control.close()
    began, sent = receiver.recv(), receiver.recv()
    assert isinstance(sent, Sent)
    assert sorted(byes) == [FIRST_SSRC + i for i in range(STREAMS)]
    assert sent.packets == len(packets) and not sent.refused
    assert sent.at.shape == (30, SLOTS) and 0 < began < sent.at[0, 0] < time.monotonic()
    for i in range(STREAMS):
        own_packets = [packet for packet in packets if packet.ssrc == FIRST_SSRC + i]
        n = 30 - plan.begin(i)
        assert [packet.sequence_number for packet in own_packets] == list(range(n))
        assert [packet.timestamp for packet in own_packets] == [160 * k for k in range(n)]
        assert b"".join(packet.payload for packet in own_packets) == payloads[i % 2, :n].tobytes()


def _receive(udp: socket.socket) -> bytes | None:
    try:
        return udp.recv(2048)
    except BlockingIOError:
        return None
