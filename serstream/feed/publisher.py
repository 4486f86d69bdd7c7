"""The daemon's end of the feed: a PUB socket, and beside it a ROUTER that repairs what PUB forgets.

PUB drops silently and knows no late joiners, so the publisher keeps the state of all live calls and a bounded
history, answers requests for both, and tells in heartbeats how far every stream has come.
"""

from __future__ import annotations

import errno
import logging
import resource
import uuid
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import zmq

from serstream.config import FeedSettings
from serstream.errors import UNDECODABLE, FeedError
from serstream.feed.coding import encode, topic
from serstream.feed.connections import Connections
from serstream.feed.gatekeeper import Gatekeeper
from serstream.feed.keys import ServerKeys
from serstream.feed.memory import Memory
from serstream.feed.messages import Heartbeat, Message, daemon_header
from serstream.feed.protocol import (
    MissedRequest,
    header,
    is_private,
    request_decoder,
    snapshot_endpoint,
)
from serstream.pacing import ALWAYS, Pacing
from serstream.unix_socket import check_free

logger = logging.getLogger(__name__)

REQUESTS_PER_POLL = 64
"""Answered before publishing goes on; the rest wait for the next poll."""
MAX_FILTER_BYTES = 512
"""Who subscribes to a longer prefix is cut off: ZeroMQ needs fifty times the memory for it. The longest topic
has some 200 bytes, the handshake with a key, which must fit as well, 300."""
MAX_REQUEST_BYTES = 1024 * 1024
"""Of a request, which names the calls that somebody listens to."""
HANDSHAKE_LIMIT_MS = 3000
"""Who connects and says nothing is cut off then. A client with a key waits for the next poll meanwhile."""
MAX_CONNECTIONS = 4096
"""At both endpoints; a subscriber needs two."""
CONNECTIONS_SHARE = 4
"""Nor more than this part of the process's descriptors: without one left ZeroMQ spins, or aborts the process.
Before the next poll up to 2,000 more come at each endpoint, and RTP ports need descriptors, too."""
REPLIES_QUEUED = 64
"""That a client has not read yet, each of up to hundreds of kilobytes; further ones are dropped."""

_BIND_ADVICE = {
    errno.EADDRINUSE: "stop the program that uses it (another serstream?)",
    errno.EEXIST: "move that file away",
    errno.ENOENT: "make its directory",
    errno.EACCES: "let the daemon's user write there",
}


@dataclass(slots=True)
class FeedCounters:
    """What happened so far; read by status and metrics."""

    published: int = 0
    overflowed: int = 0
    """Messages during which the queue of a subscriber was found full. ZeroMQ tells that a queue is full when
    it fills, not how many messages it then drops: those show in ``repeated``."""
    subscribers: int = 0
    """Connected now."""
    snapshots: int = 0
    repeated: Counter[str] = field(default_factory=Counter)
    """Messages sent again because a subscriber had missed them, by its key's name (empty without keys)."""
    refused: int = 0
    """Connections turned away for their keys."""
    full: int = 0
    """How often all connections were cut because there were too many."""


def server_keys(settings: FeedSettings, directory: Path) -> ServerKeys | None:
    """The daemon's pair; None: the feed is open to whoever is on this machine.

    Args:
        settings: the feed's part of the configuration.
        directory: what ``settings.keys`` is relative to.

    Raises:
        FeedError: the keys are missing or broken, or there are none and others could reach the endpoint.
    """
    private = is_private(settings.endpoint)
    if settings.keys:
        pair = directory / settings.server_keys if settings.server_keys else None
        return ServerKeys.load(directory / settings.keys, pair)
    if not private:
        raise FeedError(
            f"feed.endpoint {settings.endpoint} can be reached from outside and feed.keys is empty: "
            "bind 127.0.0.1 or ipc://, or make keys with 'serstream keys new NAME' and set feed.keys"
        )
    return None


class Publisher:
    """Publishes messages and answers subscribers. Clock-free and without threads.

    A ZeroMQ socket belongs to one thread: whoever calls ``publish`` first calls everything else as well.

    Args:
        settings: the feed's part of the configuration.
        directory: what ``settings.keys`` is relative to.

    Raises:
        FeedError: an endpoint cannot be bound, or could be reached from outside without keys.
    """

    def __init__(self, settings: FeedSettings, *, directory: Path = Path()):
        keys = server_keys(settings, directory)
        self.counters = FeedCounters()
        self.feed = uuid.uuid4().hex[:12]
        self._settings = settings
        self._header = header(settings.format, self.feed)
        self._memory = Memory(settings.history, settings.format)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._gatekeeper = Gatekeeper(self._context, keys) if keys else None
        self._started: float | None = None
        self._next_heartbeat = 0.0
        self._pacing = Pacing()
        self._told_overflows = 0
        self._max_connections = min(
            MAX_CONNECTIONS, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // CONNECTIONS_SHARE
        )
        try:
            self._bind()
        except FeedError:
            self.close()
            raise

    def publish(self, messages: Iterable[Message]) -> None:
        """Send messages to whoever subscribes, and remember them. Never waits for a slow subscriber."""
        for message in messages:
            self._send(topic(message), self._memory.add(message))

    def poll(self, now: float, utc: float) -> None:
        """Answer requests, admit subscribers, beat. Call it every 100 ms or oftener.

        Args:
            now: monotonic seconds.
            utc: seconds since the Unix epoch.
        """
        if self._started is None:
            self._started = self._next_heartbeat = now
        strangers = sum(connections.poll() for connections in self._connections)
        self.counters.subscribers = len(self._connections[0])
        if self._gatekeeper:
            if self._gatekeeper.poll(now, strangers):
                self._rebind()
            self.counters.refused = self._gatekeeper.refused
        self._limit_connections()
        for _ in range(REQUESTS_PER_POLL):
            if not self._router.poll(0):
                break
            self._answer(self._router.recv_multipart(copy=False))
        if now >= self._next_heartbeat:
            self._beat(now - self._started, utc)
            self._next_heartbeat = max(self._next_heartbeat + self._settings.heartbeat_s, now)
        self._warn(now)

    def close(self) -> None:
        """Send what is queued for at most half a second, then let go of the endpoints."""
        if self._gatekeeper:
            self._gatekeeper.close()
        self._close_sockets(linger_ms=500)
        self._context.term()

    def _bind(self) -> None:
        self._publisher = self._context.socket(zmq.PUB)
        self._router = self._context.socket(zmq.ROUTER)
        self._connections = [Connections(self._publisher), Connections(self._router)]
        for socket, endpoint, queue, longest in (
            (self._publisher, self._settings.endpoint, self._settings.high_water_mark, MAX_FILTER_BYTES),
            (self._router, snapshot_endpoint(self._settings.endpoint), REPLIES_QUEUED, MAX_REQUEST_BYTES),
        ):
            socket.sndhwm = queue
            socket.maxmsgsize = longest
            socket.handshake_ivl = HANDSHAKE_LIMIT_MS
            socket.ipv6 = "[" in endpoint
            if self._gatekeeper:
                self._gatekeeper.guard(socket)
            try:
                if endpoint.startswith("ipc://"):
                    check_free(Path(endpoint.removeprefix("ipc://")))
                socket.bind(endpoint)
            except (OSError, zmq.ZMQError) as error:
                code = error.errno or 0
                advice = _BIND_ADVICE.get(code, "give an address of this machine")
                raise FeedError(
                    f"feed endpoint {endpoint} cannot be bound: {zmq.strerror(code)}; {advice}, or choose "
                    "another feed.endpoint (its snapshots use the next port)"
                ) from error
        # With NODROP a full queue is reported instead of silently skipped; see _send.
        self._publisher.setsockopt(zmq.XPUB_NODROP, 1)

    def _rebind(self) -> None:
        """Cut all connections: of a client whose key was revoked, or of too many.

        ZeroMQ cannot cut a single one, and a listener that it closes takes along all that came by it. Clients
        come back by themselves, shake hands again and repair what they missed.
        """
        for connections in self._connections:
            connections.unbind()
        self._close_sockets(linger_ms=0)
        self._bind()

    def _limit_connections(self) -> None:
        connected = sum(map(len, self._connections))
        if connected > self._max_connections:
            self.counters.full += 1
            logger.warning(
                "feed: cut all %s connections: more than %s may use up the file descriptors; subscribers "
                "come back by themselves, 'ss -tnp' tells who else does",
                connected,
                self._max_connections,
            )
            self._rebind()

    def _close_sockets(self, linger_ms: int) -> None:
        for connections in self._connections:
            connections.close()
        for socket in (self._publisher, self._router):
            socket.close(linger=linger_ms)

    def _send(self, topic: bytes, body: bytes) -> None:
        frames = (topic, self._header, body)
        self.counters.published += 1
        try:
            self._publisher.send_multipart(frames, zmq.NOBLOCK)
        except zmq.Again:
            self.counters.overflowed += 1
            self._publisher.setsockopt(zmq.XPUB_NODROP, 0)
            self._publisher.send_multipart(frames, zmq.NOBLOCK)
            self._publisher.setsockopt(zmq.XPUB_NODROP, 1)

    def _answer(self, frames: list[zmq.Frame]) -> None:
        identity, *rest = frames
        try:
            (payload,) = rest
            request = request_decoder.decode(payload.bytes)
        except (ValueError, *UNDECODABLE):
            return
        answer = self._memory.answer(request)
        if isinstance(request, MissedRequest):
            self.counters.repeated[_name(payload)] += len(answer) - 1
        else:
            self.counters.snapshots += 1
        # A ROUTER drops what a client does not read: the client asks again.
        self._router.send_multipart([identity.bytes, self._header, *answer], zmq.NOBLOCK)

    def _beat(self, age: float, utc: float) -> None:
        model = self._memory.state.model
        sequence, positions = self._memory.beat()
        heartbeat = Heartbeat(
            **daemon_header(sequence, age, utc, model.model if model else ""),
            interval_s=self._settings.heartbeat_s,
            positions=positions,
        )
        self._send(topic(heartbeat), encode(heartbeat, self._settings.format))

    def _warn(self, now: float) -> None:
        new = self.counters.overflowed - self._told_overflows
        if new and self._pacing.is_due(now):
            self._pacing.tell(now)
            self._told_overflows = self.counters.overflowed
            logger.warning(
                "feed: a subscriber reads too slowly, its queue of %s messages is full (%s times more); "
                "'serstream status' and 'ss -tnp' tell which",
                self._settings.high_water_mark,
                new,
                extra=ALWAYS,
            )


def _name(frame: zmq.Frame) -> str:
    """Name that the key's owner was admitted under."""
    try:
        return str(frame.get("User-Id"))
    except zmq.ZMQError:
        return ""
