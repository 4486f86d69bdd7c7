"""The daemon's bounded memory of what it published, from which subscribers repair their gaps."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from serstream.feed.messages import Position

Key = tuple[str, str]
"""(call, stream)."""


class History:
    """The last messages of all streams, at most ``limit``; the oldest is forgotten first."""

    def __init__(self, limit: int):
        self.limit = limit
        self._order: deque[Key] = deque()
        self._streams: dict[Key, deque[bytes]] = {}
        self._next: dict[Key, int] = {}
        """Sequence number behind the last one kept, per stream."""

    def __len__(self) -> int:
        return len(self._order)

    def add(self, key: Key, sequence: int, body: bytes) -> None:
        """Keep a message. A sequence number that does not follow the stream's last begins it anew."""
        kept = self._streams.get(key)
        if kept is None or sequence != self._next[key]:
            self._forget(key)
            kept = self._streams[key] = deque()
        kept.append(body)
        self._next[key] = sequence + 1
        self._order.append(key)
        if len(self._order) > self.limit:
            self._drop_oldest()

    def since(self, key: Key, first: int, limit: int) -> tuple[int, list[bytes]]:
        """Messages of a stream from ``first`` on, as far as they are kept, at most ``limit`` of them.

        Returns:
            The sequence number of the first one found, and the messages.
        """
        kept = self._streams.get(key)
        if not kept:
            return first, []
        oldest = self._next[key] - len(kept)
        begin = max(first, oldest)
        end = min(self._next[key], begin + limit)
        return begin, [kept[i - oldest] for i in range(begin, end)]

    def positions(self) -> Iterator[Position]:
        """The last sequence number of every stream of which something is kept, ended ones included."""
        for key, following in self._next.items():
            yield Position(*key, following - 1)

    def _drop_oldest(self) -> None:
        key = self._order.popleft()
        kept = self._streams[key]
        kept.popleft()
        if not kept:
            del self._streams[key], self._next[key]

    def _forget(self, key: Key) -> None:
        """Rare: a stream's name is used again. Costs one pass over the order."""
        if self._streams.pop(key, None) is not None:
            del self._next[key]
            self._order = deque(other for other in self._order if other != key)
