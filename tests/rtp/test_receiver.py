import errno
import ipaddress
import resource
import select
import socket
import threading
import time
from collections.abc import Iterable
from typing import Any

import msgspec
import pytest
from network import decoded, names, rtp, sound, speech

from serstream.config import RtpSettings
from serstream.errors import SourceError
from serstream.rehearsal import free_port_pair
from serstream.rtp.datagrams import TOO_LONG, Datagrams, UdpPort, address_of, bind
from serstream.rtp.port import RtpPort
from serstream.rtp.receiver import RtpReceiver
from serstream.rtp.sender import OutgoingStream
from serstream.types import AudioBlock, SourceEvent, StreamEnd, StreamStart


def free_port(address: str = "127.0.0.1") -> int:
    with bind(address, 0) as udp:
        port: int = udp.getsockname()[1]
        return port


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_batch_has_lengths_senders_and_times(address: str) -> None:
    with bind(address, 0) as sender:
        port = UdpPort(address, free_port(address), 1 << 20, bind)
        try:
            for n_bytes in (1, 172, 5000, 4096):
                sender.sendto(b"x" * n_bytes, (address, port.socket.getsockname()[1]))
            received = port.receive()
            assert received.lengths.tolist() == [1, 172, 4096]
            assert port.truncated == 1
            assert received.datagram(1) == b"x" * 172
            assert address_of(received.sender(0)) == (
                ipaddress.ip_address(address),
                sender.getsockname()[1],
            )
            assert (received.arrived[1:] >= received.arrived[:-1]).all()
            assert len(port.receive()) == 0
        finally:
            port.close()


def test_a_truncated_datagram_is_counted_once_and_hides_none_behind_it() -> None:
    port = RtpPort(RtpSettings(port=free_port_pair()))
    try:
        with bind("127.0.0.1", 0) as sender:
            for number in (port.settings.port, port.settings.port + 1):
                sender.sendto(b"\x80" * 5000, ("127.0.0.1", number))
            for i in range(600):  # more than one batch
                sender.sendto(rtp(i, 160 * i, bytes(160)), ("127.0.0.1", port.settings.port))
        port.receive(lambda _: None, rtcp=True)
        port.report()
        assert port.status.dropped == {TOO_LONG: 2}
        assert port.status.packets["received"] == 600
    finally:
        port.close()


def test_a_payload_type_is_warned_of_although_there_is_no_stream(caplog: pytest.LogCaptureFixture) -> None:
    port = RtpPort(RtpSettings(port=free_port_pair()))
    try:
        with bind("127.0.0.1", 0) as sender:
            sender.sendto(rtp(1, 160, b"x", payload_type=96), ("127.0.0.1", port.settings.port))
        port.receive(lambda _: None, rtcp=False)
        port.report()
        assert "undeclared payload types are dropped: 96;" in caplog.text
    finally:
        port.close()


@pytest.mark.parametrize("step_s", [7200.0, 1.0, -1.0, -7200.0])
def test_packets_stamped_before_the_wall_clock_was_set_have_just_arrived(
    monkeypatch: pytest.MonkeyPatch, step_s: float
) -> None:
    wall_clock = time.time
    port = UdpPort("127.0.0.1", free_port(), 1 << 20, bind)
    try:
        with bind("127.0.0.1", 0) as sender:
            sent = time.monotonic()
            sender.sendto(bytes(172), port.socket.getsockname())
            monkeypatch.setattr("serstream.rtp.datagrams.time.time", lambda: wall_clock() + step_s)
            (arrived,) = port.receive().arrived
        assert sent <= arrived <= time.monotonic()
    finally:
        port.close()


def test_what_the_kernel_drops_is_counted() -> None:
    port = UdpPort("127.0.0.1", free_port(), 64 * 1024, bind)
    try:
        target = port.socket.getsockname()
        with bind("127.0.0.1", 0) as sender:
            for _ in range(1000):
                sender.sendto(bytes(172), target)
            received = 0
            while n := len(port.receive()):
                received += n
            sender.sendto(bytes(172), target)
            received += len(port.receive())
        assert 0 < port.drops == 1001 - received
    finally:
        port.close()


def test_a_buffer_beyond_the_kernels_limit_is_told(caplog: pytest.LogCaptureFixture) -> None:
    port = UdpPort("127.0.0.1", free_port(), 1 << 30, bind)
    port.close()
    assert port.buffer_bytes < 1 << 30
    assert "raise it with 'sysctl net.core.rmem_max=1073741824'" in caplog.messages[0]


@pytest.mark.parametrize("offset", [0, 1])
def test_a_port_in_use_is_named(offset: int) -> None:
    port = free_port()
    with bind("127.0.0.1", port + offset), pytest.raises(SourceError) as error:
        RtpReceiver([RtpSettings(port=port)])
    assert f"rtp 127.0.0.1:{port + offset}: cannot bind the UDP port: Address already in use" in str(
        error.value
    )
    assert ("set rtcp_mux" in str(error.value)) == bool(offset)
    with bind("127.0.0.1", port):
        pass  # nothing of the failed source is left behind


def test_an_address_of_another_machine_is_named() -> None:
    with pytest.raises(
        SourceError, match=r"rtp 192\.0\.2\.1:5004: cannot bind .* Cannot assign .*'ip address' lists"
    ):
        RtpReceiver([RtpSettings(address="192.0.2.1")])
    with pytest.raises(ValueError, match="address is 'localhost', wanted an IP address"):
        RtpSettings(address="localhost")


@pytest.mark.parametrize("group", ["239.255.77.1", "ff15::77"])
def test_a_multicast_group_is_joined(group: str) -> None:
    """Once by whoever binds the socket; who takes it over is a member already."""
    try:
        port = UdpPort(group, 0, 1 << 20, bind)
    except SourceError as error:
        pytest.skip(f"this machine has no multicast: {error}")
    address = port.socket.getsockname()[:2]
    heir = UdpPort(*address, 1 << 20, lambda *_: port.socket.dup())
    try:
        for each in (port, heir):
            with socket.socket(each.socket.family, socket.SOCK_DGRAM) as sender:
                sender.sendto(b"to all", address)
            select.select([each], [], [], 1.0)
            received = each.receive()
            assert [received.datagram(i) for i in range(len(received))] == [b"to all"]
            each.close()
    finally:
        port.close()
        heir.close()


class WithoutRoute(socket.socket):
    def setsockopt(self, level: int, option: int, *value: Any) -> None:
        if (level, option) == (socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP):
            raise OSError(errno.ENODEV, "No such device")
        super().setsockopt(level, option, *value)


def test_a_multicast_group_without_a_route_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serstream.rtp.datagrams.socket.socket", WithoutRoute)
    with pytest.raises(
        SourceError, match=r"rtp 239\.1\.2\.3:\d+: cannot join .* No such device; 'ip route get"
    ):
        RtpPort(RtpSettings(address="239.1.2.3", port=free_port_pair()))


class ForRoot(socket.socket):
    def bind(self, address: tuple[str, int]) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")


def test_a_port_that_is_not_ours_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serstream.rtp.datagrams.socket.socket", ForRoot)
    with pytest.raises(SourceError, match=r"rtp 127\.0\.0\.1:500: .*Permission denied; ports below 1024"):
        RtpPort(RtpSettings(port=500))


def test_too_many_open_files_are_told() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with pytest.raises(SourceError, match=r"rtp 127\.0\.0\.1:5004: .*Too many open files; .*LimitNOFILE"):
            RtpPort(RtpSettings())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_stop_ends_every_stream_and_frees_the_port() -> None:
    port = free_port()
    source = RtpReceiver([RtpSettings(port=port, rtcp_mux=True)])
    events: list[SourceEvent] = []
    heard = threading.Event()

    def emit(news: list[SourceEvent]) -> None:
        events.extend(news)
        if events:
            heard.set()

    running = threading.Thread(target=source.run, args=(emit,))
    running.start()
    payload = speech(0.1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for i in range(5):
            sender.sendto(rtp(i, 160 * i, payload[160 * i : 160 * (i + 1)]), ("127.0.0.1", port))
    assert heard.wait(5)
    source.stop()
    source.stop()
    running.join(5)
    assert isinstance(events[-1], StreamEnd)
    assert events[-1].reason == "shutdown"
    line, lost = sound(events)
    assert lost == 0
    assert (line == decoded(payload)).all()
    with bind("127.0.0.1", port):
        pass


def test_bye_does_not_overtake_the_last_packet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both come just after the RTP socket was found empty, and before the RTCP socket was looked at."""
    port = free_port_pair()
    source = RtpReceiver([RtpSettings(port=port)])
    payload = speech(0.1)
    outgoing = OutgoingStream("127.0.0.1", port, 1, payload)
    read = UdpPort.receive
    events: list[SourceEvent] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for number in range(outgoing.n_packets - 1):
            sender.sendto(outgoing.packet(number), ("127.0.0.1", port))

        def receive(udp: UdpPort) -> Datagrams:
            datagrams = read(udp)
            if len(datagrams) == outgoing.n_packets - 1:
                sender.sendto(outgoing.packet(outgoing.n_packets - 1), ("127.0.0.1", port))
                sender.sendto(outgoing.bye(), ("127.0.0.1", port + 1))
            return datagrams

        def emit(news: list[SourceEvent]) -> None:
            events.extend(news)
            if any(isinstance(event, StreamEnd) for event in news):
                source.stop()

        monkeypatch.setattr(UdpPort, "receive", receive)
        source.run(emit)
    line, lost = sound(events)
    assert lost == 0
    assert (line == decoded(payload)).all()


@pytest.mark.parametrize(
    ("address", "target"), [("0.0.0.0", "127.0.0.1"), ("::", "127.0.0.1"), ("::", "::1")]
)
def test_bye_from_the_next_port_ends_a_stream(address: str, target: str) -> None:
    """Also where the kernel writes an IPv4 sender as an IPv6 address."""
    port = RtpPort(RtpSettings(address=address, port=free_port_pair()))
    own = free_port_pair()
    outgoing = OutgoingStream(target, port.settings.port, 1, speech(0.1))
    try:
        with bind(target, own) as rtp_socket, bind(target, own + 1) as rtcp_socket:
            for number in range(outgoing.n_packets):
                rtp_socket.sendto(outgoing.packet(number), (target, port.settings.port))
            rtcp_socket.sendto(outgoing.bye(), (target, port.settings.port + 1))
        events = port.receive(lambda _: None, rtcp=True)
    finally:
        port.close()
    assert events[-1] == StreamEnd(names(events)[0], "bye")


def test_streams_stay_in_their_lanes_when_the_sockets_buffer_was_full() -> None:
    n_streams = 30
    port = free_port()
    source = RtpReceiver([RtpSettings(port=port, rtcp_mux=True, receive_buffer_kb=64)])
    events: list[SourceEvent] = []
    payload = speech(1)
    # The receiving thread sends: what comes in one go is read in one go, and a flood finds nobody reading.
    goes = iter([[2], [3], [4], range(5, 25), [25]])
    over = threading.Event()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:

        def send(numbers: Iterable[int]) -> None:
            for number in numbers:
                for ssrc in range(n_streams):
                    packet = rtp(number, 160 * number, payload[160 * number : 160 * (number + 1)], ssrc=ssrc)
                    sender.sendto(packet, ("127.0.0.1", port))

        def emit(news: list[SourceEvent]) -> None:
            events.extend(news)
            if news and (go := next(goes, None)):
                send(go)
            elif news:
                over.set()

        send([0, 1])
        running = threading.Thread(target=source.run, args=(emit,))
        running.start()
        assert over.wait(5)
        source.stop()
        running.join(5)
    behind = [event for event in events if isinstance(event, AudioBlock) and event.lost]
    kernel_drops = source.status[0].kernel_drops
    assert kernel_drops
    assert sum(len(block.streams) for block in behind) == n_streams
    assert sum(block.lost * len(block.streams) for block in behind) == 160 * kernel_drops


def test_ports_come_and_go_while_the_others_receive() -> None:
    """All ports share a thread; what a port that closes had to say is not lost."""
    numbers = [free_port() for _ in range(3)]
    kept, gone, late = (RtpSettings(port=number, rtcp_mux=True) for number in numbers)
    source = RtpReceiver([kept, gone])
    events: list[SourceEvent] = []
    heard = {number: threading.Event() for number in numbers}
    ended = threading.Event()

    def emit(news: list[SourceEvent]) -> None:
        events.extend(news)
        for event in news:
            if isinstance(event, StreamStart):
                heard[int(event.source.removeprefix("rtp:"))].set()
            elif isinstance(event, StreamEnd):
                ended.set()

    def send(port: int, first: int) -> None:
        for i in range(first, first + 5):
            sender.sendto(rtp(i, 160 * i, payload[160 * i : 160 * (i + 1)]), ("127.0.0.1", port))

    payload = speech(0.2)
    running = threading.Thread(target=source.run, args=(emit,))
    running.start()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for port in numbers[:2]:
            send(port, 0)
            assert heard[port].wait(5)
        source.close(gone)
        assert ended.wait(5)
        with bind("127.0.0.1", gone.port):
            pass
        source.open(late)
        send(late.port, 0)
        assert heard[late.port].wait(5)
        send(kept.port, 5)
        deadline = time.monotonic() + 5
        while source.status[0].packets.get("received", 0) < 10 and time.monotonic() < deadline:
            time.sleep(0.01)
    source.stop()
    running.join(5)
    assert [port.port for port in source.status] == [kept.port, late.port]
    line, lost = sound([event for event in events if f"-{kept.port}" in getattr(event, "stream", "")])
    assert lost == 0
    assert (line == decoded(payload)).all()


def test_a_port_that_changes_counts_its_streams_and_calls_on() -> None:
    """A name used again would let the old stream's end, which is told later, end the new one."""
    before = RtpSettings(port=free_port(), rtcp_mux=True, parties=("customer", "agent"))
    after = msgspec.structs.replace(before, jitter_min_ms=60)
    source = RtpReceiver([before])
    events: list[SourceEvent] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:

        def send(n_packets: int) -> None:
            for i in range(n_packets):
                sender.sendto(rtp(i, 160 * i, bytes(160)), ("127.0.0.1", before.port))

        def emit(news: list[SourceEvent]) -> None:
            events.extend(news)
            n_begun = sum(isinstance(event, StreamStart) for event in events)
            if n_begun == 1 and source.settings == [before]:
                source.close(before)
                source.open(after)
                send(600)  # more than one batch
            elif n_begun == 2:
                source.stop()

        send(5)
        source.run(emit)
    told = [event for event in events if isinstance(event, StreamStart | StreamEnd)]
    assert [(type(event), event.stream) for event in told] == [
        (StreamStart, f"rtp-{before.port}-1"),
        (StreamEnd, f"rtp-{before.port}-1"),
        (StreamStart, f"rtp-{before.port}-2"),
        (StreamEnd, f"rtp-{before.port}-2"),
    ]
    calls = [event.call for event in told if isinstance(event, StreamStart)]
    assert calls == [f"rtp-{before.port}-call-1", f"rtp-{before.port}-call-2"]
