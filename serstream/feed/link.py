"""A subscriber's link to one daemon: the sockets to its feed, and the inbox that understands what comes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress

import msgspec
import zmq
from zmq.utils.monitor import parse_monitor_message

from serstream.errors import FeedError
from serstream.feed.inbox import Inbox
from serstream.feed.keys import ClientKeys
from serstream.feed.messages import Event
from serstream.feed.protocol import snapshot_endpoint

POLL_S = 0.25
"""How often timeouts are looked after."""
READ_LIMIT = 1000
"""Messages read before the reader gets its events."""
HANG_UPS = 5
"""Handshakes in a row that end without a word before it is taken for an answer."""
HIGH_WATER_MARK = 100_000
"""Messages that wait in this process before the daemon has to keep them."""


class Link:
    """Connected from the start, and again whenever the connection was cut.

    Args:
        context: of the sockets.
        endpoint: the daemon's ``feed.endpoint``.
        inbox: takes what comes.
        topics: what to subscribe to.
        keys: for a feed that demands them.

    Raises:
        FeedError: the endpoint is not one.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        endpoint: str,
        inbox: Inbox,
        topics: Sequence[str],
        keys: ClientKeys | None,
    ):
        self.endpoint = endpoint
        self.inbox = inbox
        """Counters: ``repaired``, ``lost`` and when anything was ``heard_at`` last."""
        addresses = endpoint, snapshot_endpoint(endpoint)
        self._subscriber = context.socket(zmq.SUB)
        self._dealer = context.socket(zmq.DEALER)
        self._monitor = self._subscriber.get_monitor_socket(
            zmq.EVENT_HANDSHAKE_FAILED_AUTH
            | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
            | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
        )
        self.sockets = (self._subscriber, self._dealer, self._monitor)
        """Those that `exchange` wants to hear of."""
        self._has_keys = keys is not None
        self._hung_up = 0
        """How often the daemon ended a handshake without a word."""
        self._subscriber.rcvhwm = HIGH_WATER_MARK
        # Without a connection requests are not kept: by the time there is one, others are needed.
        self._dealer.immediate = True
        for topic in topics:
            self._subscriber.subscribe(topic)
        for socket, address in zip((self._subscriber, self._dealer), addresses, strict=True):
            socket.linger = 0
            socket.ipv6 = "[" in endpoint
            # A cut connection is noticed and made again even if nobody said goodbye.
            socket.heartbeat_ivl, socket.heartbeat_timeout = 2000, 5000
            socket.reconnect_ivl, socket.reconnect_ivl_max = 100, 2000
            if keys:
                keys.apply(socket)
            try:
                socket.connect(address)
            except zmq.ZMQError as error:
                self.close()
                raise FeedError(
                    f"feed endpoint {endpoint}: cannot connect to {address}: {error.strerror}; wanted where "
                    "a daemon's feed.endpoint can be reached"
                ) from error
        self._next_poll = 0.0
        self._began = time.monotonic()

    @property
    def silent_s(self) -> float:
        """For how long nothing has come, once that is longer than `Inbox.patience_s`; before 0."""
        heard_at = self.inbox.heard_at
        silent_s = time.monotonic() - (self._began if heard_at is None else heard_at)
        return silent_s if silent_s > self.inbox.patience_s else 0.0

    def exchange(self, ready: set[zmq.Socket[bytes]], now: float) -> list[Event]:
        """Read what there is and send what the inbox asks for.

        Args:
            ready: sockets that have something to read.
            now: monotonic seconds.

        Raises:
            FeedError: the daemon refuses the keys or speaks another major version.
        """
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
        with suppress(zmq.Again):
            while self.inbox.requests:
                self._dealer.send(msgspec.json.encode(self.inbox.requests[0]), zmq.NOBLOCK)
                self.inbox.requests.popleft()
        self.inbox.requests.clear()
        events = list(self.inbox.events)
        self.inbox.events.clear()
        return events

    def close(self) -> None:
        """Leave the feed."""
        if not self._subscriber.closed:
            self._subscriber.disable_monitor()
        for socket in self.sockets:
            socket.close(linger=0)

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
