"""The client of the feed: ``for event in subscribe("tcp://127.0.0.1:5556")``, or ``async for``.

It loads neither the model's nor the sound's libraries. Connections are made again by themselves; what was
missed meanwhile is asked for and delivered in order; what cannot be had any more is a `Gap`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import msgspec
import zmq
import zmq.asyncio
from zmq.utils.monitor import parse_monitor_message

from serstream.errors import FeedError
from serstream.feed.inbox import Inbox
from serstream.feed.keys import ClientKeys
from serstream.feed.messages import NONE, TYPES, Event, Gap, Heartbeat
from serstream.feed.protocol import snapshot_endpoint
from serstream.types import Role

logger = logging.getLogger(__name__)

POLL_S = 0.25
"""How often an idle subscription looks after its timeouts."""
READ_LIMIT = 1000
"""Frames sets read before the reader gets its events."""
HANG_UPS = 5
"""Handshakes in a row that end without a word before it is taken for an answer."""
HIGH_WATER_MARK = 100_000
"""Messages that wait in this process before the daemon has to keep them."""


def subscribe(
    endpoint: str,
    *,
    calls: Collection[str] = (),
    roles: Collection[Role] = (),
    types: Collection[str] = (),
    heartbeats: bool = False,
    keys: str | Path | None = None,
    history: bool = False,
    repair: bool = True,
) -> Subscription:
    """Subscribe to a feed. The daemon may be started later.

    Args:
        endpoint: the daemon's ``feed.endpoint``.
        calls: only these calls; none named: all.
        roles: only messages about streams of these roles; none named: all messages.
        types: only messages of these types; none named: all.
        heartbeats: heartbeats as well.
        keys: file made by ``serstream keys new``, for a feed that demands one.
        history: begin with all that the daemon still knows of the calls that are going on, not only with
            the last word about each.
        repair: ask the daemon for messages that were missed.

    Raises:
        FeedError: the endpoint is not one, a type does not exist, or the keys cannot be read.
    """
    return Subscription(
        endpoint,
        Inbox(calls, history=history, repair=repair),
        [f"emotion.{call}." for call in (*calls, NONE)] if calls else ["emotion."],
        _Filter(roles, types, heartbeats),
        ClientKeys.load(Path(keys)) if keys else None,
    )


class Subscription:
    """An open subscription; iterate over it, with ``for`` or ``async for``, in one thread. Never ends.

    Iterating raises FeedError when the daemon refuses the keys or speaks another major version.
    """

    def __init__(
        self, endpoint: str, inbox: Inbox, topics: list[str], wanted: _Filter, keys: ClientKeys | None
    ):
        self.endpoint = endpoint
        self.inbox = inbox
        """Counters (``repaired``, ``lost``) and whether the feed ``is_stale``."""
        self._wanted = wanted
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._subscriber = self._context.socket(zmq.SUB)
        self._dealer = self._context.socket(zmq.DEALER)
        self._monitor = self._subscriber.get_monitor_socket(
            zmq.EVENT_HANDSHAKE_FAILED_AUTH
            | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
            | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
        )
        self._has_keys = keys is not None
        self._hung_up = 0
        """How often the daemon ended a handshake without a word."""
        self._subscriber.rcvhwm = HIGH_WATER_MARK
        # Without a connection requests are not kept: by the time there is one, others are needed.
        self._dealer.immediate = True
        for topic in topics:
            self._subscriber.subscribe(topic)
        for socket, address in (
            (self._subscriber, endpoint),
            (self._dealer, snapshot_endpoint(endpoint)),
        ):
            socket.linger = 0
            socket.ipv6 = "[" in endpoint
            # A cut connection is noticed and made again even if nobody said goodbye.
            socket.heartbeat_ivl, socket.heartbeat_timeout = 2000, 5000
            socket.reconnect_ivl, socket.reconnect_ivl_max = 100, 2000
            if keys:
                keys.apply(socket)
            socket.connect(address)
        self._next_poll = 0.0
        self._poller = zmq.Poller()
        for socket in (self._subscriber, self._dealer, self._monitor):
            self._poller.register(socket, zmq.POLLIN)

    def __iter__(self) -> Iterator[Event]:
        while True:
            yield from self.receive(POLL_S)

    async def __aiter__(self) -> AsyncIterator[Event]:
        poller = zmq.asyncio.Poller()
        for socket in (self._subscriber, self._dealer, self._monitor):
            poller.register(socket, zmq.POLLIN)
        while True:
            for event in self.receive(0):
                yield event
            await poller.poll(int(POLL_S * 1000))

    def receive(self, timeout_s: float) -> list[Event]:
        """What has arrived, after waiting for it for at most ``timeout_s``; a batch, perhaps empty.

        Raises:
            FeedError: see the class.
        """
        self._exchange(timeout_s)
        events = [event for event in self.inbox.events if self._wanted.passes(event)]
        self.inbox.events.clear()
        return events

    def is_stale(self) -> bool:
        """Whether the feed has been silent for longer than two of its heartbeats."""
        return self.inbox.is_stale(time.monotonic())

    def close(self) -> None:
        """Leave the feed."""
        self._subscriber.disable_monitor()
        for socket in (self._monitor, self._subscriber, self._dealer):
            socket.close(linger=0)
        self._context.term()

    def __enter__(self) -> Subscription:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _exchange(self, timeout_s: float) -> None:
        """Read what there is, or wait for something, and send what the inbox asks for."""
        ready = dict(self._poller.poll(int(timeout_s * 1000)))
        now = time.monotonic()
        if self._monitor in ready:
            self._fail(self._monitor.recv_multipart(zmq.NOBLOCK))
        with suppress(zmq.Again):
            while self._dealer in ready:
                self.inbox.replied(self._dealer.recv_multipart(zmq.NOBLOCK), now)
        with suppress(zmq.Again):
            for _ in range(READ_LIMIT if self._subscriber in ready else 0):
                self.inbox.arrived(self._subscriber.recv_multipart(zmq.NOBLOCK), now)
        if now >= self._next_poll:
            self._next_poll = now + POLL_S
            self.inbox.poll(now)
        if not self.inbox.requests:
            return
        with suppress(zmq.Again):
            while self.inbox.requests:
                self._dealer.send(msgspec.json.encode(self.inbox.requests[0]), zmq.NOBLOCK)
                self.inbox.requests.popleft()
        self.inbox.requests.clear()

    def _fail(self, frames: list[bytes]) -> None:
        event = parse_monitor_message(frames)
        if event["event"] == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            raise FeedError(
                f"feed {self.endpoint}: the daemon refuses this key, it was never allowed or is revoked; "
                "ask for one made with 'serstream keys new NAME'"
            )
        if event["event"] == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL:
            # A daemon that wants keys may close before its reason is sent; one that is stopped closes, too.
            # To a client with another daemon's keys it never says why.
            self._hung_up += 1
            if self._has_keys or self.inbox.heard_at is not None or self._hung_up < HANG_UPS:
                return
        raise FeedError(
            f"feed {self.endpoint}: no common security: the daemon wants keys and this subscriber has none, "
            "or the other way round; give the file that 'serstream keys new NAME' made"
        )


class _Filter:
    def __init__(self, roles: Collection[Role], types: Collection[str], heartbeats: bool):
        known = {*TYPES, "gap"}
        if unknown := set(types) - known:
            raise FeedError(f"message type {sorted(unknown)[0]!r}: there are {', '.join(sorted(known))}")
        self._roles = frozenset(roles)
        self._types = (frozenset(types) or known) - {"heartbeat"}
        self._heartbeats = heartbeats

    def passes(self, event: Event) -> bool:
        if isinstance(event, Gap):
            return "gap" in self._types
        if isinstance(event, Heartbeat):
            return self._heartbeats
        return event.TYPE in self._types and (not self._roles or event.role in self._roles)
