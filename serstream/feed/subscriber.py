"""The client of the feed: ``for event in subscribe("tcp://127.0.0.1:5556")``, or ``async for``.

It loads neither the model's nor the sound's libraries. Connections are made again by themselves; what was
missed meanwhile is asked for and delivered in order; what cannot be had any more is a `Gap`. The feeds of
several daemons can be read as one.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import AsyncIterator, Collection, Iterator
from pathlib import Path
from types import TracebackType
from typing import get_args

import zmq
import zmq.asyncio

from serstream.errors import FeedError
from serstream.feed.inbox import Inbox
from serstream.feed.keys import ClientKeys
from serstream.feed.link import POLL_S, Link
from serstream.feed.messages import NONE, TYPES, Event, Gap, Heartbeat
from serstream.types import Role


def subscribe(
    *endpoints: str,
    calls: Collection[str] = (),
    roles: Collection[Role] = (),
    types: Collection[str] = (),
    heartbeats: bool = False,
    keys: str | Path | None = None,
    history: bool = False,
    repair: bool = True,
) -> Subscription:
    """Subscribe to the feed of a daemon, or of several. They may be started later.

    Args:
        endpoints: ``feed.endpoint`` of each daemon. They must name their calls differently, and each call
            belongs to one of them; its messages are in order.
        calls: only these calls, and what concerns the daemon as a whole; none named: all calls.
        roles: only messages about streams of these roles, and gaps; none named: all messages.
        types: only messages of these types, ``gap`` and ``heartbeat`` among them; none named: all but
            heartbeats.
        heartbeats: heartbeats as well.
        keys: file made by ``serstream keys new``, for feeds that demand one.
        history: begin with all that the daemons still know of the calls that are going on, not only with
            the last word about each.
        repair: ask the daemon for messages that were missed; if not, only for the last words.

    Raises:
        FeedError: an endpoint is not one or is named twice, none is named, a role or type does not exist,
            there is ``history`` without ``repair``, or the keys cannot be read.
    """
    if not endpoints or len(set(endpoints)) < len(endpoints):
        raise FeedError(f"feed endpoints are {endpoints}, wanted at least one, and each once")
    if history and not repair:
        raise FeedError("history=True asks for messages again, which repair=False forbids; give one of them")
    topics = [f"emotion.{call}." for call in (*calls, NONE)] if calls else ["emotion."]
    for name, names in (("calls", calls), ("roles", roles), ("types", types)):
        if isinstance(names, str):
            raise FeedError(f"{name} is {names!r}, wanted a list: {name}=[{names!r}]")
    wanted = _Filter(roles, types, heartbeats)
    pair = ClientKeys.load(Path(keys)) if keys else None
    subscription = Subscription(wanted)
    try:
        for endpoint in endpoints:
            subscription.connect(endpoint, Inbox(calls, history=history, repair=repair), topics, pair)
    except FeedError:
        subscription.close()
        raise
    return subscription


class Subscription:
    """An open subscription; iterate over it, with ``for`` or ``async for``, in one thread. Never ends.

    Iterating raises FeedError when a daemon refuses the keys or speaks another major version.
    """

    def __init__(self, wanted: _Filter):
        self.links: list[Link] = []
        """To each daemon."""
        self._wanted = wanted
        self._events: deque[Event] = deque()
        """Read, and not yet given away: an iteration that is left leaves the rest to the next."""
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._poller = zmq.Poller()

    def connect(self, endpoint: str, inbox: Inbox, topics: list[str], keys: ClientKeys | None) -> None:
        """One more daemon, see `Link`."""
        self.links.append(Link(self._context, endpoint, inbox, topics, keys))
        for socket in self.links[-1].sockets:
            self._poller.register(socket, zmq.POLLIN)

    def __iter__(self) -> Iterator[Event]:
        while True:
            self._read(POLL_S)
            while self._events:
                yield self._events.popleft()

    async def __aiter__(self) -> AsyncIterator[Event]:
        poller = zmq.asyncio.Poller()
        for link in self.links:
            for socket in link.sockets:
                poller.register(socket, zmq.POLLIN)
        while True:
            self._read(0)
            while self._events:
                yield self._events.popleft()
            await poller.poll(int(POLL_S * 1000))

    def receive(self, timeout_s: float) -> list[Event]:
        """What has arrived, after waiting for it for at most ``timeout_s``; a batch, perhaps empty.

        Raises:
            FeedError: see the class.
        """
        self._read(timeout_s)
        events = list(self._events)
        self._events.clear()
        return events

    def silent(self) -> dict[str, float]:
        """Daemons that say nothing, not even a heartbeat, by endpoint; for how many seconds, see `Link`."""
        return {link.endpoint: link.silent_s for link in self.links if link.silent_s}

    def close(self) -> None:
        """Leave the feeds."""
        for link in self.links:
            link.close()
        self._context.term()

    def _read(self, timeout_s: float) -> None:
        """Read every link, even if one fails: what the others bring is kept for the next reading."""
        ready = {socket for socket, _ in self._poller.poll(0 if self._events else int(timeout_s * 1000))}
        now = time.monotonic()
        failure: FeedError | None = None
        for link in self.links:
            try:
                self._events.extend(filter(self._wanted.passes, link.exchange(ready, now)))
            except FeedError as error:
                failure = failure or error
        if failure:
            raise failure

    def __enter__(self) -> Subscription:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Filter:
    def __init__(self, roles: Collection[Role], types: Collection[str], heartbeats: bool):
        there = {"role": frozenset(get_args(Role)), "message type": frozenset({*TYPES, "gap"})}
        for (kind, known), names in zip(there.items(), (roles, types), strict=True):
            if unknown := set(names) - known:
                raise FeedError(f"{kind} {sorted(unknown)[0]!r}: there are {', '.join(sorted(known))}")
        self._roles = frozenset(roles)
        self._types = frozenset(types) or there["message type"] - {"heartbeat"}
        if heartbeats:
            self._types |= {"heartbeat"}

    def passes(self, event: Event) -> bool:
        if event.type not in self._types:
            return False
        return not self._roles or isinstance(event, Gap | Heartbeat) or event.role in self._roles
