"""The daemon's bounded memory of what it published, from which subscribers repair their gaps."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from serstream.feed.messages import Position

Key = tuple[str, str]
"""(call, stream)."""


@dataclass(slots=True, eq=False)
class _Stream:
    """What is kept of a stream."""

    key: Key
    following: int
    """Sequence number behind the last message kept."""
    bodies: list[bytes] = field(default_factory=list)
    """Most have few messages, and a deque begins with 600 bytes."""


class History:
    """The last messages of all streams, at most ``limit``; the oldest is forgotten first."""

    def __init__(self, limit: int):
        self.limit = limit
        self._order: deque[_Stream] = deque()
        """One entry a message."""
        self._streams: dict[Key, _Stream] = {}

    def __len__(self) -> int:
        return len(self._order)

    def add(self, key: Key, sequence: int, body: bytes) -> None:
        """Keep a message. A sequence number that does not follow the stream's last begins it anew."""
        stream = self._streams.get(key)
        if stream is None or sequence != stream.following:
            if stream is not None:
                self._forget(stream)
            stream = self._streams[key] = _Stream(key, sequence)
        stream.bodies.append(body)
        stream.following += 1
        self._order.append(stream)
        if len(self._order) > self.limit:
            self._drop_oldest()

    def since(self, key: Key, first: int, limit: int) -> tuple[int, list[bytes]]:
        """Messages of a stream from ``first`` on, as far as they are kept, at most ``limit`` of them.

        Returns:
            The sequence number of the first one found, and the messages.
        """
        stream = self._streams.get(key)
        if stream is None:
            return first, []
        oldest = stream.following - len(stream.bodies)
        begin = max(first, oldest)
        return begin, stream.bodies[begin - oldest :][:limit]

    def positions(self) -> Iterator[Position]:
        """The last sequence number of every stream of which something is kept, ended ones included."""
        for key, stream in self._streams.items():
            yield Position(*key, stream.following - 1)

    def _drop_oldest(self) -> None:
        stream = self._order.popleft()
        del stream.bodies[0]
        if not stream.bodies:
            del self._streams[stream.key]

    def _forget(self, stream: _Stream) -> None:
        """Rare: a stream's name is used again. Costs one pass over the order."""
        self._order = deque(other for other in self._order if other is not stream)
