import contextlib
import math
import re
import resource
import socket as sockets
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pytest
import zmq
from scripted_feed import call, calls
from waiting import until

from serstream.config import FeedSettings
from serstream.errors import FeedError
from serstream.feed import publisher as publisher_module
from serstream.feed.coding import Format, decode
from serstream.feed.messages import Heartbeat
from serstream.feed.protocol import read_header, snapshot_endpoint
from serstream.feed.publisher import MAX_REQUEST_BYTES, Publisher
from serstream.service.log_limit import GrowingPauses

Context = zmq.Context[zmq.Socket[bytes]]

HEARTBEATS = b"emotion.-.-.heartbeat"


@pytest.fixture
def context() -> Iterator[Context]:
    context: Context = zmq.Context()
    yield context
    context.destroy(linger=0)


@pytest.fixture
def feed(tmp_path: Path) -> FeedSettings:
    return FeedSettings(endpoint=f"ipc://{tmp_path}/feed", heartbeat_s=0.05)


def listener(context: Context, endpoint: str, topic: bytes = b"", queue: int = 1000) -> zmq.Socket[bytes]:
    """A bare SUB socket."""
    socket = context.socket(zmq.SUB)
    socket.rcvhwm = queue
    socket.subscribe(topic)
    socket.connect(endpoint)
    return socket


def received(socket: zmq.Socket[bytes]) -> list[list[bytes]]:
    frames = []
    while socket.poll(20):
        frames.append(socket.recv_multipart())
    return frames


def join(publisher: Publisher, *listeners: zmq.Socket[bytes]) -> None:
    """Beat until every listener is connected, then let them forget it."""
    for socket in listeners:
        socket.subscribe(HEARTBEATS)
        while not socket.poll(2):
            publisher.poll(time.monotonic(), 0.0)
        socket.unsubscribe(HEARTBEATS)
    for socket in listeners:
        received(socket)


@pytest.mark.parametrize("format", ["json", "msgpack"])
def test_a_message_has_topic_header_and_body(context: Context, feed: FeedSettings, format: Format) -> None:
    publisher = Publisher(msgspec.structs.replace(feed, format=format))
    socket = listener(context, feed.endpoint)
    join(publisher, socket)
    messages = call("a")
    publisher.publish(messages)
    for (topic, header, body), message in zip(received(socket), messages, strict=True):
        assert topic.decode() == f"emotion.a.{message.stream}.{message.type}"
        assert read_header(header) == (format, publisher.feed)
        assert decode(body, format) == message
    publisher.close()


def test_a_topic_prefix_selects_a_call_or_a_stream(context: Context, feed: FeedSettings) -> None:
    publisher = Publisher(feed)
    of_call = listener(context, feed.endpoint, b"emotion.b.")
    of_stream = listener(context, feed.endpoint, b"emotion.b.b-c.")
    join(publisher, of_call, of_stream)
    publisher.publish([*call("a"), *call("b"), *call("bb")])
    assert len(received(of_call)) == len(call("b"))
    assert {frames[0].split(b".")[2] for frames in received(of_stream)} == {b"b-c"}
    publisher.close()


def test_heartbeats_tell_how_far_the_streams_are(context: Context, feed: FeedSettings) -> None:
    publisher = Publisher(msgspec.structs.replace(feed, heartbeat_s=1.0))
    socket = listener(context, feed.endpoint, HEARTBEATS)
    join(publisher, socket)
    later = math.ceil(time.monotonic()) + 100.0
    publisher.poll(later, 1_767_225_600.0)  # long due, as is the next
    publisher.poll(later, 1_767_225_600.0)
    publisher.publish(call("a"))
    for seconds in (0.5, 0.9, 1.0, 1.5, 2.0):
        publisher.poll(later + seconds, 1_767_225_600.0)
    beats = [beat for frames in received(socket) if isinstance(beat := decode(frames[2]), Heartbeat)][1:]
    assert [beat.sequence - beats[0].sequence for beat in beats] == [0, 1, 2]
    assert [beat.end - beats[0].end for beat in beats] == pytest.approx([0.0, 1.0, 2.0])
    positions = [{(p.call, p.stream): p.sequence for p in beat.positions} for beat in beats]
    last = {(m.call, m.stream): m.sequence for m in call("a")}
    assert positions == [{}, last, {}]
    publisher.close()


def test_a_subscriber_that_does_not_read_is_noticed_and_delays_nobody(
    context: Context, feed: FeedSettings, caplog: pytest.LogCaptureFixture
) -> None:
    publisher = Publisher(msgspec.structs.replace(feed, high_water_mark=200))
    lazy, eager = listener(context, feed.endpoint, queue=10), listener(context, feed.endpoint)
    join(publisher, lazy, eager)
    messages = list(calls(100, windows=10))
    began = time.monotonic()
    for message in messages:
        publisher.publish([message])
        assert eager.poll(5000)
        assert decode(eager.recv_multipart()[2]) == message
    publisher.poll(time.monotonic(), 0.0)
    assert time.monotonic() - began < 30
    assert publisher.counters.overflowed == 1, "once: ZeroMQ tells when a queue fills, not what it then drops"
    assert "a subscriber reads too slowly, its queue of 200 messages is full" in caplog.text
    assert 210 <= len(received(lazy)) < len(messages), "two queues, and what the socket between them holds"
    publisher.close()


def test_overflows_are_told_ever_more_rarely_and_none_is_left_out(
    feed: FeedSettings, caplog: pytest.LogCaptureFixture
) -> None:
    publisher = Publisher(feed)
    for tenth in range(640):
        publisher.counters.overflowed += 1
        publisher.poll(100 + tenth / 10, 0.0)
    publisher.close()
    limit = GrowingPauses()
    told = [re.findall(r"(\d+) times", each.getMessage()) for each in caplog.records if limit.filter(each)]
    assert told == [["1"], ["10"], ["20"], ["40"], ["80"], ["160"], ["320"]]


def test_subscribers_are_counted_while_they_are_connected(tmp_path: Path) -> None:
    publisher = Publisher(FeedSettings(endpoint=f"ipc://{tmp_path}/feed"))
    with zmq.Context() as outside:
        first, second = (listener(outside, f"ipc://{tmp_path}/feed") for _ in range(2))

        def subscribers() -> int:
            publisher.poll(time.monotonic(), 0.0)
            return publisher.counters.subscribers

        assert until(lambda: subscribers() == 2)
        first.close(linger=0)
        assert until(lambda: subscribers() == 1)
        second.close(linger=0)
        assert until(lambda: subscribers() == 0)
    publisher.close()


def silent_connections(path: Path, number: int) -> contextlib.ExitStack:
    """Strangers that connect and say nothing."""
    strangers = contextlib.ExitStack()
    for _ in range(number):
        strangers.enter_context(sockets.socket(sockets.AF_UNIX)).connect(str(path))
    return strangers


def test_who_connects_and_says_nothing_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher_module, "HANDSHAKE_LIMIT_MS", 200)
    publisher = Publisher(FeedSettings(endpoint=f"ipc://{tmp_path}/feed"))

    def connected() -> int:
        publisher.poll(time.monotonic(), 0.0)
        return publisher.counters.subscribers

    with contextlib.closing(publisher), silent_connections(tmp_path / "feed", 3):
        assert until(lambda: connected() == 3, 5)
        assert until(lambda: connected() == 0, 5)


@pytest.mark.parametrize("snapshots", [False, True])
def test_too_many_connections_are_cut_before_they_use_up_the_descriptors_and_subscribers_come_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, snapshots: bool
) -> None:
    endpoint = f"ipc://{tmp_path}/feed"
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (160, hard))
    try:
        publisher = Publisher(FeedSettings(endpoint=endpoint, heartbeat_s=0.05))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    attacked = snapshot_endpoint(endpoint) if snapshots else endpoint

    def is_full() -> bool:
        publisher.poll(time.monotonic(), 0.0)
        return publisher.counters.full > 0

    with (
        contextlib.closing(publisher),
        zmq.Context() as outside,
        listener(outside, endpoint) as subscriber,
    ):
        subscriber.linger = 0
        with silent_connections(Path(attacked.removeprefix("ipc://")), 30):
            assert not until(is_full, 0.5)
            with silent_connections(Path(attacked.removeprefix("ipc://")), 30):
                assert until(is_full, 5)
                received(subscriber)

                def comes_back() -> bool:
                    publisher.poll(time.monotonic(), 0.0)
                    return bool(subscriber.poll(0))

                assert until(comes_back, 5)
    assert re.search(r"feed: cut all \d+ connections: more than 40 may use up", caplog.text)
    assert publisher.counters.full == 1


def test_rubbish_at_the_snapshot_endpoint_is_not_answered(context: Context, feed: FeedSettings) -> None:
    publisher = Publisher(feed)
    dealer = context.socket(zmq.DEALER)
    dealer.connect(snapshot_endpoint(feed.endpoint))
    nested = b'{"request":"snapshot","x":' + b"[" * 5000 + b"]" * 5000 + b"}"
    for rubbish in ([b""], [b"\xff" * 100], [b"{}", b"{}"], [b'{"request":"erase"}'], [nested]):
        dealer.send_multipart(rubbish)
    dealer.send(b'{"request":"snapshot"}')
    publisher.publish(call("a")[:3])
    while not dealer.poll(2):
        publisher.poll(time.monotonic(), 0.0)
    assert b"snapshot" in dealer.recv_multipart()[1], "behind the rubbish"
    assert publisher.counters.snapshots == 1 and not dealer.poll(20)
    publisher.close()


def test_who_sends_more_than_a_request_needs_is_cut_off_and_answers_may_be_longer(tmp_path: Path) -> None:
    endpoint = f"ipc://{tmp_path}/feed"
    with (
        contextlib.closing(Publisher(FeedSettings(endpoint=endpoint, heartbeat_s=0.05))) as publisher,
        zmq.Context() as outside,
        outside.socket(zmq.DEALER) as dealer,
    ):
        assert not can_be_heard(publisher, endpoint, (b"", 1000 * b"x"), timeout_s=0.5)
        publisher.publish([message for n in range(200) for message in call(f"c{n}")[:3]])
        dealer.connect(snapshot_endpoint(endpoint))
        for request in ((MAX_REQUEST_BYTES + 1) * b"x", b'{"request":"snapshot"}'):
            dealer.send(request)
            assert not dealer.poll(100)  # whoever is cut off comes back
            publisher.poll(time.monotonic(), 0.0)
        assert dealer.poll(5000)
        assert sum(map(len, dealer.recv_multipart())) > 64 * 1024


def test_an_endpoint_in_use_is_named(tmp_path: Path) -> None:
    with zmq.Context() as other, other.socket(zmq.PUB) as socket:
        port = socket.bind_to_random_port("tcp://127.0.0.1", min_port=30_000, max_port=60_000)
        with pytest.raises(
            FeedError, match=rf"tcp://127.0.0.1:{port} cannot be bound: Address already in use; stop"
        ):
            Publisher(FeedSettings(endpoint=f"tcp://127.0.0.1:{port}"))


def can_be_heard(
    publisher: Publisher, endpoint: str, topics: Sequence[bytes] = (b"",), timeout_s: float = 5.0
) -> bool:
    """Whether a new subscriber to these topics gets a heartbeat."""
    with zmq.Context() as outside, outside.socket(zmq.SUB) as subscriber:
        for topic in topics:
            subscriber.subscribe(topic)
        subscriber.connect(endpoint)
        deadline = time.monotonic() + timeout_s
        while not (heard := subscriber.poll(2)) and time.monotonic() < deadline:
            publisher.poll(time.monotonic(), 0.0)
        return bool(heard)


def test_another_daemons_socket_and_a_file_are_not_bound_over(tmp_path: Path) -> None:
    endpoint = f"ipc://{tmp_path}/feed"
    with contextlib.closing(Publisher(FeedSettings(endpoint=endpoint, heartbeat_s=0.05))) as first:
        with pytest.raises(FeedError, match="cannot be bound: Address already in use; stop the program"):
            Publisher(FeedSettings(endpoint=endpoint))
        assert can_be_heard(first, endpoint)
    file = tmp_path / "file"
    file.write_text("precious")
    with pytest.raises(FeedError, match="cannot be bound: File exists; move that file away"):
        Publisher(FeedSettings(endpoint=f"ipc://{file}"))
    assert file.read_text() == "precious"


def test_the_socket_of_a_killed_daemon_is_bound_again(tmp_path: Path) -> None:
    endpoint = f"ipc://{tmp_path}/feed"
    with sockets.socket(sockets.AF_UNIX) as killed:
        killed.bind(f"{tmp_path}/feed")
    with contextlib.closing(Publisher(FeedSettings(endpoint=endpoint, heartbeat_s=0.05))) as publisher:
        assert can_be_heard(publisher, endpoint)


@pytest.mark.parametrize(
    "endpoint", ["tcp://0.0.0.0:5556", "tcp://*:5556", "tcp://192.0.2.1:5556", "tcp://eth0:5556"]
)
def test_an_endpoint_that_others_can_reach_demands_keys(endpoint: str) -> None:
    with pytest.raises(FeedError, match=r"can be reached from outside and feed\.keys is empty"):
        Publisher(FeedSettings(endpoint=endpoint))


@pytest.mark.parametrize(
    "endpoint",
    ["", "5556", "udp://127.0.0.1:5556", "tcp://127.0.0.1", "tcp://127.0.0.1:65535", "ipc://", "inproc://x"],
)
def test_what_is_no_endpoint_is_refused(endpoint: str) -> None:
    with pytest.raises(FeedError, match="wanted tcp://HOST:PORT"):
        Publisher(FeedSettings(endpoint=endpoint))
