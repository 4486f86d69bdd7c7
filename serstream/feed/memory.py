"""What the daemon remembers of its own feed, and how it answers subscribers who ask for it."""

from __future__ import annotations

from itertools import chain

import msgspec

from serstream.feed.coding import Format, encode
from serstream.feed.history import History
from serstream.feed.messages import NONE, Message, Position
from serstream.feed.protocol import REPLY_LIMIT, Missed, MissedRequest, Request, Snapshot
from serstream.feed.state import FeedState


class Memory:
    """The state of all live calls and a bounded history.

    Args:
        history: messages kept.
        format: in which messages are encoded.
    """

    def __init__(self, history: int, format: Format):
        self.state = FeedState()
        self._format = format
        self._history = History(history)
        self._heartbeats = 0
        self._advanced: dict[tuple[str, str], int] = {}
        """Streams with messages since the last heartbeat."""

    def add(self, message: Message) -> bytes:
        """Remember a message.

        Returns:
            Its encoding.
        """
        body = self._encode(message)
        key = (message.call, message.stream)
        self.state.update(message)
        self._history.add(key, message.sequence, body)
        self._advanced[key] = message.sequence
        return body

    def beat(self) -> tuple[int, tuple[Position, ...]]:
        """What a heartbeat tells: its sequence number, and where the streams are that had a message since."""
        positions = tuple(Position(*key, sequence) for key, sequence in self._advanced.items())
        self._advanced.clear()
        self._heartbeats += 1
        return self._heartbeats - 1, positions

    def answer(self, request: Request) -> list[bytes]:
        """The head of the reply, and its messages."""
        if isinstance(request, MissedRequest):
            key = (request.call, request.stream)
            first, bodies = self._history.since(key, request.first, REPLY_LIMIT)
            known = self.state.about(*key) if first > request.first or not bodies else []
            if known and not bodies:
                first = known[-1].sequence + 1
            gone = not known and not bodies and request.call != NONE
            head = Missed(*key, first, self._heartbeats if gone else None)
            state = (self._encode(message) for message in known if message.sequence < first)
            return [msgspec.json.encode(head), *state, *bodies]
        calls = frozenset(request.calls)
        snapshot = Snapshot(self._positions(calls), self._heartbeats)
        messages = self.state.messages(calls)
        return [msgspec.json.encode(snapshot), *map(self._encode, messages)]

    def _encode(self, message: Message) -> bytes:
        return encode(message, self._format)

    def _positions(self, calls: frozenset[str]) -> tuple[Position, ...]:
        """Of streams in the history, and of live ones that have been silent for longer than it goes back."""
        positions = {(p.call, p.stream): p for p in chain(self._history.positions(), self.state.positions())}
        return tuple(p for p in positions.values() if not calls or p.call in calls or p.call == NONE)
