"""The thinking half of a subscriber: follows one feed through cut connections and restarts of its daemon.

No socket and no clock: it takes frames and ``now``, and leaves events and requests to be fetched. How loss is
noticed: within a stream by its sequence numbers; at a stream's end by the positions in the heartbeats; after
a cut connection by a missing heartbeat or another feed name, which makes it ask for a snapshot. A snapshot
overtakes what is still to be read, so its place is before the heartbeat that it names: only when that is here
do streams count as behind it, or as over.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from serstream.errors import UNDECODABLE, FeedError
from serstream.feed.coding import Decoded, Format, decode
from serstream.feed.messages import NONE, Heartbeat, Position
from serstream.feed.order import ATTEMPTS, REPLY_TIMEOUT_S, Order
from serstream.feed.protocol import Missed, Reply, Snapshot, SnapshotRequest, read_header, reply_decoder

logger = logging.getLogger(__name__)

HELD_LIMIT = 20_000
"""Messages held back while something is awaited; beyond it the wait is given up."""
STALE_INTERVALS = 2.5
"""A feed that is silent for longer than so many of its heartbeats' intervals is stale: one may be lost."""


class Inbox:
    """Messages of one feed, in order.

    Args:
        calls: only these; none named: all.
        history: ask for the messages of calls that had begun before, as far as the daemon keeps them.
        repair: ask for missed messages; if not, a gap is reported at once.
    """

    def __init__(self, calls: Iterable[str] = (), *, history: bool = False, repair: bool = True):
        self._order = Order(history=history, repair=repair)
        self.events = self._order.events
        """Ready for the reader, oldest first."""
        self.requests = self._order.requests
        """To be sent to the snapshot endpoint."""
        self._polled_at: float | None = None
        self.heard_at: float | None = None
        """When anything last arrived."""
        self._wanted = frozenset(calls)
        self._interval_s = 1.0
        self._feed = ""
        self._header = b""
        """Frame 2 as it came last; reading it anew for each message would cost more than the message."""
        self._format: Format = "json"
        self._joined = False
        """Whether there was a snapshot of this feed: from then on every message is owed to the reader."""
        self._snapshot: Snapshot | None = None
        """The last one, until its place in the feed is reached. It covers all that was missed before."""
        self._heartbeat: int | None = None
        """Sequence number of the last one."""
        self._asked_at: float | None = None
        """When the snapshot that is awaited was asked for."""
        self._asked = 0
        """How often in vain; after `ATTEMPTS` messages do not wait for it any more."""
        self._awaiting: list[Decoded] = []
        """What came before the snapshot."""

    @property
    def repaired(self) -> int:
        """Messages that were missed and came after all."""
        return self._order.repaired

    @property
    def lost(self) -> int:
        """Messages that are lost for good, as far as they can be counted."""
        return self._order.lost

    @property
    def patience_s(self) -> float:
        """Seconds of silence that a living feed may have."""
        return STALE_INTERVALS * self._interval_s

    def is_stale(self, now: float) -> bool:
        """Whether nothing has come for longer than that, or nothing yet."""
        return self.heard_at is None or now - self.heard_at > self.patience_s

    def arrived(self, frames: Sequence[bytes], now: float) -> None:
        """Take one published message.

        Raises:
            FeedError: not a serstream feed, or a schema of another major version.
        """
        if len(frames) != 3:
            raise FeedError(f"message of {len(frames)} frames, wanted 3; is this a serstream feed?")
        _topic, header, body = frames
        message = decode(body, self._open(header, now))
        if self._asked_at is None or self._asked > ATTEMPTS:
            self._take(message, now)
        else:
            self._awaiting.append(message)
        if len(self._awaiting) + self._order.n_held > HELD_LIMIT:
            self._order.give_up(now)
            self._release(now)

    def replied(self, frames: Sequence[bytes], now: float) -> None:
        """Take one reply of the snapshot endpoint.

        Raises:
            FeedError: it cannot be understood.
        """
        if len(frames) < 2:
            raise FeedError(f"reply of {len(frames)} frames, wanted header, head and messages")
        format = self._open(frames[0], now)
        try:
            reply: Reply = reply_decoder.decode(frames[1])
        except UNDECODABLE as error:
            raise FeedError(f"reply {frames[1][:60]!r}: {error}") from error
        messages = [decode(body, format) for body in frames[2:]]
        if isinstance(reply, Missed):
            self._order.mend(reply, messages, now)
        elif self._asked_at is not None:  # else it was asked for twice
            self._apply(reply, messages, now)

    def poll(self, now: float) -> None:
        """Ask again for what was not answered in time, and in the end do without it.

        Between two calls at most one heartbeat's interval counts as silence: to a process that was stopped or
        busy for longer, what the feed said meanwhile is still on its way.
        """
        if self.heard_at is not None and self._polled_at is not None:
            stopped_s = max(0.0, now - self._polled_at - self._interval_s)
            self.heard_at = min(self.heard_at + stopped_s, now)
        self._polled_at = now
        if self._asked_at is None:
            if self.is_stale(now):
                self._ask(now)
        elif now - self._asked_at > REPLY_TIMEOUT_S:
            if self._asked == ATTEMPTS and not self.is_stale(now):
                logger.warning("feed: the snapshot endpoint does not answer; going on without what it knows")
            self._ask(now)
            if self._asked > ATTEMPTS:
                self._order.give_up(now)
                self._release(now)
        self._order.ask_again(now)

    def _open(self, header: bytes, now: float) -> Format:
        """Note who speaks. Another feed name: the daemon was started anew, all counts begin again."""
        self.heard_at = now
        if header == self._header:
            return self._format
        format, feed = read_header(header)
        self._header, self._format = header, format
        if feed != self._feed:
            self._order.forget()
            self._awaiting.clear()
            self._feed, self._joined = feed, False
            self._snapshot = self._heartbeat = None
            self._asked = 0
            self._ask(now)
        return format

    def _ask(self, now: float) -> None:
        self._asked_at = now
        self._asked += 1
        self.requests.append(SnapshotRequest(tuple(self._wanted)))

    def _apply(self, snapshot: Snapshot, messages: list[Decoded], now: float) -> None:
        if not self._joined:
            self._order.join(snapshot.positions, messages, now)
            self._joined = True
        self._snapshot = snapshot
        self._asked_at, self._asked = None, 0
        self._release(now)

    def _release(self, now: float) -> None:
        """Take what waited for the snapshot."""
        awaiting, self._awaiting = self._awaiting, []
        for message in awaiting:
            self._take(message, now)

    def _take(self, message: Decoded, now: float) -> None:
        if isinstance(message, Heartbeat):
            self._beat(message, now)
        else:
            self._order.take(message, now)

    def _beat(self, heartbeat: Heartbeat, now: float) -> None:
        self._interval_s = heartbeat.interval_s
        self.events.append(heartbeat)
        following = heartbeat.sequence if self._heartbeat is None else self._heartbeat + 1
        self._heartbeat = max(heartbeat.sequence, self._heartbeat or 0)
        self._expect(heartbeat.positions, now)
        if self._snapshot:
            following = self._snapshot.next_heartbeat
            if heartbeat.sequence >= following:
                self._align(self._snapshot, heartbeat, now)
        if heartbeat.sequence > following:
            self._ask(now)
        self._order.passed(heartbeat.sequence, now)

    def _align(self, snapshot: Snapshot, heartbeat: Heartbeat, now: float) -> None:
        """The snapshot's place in the feed is reached: its heartbeat is here, or that is lost."""
        self._snapshot = None
        self._expect(snapshot.positions, now)
        if heartbeat.sequence == snapshot.next_heartbeat:  # and so tells of all that began since the snapshot
            alive = {(p.call, p.stream) for p in (*snapshot.positions, *heartbeat.positions)}
            self._order.end_all_but(alive, heartbeat.sequence)

    def _expect(self, positions: Iterable[Position], now: float) -> None:
        for position in positions:
            if not self._wanted or position.call in self._wanted or position.call == NONE:
                self._order.expect(position.call, position.stream, position.sequence, now)
