"""What travels beside the messages: the envelope, and the requests that the snapshot endpoint answers.

A published message has three frames: topic, header, body. The header names the body's content type and the
feed, which is new with every start of the daemon, so that a subscriber notices that all counts began anew.

The snapshot endpoint is a ROUTER next to the PUB socket. A request is one JSON frame; its reply is the
header, one JSON frame (`Snapshot` or `Missed`) and one frame per message.
"""

from __future__ import annotations

import ipaddress
from typing import TypeAlias

import msgspec

from serstream.errors import FeedError
from serstream.feed.coding import Format
from serstream.feed.messages import Position

REPLY_LIMIT = 1000
"""Messages in one `Missed`; if there are so many, ask again for those behind them."""

_CONTENT_TYPES: dict[Format, str] = {"json": "application/json", "msgpack": "application/msgpack"}


class SnapshotRequest(msgspec.Struct, frozen=True, tag_field="request", tag="snapshot"):
    """Asks for the state of all live calls."""

    calls: tuple[str, ...] = ()
    """Only these; none named: all."""


class MissedRequest(msgspec.Struct, frozen=True, tag_field="request", tag="missed"):
    """Asks for a stream's messages again, from ``first`` on."""

    call: str
    stream: str
    first: int


class Snapshot(msgspec.Struct, frozen=True, tag_field="reply", tag="snapshot"):
    """Answers a `SnapshotRequest`; the messages that follow rebuild the state."""

    positions: tuple[Position, ...]
    """Of every stream in the history, those of ended calls included."""
    next_heartbeat: int
    """Sequence number of the heartbeat that tells what happened since: the snapshot's place in the feed is
    before it. A stream that is in the positions of neither is over."""


class Missed(msgspec.Struct, frozen=True, tag_field="reply", tag="missed"):
    """Answers a `MissedRequest`. From ``first`` on its messages have no holes.

    If the history has forgotten some of those asked for, ``first`` is behind them, and the messages begin
    with earlier ones: the last word of each kind about the stream.
    """

    call: str
    stream: str
    first: int
    gone_by: int | None = None
    """Set if the stream is over and forgotten: sequence number of the heartbeat behind which nothing of it
    comes."""


Request: TypeAlias = SnapshotRequest | MissedRequest
Reply: TypeAlias = Snapshot | Missed

request_decoder = msgspec.json.Decoder(Request)
reply_decoder = msgspec.json.Decoder(Reply)


def header(format: Format, feed: str) -> bytes:
    """Frame 2 of every message of a feed."""
    return f"{_CONTENT_TYPES[format]}; feed={feed}".encode()


def read_header(frame: bytes) -> tuple[Format, str]:
    """Content type and feed of frame 2.

    Raises:
        FeedError: this is not a serstream feed, or one with a content type that this version does not know.
    """
    content_type, _, feed = frame.decode("utf-8", "replace").partition("; feed=")
    for format, name in _CONTENT_TYPES.items():
        if name == content_type and feed:
            return format, feed
    raise FeedError(
        f"frame 2 is {frame[:60]!r}, wanted '{_CONTENT_TYPES['json']}; feed=...'; is this a serstream feed?"
    )


def snapshot_endpoint(endpoint: str) -> str:
    """Where the snapshots of a feed are: the next TCP port, or the path with ``.snapshot`` behind it.

    Raises:
        FeedError: the endpoint is not one.
    """
    check_endpoint(endpoint)
    if not endpoint.startswith("tcp://"):
        return f"{endpoint}.snapshot"
    host, _, port = endpoint.rpartition(":")
    return f"{host}:{int(port) + 1}"


def check_endpoint(endpoint: str) -> None:
    """Raise a FeedError unless ``endpoint`` is a ZeroMQ endpoint of a kind the feed can use."""
    transport, _, address = endpoint.partition("://")
    port = address.rpartition(":")[2]
    if (
        transport not in ("tcp", "ipc")
        or not address
        or (transport == "tcp" and not (port.isdecimal() and 0 < int(port) < 65535))
    ):
        raise FeedError(f"feed endpoint {endpoint!r}: wanted tcp://HOST:PORT (port 1 to 65534) or ipc://PATH")


def is_private(endpoint: str) -> bool:
    """Whether only this machine can reach an endpoint."""
    check_endpoint(endpoint)
    if not endpoint.startswith("tcp://"):
        return True
    host = endpoint.removeprefix("tcp://").rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False  # a wildcard, an interface's or a machine's name
