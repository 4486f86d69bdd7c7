"""The thinking half of a subscriber: puts messages in order, notices gaps and has them repaired.

No socket and no clock: it takes frames and ``now``, and leaves events and requests to be fetched. How loss is
noticed: within a stream by its sequence numbers; at a stream's end by the positions in the heartbeats; after
a cut connection by a missing heartbeat or another feed name, which makes it ask for a snapshot.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import msgspec

from serstream.errors import FeedError
from serstream.feed.messages import (
    NONE,
    CallEnded,
    Event,
    Format,
    Gap,
    Heartbeat,
    Message,
    StreamEnded,
    decode,
    is_known,
)
from serstream.feed.protocol import (
    REPLY_LIMIT,
    Missed,
    MissedRequest,
    Reply,
    Request,
    Snapshot,
    SnapshotRequest,
    read_header,
    reply_decoder,
)

logger = logging.getLogger(__name__)

Key = tuple[str, str]
"""(call, stream)."""

REPLY_TIMEOUT_S = 2.0
ATTEMPTS = 3
"""How often missed messages are asked for before the gap is given up."""
HELD_LIMIT = 20_000
"""Messages held back while gaps are repaired; beyond it the oldest repair is given up."""
ENDED_LIMIT = 100_000
"""Streams whose end is remembered, so that late copies of their messages are known for what they are."""


@dataclass(slots=True)
class _Repair:
    last: int
    """Sequence number of the last message known to exist."""
    joining: bool = False
    """The stream began before this inbox did: what the history has forgotten is no loss."""
    asked_at: float = 0.0
    attempts: int = 0


@dataclass(slots=True)
class _Call:
    """What is known of a call. A repair of one stream holds back all its messages: its end stays last."""

    next: dict[str, int] = field(default_factory=dict)
    """Per stream that is not over: sequence number of the message whose turn it is."""
    repairs: dict[str, _Repair] = field(default_factory=dict)
    held: list[Message] = field(default_factory=list)
    seen: dict[str, int] = field(default_factory=dict)
    """Per stream: the last sequence number in ``held``."""


@dataclass(frozen=True, slots=True)
class _End:
    """A stream is over."""

    position: int
    """Behind its last message."""
    copies_until: float
    """A first message until then is a copy that was on its way; later the name is used again."""


class Inbox:
    """Messages of one feed, in order.

    Args:
        calls: only these; none named: all.
        history: ask for the messages of calls that had begun before, as far as the daemon keeps them.
        repair: ask for missed messages; if not, a gap is reported at once.
    """

    def __init__(self, calls: Iterable[str] = (), *, history: bool = False, repair: bool = True):
        self.events: deque[Event] = deque()
        """Ready for the reader, oldest first."""
        self.requests: deque[Request] = deque()
        """To be sent to the snapshot endpoint."""
        self._polled_at = 0.0
        self.heard_at: float | None = None
        """When anything last arrived."""
        self.repaired = 0
        """Messages that were missed and came after all."""
        self.lost = 0
        """Messages that are lost for good, as far as they can be counted."""
        self._wanted = frozenset(calls)
        self._history = history
        self._repair = repair
        self._interval_s = 1.0
        self._calls: dict[str, _Call] = {}
        self._ended: dict[Key, _End] = {}
        """Streams that are over, oldest first."""
        self._feed = ""
        self._header = b""
        """Frame 2 as it came last; reading it anew for each message would cost more than the message."""
        self._format: Format = "json"
        self._joined = False
        """Whether there was a snapshot of this feed: from then on every message is owed to the reader."""
        self._heartbeat: int | None = None
        self._asked_at: float | None = None
        """When the snapshot that is awaited was asked for."""
        self._asked = 0
        """How often in vain; after `ATTEMPTS` messages do not wait for it any more."""
        self._awaiting: list[Message] = []
        """What came before the snapshot."""
        self._n_held = 0

    def is_stale(self, now: float) -> bool:
        """Whether the feed has been silent for longer than two of its heartbeats."""
        return self.heard_at is None or now - self.heard_at > 2.5 * self._interval_s

    def arrived(self, frames: Sequence[bytes], now: float) -> None:
        """Take one published message.

        Raises:
            FeedError: not a serstream feed, or a schema of another major version.
        """
        if len(frames) != 3:
            raise FeedError(f"message of {len(frames)} frames, wanted 3; is this a serstream feed?")
        topic, header, body = frames
        format = self._open(header, now)
        if not is_known(topic):
            logger.debug("feed: message type of a newer minor version: %s", topic)
            return
        message = decode(body, format)
        if self._asked_at is None or self._asked > ATTEMPTS:
            self._take(message, now)
        else:
            self._awaiting.append(message)
            self._count_held(1, now)

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
        except msgspec.MsgspecError as error:
            raise FeedError(f"reply {frames[1][:60]!r}: {error}") from error
        messages = [decode(body, format) for body in frames[2:]]
        if isinstance(reply, Missed):
            self._mend(reply, messages, now)
        elif self._asked_at is not None:  # else it was asked for twice
            self._apply(reply, messages, now)

    def poll(self, now: float) -> None:
        """Ask again for what was not answered in time, and in the end do without it.

        Between two calls at most one heartbeat's interval counts as silence: to a process that was stopped or
        busy for longer, what the feed said meanwhile is still on its way.
        """
        if self.heard_at is not None:
            self.heard_at += max(0.0, now - self._polled_at - self._interval_s)
        self._polled_at = now
        if self._asked_at is None:
            if self.is_stale(now):
                self._ask(now)
        elif now - self._asked_at > REPLY_TIMEOUT_S:
            if self._asked == ATTEMPTS and not self.is_stale(now):
                logger.warning("feed: the snapshot endpoint does not answer; going on without what it knows")
            self._ask(now)
            if self._asked > ATTEMPTS:
                self._release(now)
        for name, call in list(self._calls.items()):
            for stream, repair in list(call.repairs.items()):
                if now - repair.asked_at > REPLY_TIMEOUT_S:
                    self._request(name, stream, repair, now)

    def _open(self, header: bytes, now: float) -> Format:
        """Note who speaks. Another feed name: the daemon was started anew, all counts begin again."""
        self.heard_at = now
        if header == self._header:
            return self._format
        format, feed = read_header(header)
        self._header, self._format = header, format
        if feed != self._feed:
            for name, call in self._calls.items():
                for stream, position in call.next.items():
                    self._lose(name, stream, position, None)
            self._calls.clear()
            self._ended.clear()
            self._awaiting.clear()
            self._n_held = 0
            self._feed, self._joined = feed, False
            self._heartbeat = None
            self._asked = 0
            self._ask(now)
        return format

    def _ask(self, now: float) -> None:
        self._asked_at = now
        self._asked += 1
        self.requests.append(SnapshotRequest(tuple(self._wanted)))

    def _apply(self, snapshot: Snapshot, messages: list[Message], now: float) -> None:
        """Have repaired what is behind the snapshot, join what is new, forget what is gone."""
        positions = {(p.call, p.stream): p.sequence for p in snapshot.positions}
        for name, call in list(self._calls.items()):
            for stream in call.next.keys() - {stream for of, stream in positions if of == name}:
                self._lose(name, stream, call.next.pop(stream), None)
                call.repairs.pop(stream, None)
        new: dict[Key, list[Message]] = {}
        for message in messages:
            if self._position(message.call, message.stream) is None:
                new.setdefault((message.call, message.stream), []).append(message)
        known = set(self._calls)
        for (name, stream), last in positions.items():
            state = new.get((name, stream), [])
            if self._joined or name in known or (name, stream) in self._ended:
                self._expect(name, stream, last, now)
            elif state and self._history and self._repair:
                self._start_repair(name, stream, _Repair(last, joining=True), now)
            elif state:
                self.events.extend(state)
                if isinstance(state[-1], StreamEnded):
                    self._remember_end(name, stream, _End(last + 1, now + REPLY_TIMEOUT_S))
                else:
                    self._call(name).next[stream] = last + 1
            else:
                self._remember_end(name, stream, _End(last + 1, now + REPLY_TIMEOUT_S))
        self._joined = True
        self._heartbeat = snapshot.next_heartbeat - 1
        for name, call in list(self._calls.items()):
            self._settle(name, call, now)
        self._asked_at, self._asked = None, 0
        self._release(now)

    def _release(self, now: float) -> None:
        """Take what waited for the snapshot."""
        awaiting, self._awaiting = self._awaiting, []
        self._n_held -= len(awaiting)
        for message in awaiting:
            self._take(message, now)

    def _take(self, message: Message, now: float) -> None:
        if not isinstance(message, Heartbeat):
            if isinstance(message, CallEnded):
                self._expect_ends(message, now)
            self._sort(message, now)
            return
        self._interval_s = message.interval_s
        self.events.append(message)
        if self._heartbeat is not None and message.sequence > self._heartbeat + 1:
            self._ask(now)
        self._heartbeat = max(message.sequence, self._heartbeat or 0)
        for position in message.positions:
            if not self._wanted or position.call in self._wanted or position.call == NONE:
                self._expect(position.call, position.stream, position.sequence, now)

    def _sort(self, message: Message, now: float) -> None:
        """Deliver a message whose turn it is; drop a copy; hold back one that comes too early."""
        if message.sequence == 0:
            end = self._ended.get((message.call, message.stream))
            if end and now >= end.copies_until:
                del self._ended[message.call, message.stream]
        position = self._position(message.call, message.stream) or 0
        if message.sequence < position:
            return
        if message.sequence > position:
            self._expect(message.call, message.stream, message.sequence - 1, now)
        call = self._call(message.call)
        if not call.repairs:
            self._deliver(message)
            return
        self._hold(call, message, now)

    def _hold(self, call: _Call, message: Message, now: float) -> None:
        call.held.append(message)
        call.seen[message.stream] = message.sequence
        self._count_held(1, now)

    def _expect(self, name: str, stream: str, last: int, now: float) -> None:
        """The message with this sequence number exists: if it is not here, have it repaired."""
        position = self._position(name, stream) or 0
        call = self._call(name)
        if last < position or last <= call.seen.get(stream, -1):
            return
        if not self._repair:
            self._lose(name, stream, position, last)
            call.next[stream] = last + 1
        elif repair := call.repairs.get(stream):
            repair.last = max(repair.last, last)
        else:
            self._start_repair(name, stream, _Repair(last), now)

    def _expect_ends(self, message: CallEnded, now: float) -> None:
        """A call ends after its streams: one whose end is not here has lost it."""
        call = self._call(message.call)
        here = {held.stream for held in call.held if isinstance(held, StreamEnded)}
        for stream in message.streams.keys() - here:
            if (message.call, stream) not in self._ended:
                position = max(self._position(message.call, stream) or 0, call.seen.get(stream, -1) + 1)
                self._expect(message.call, stream, position, now)

    def _start_repair(self, name: str, stream: str, repair: _Repair, now: float) -> None:
        self._call(name).repairs[stream] = repair
        self._request(name, stream, repair, now)

    def _request(self, name: str, stream: str, repair: _Repair, now: float) -> None:
        if repair.attempts >= ATTEMPTS:
            self._give_up(name, stream, now)
            return
        repair.attempts += 1
        repair.asked_at = now
        self.requests.append(MissedRequest(name, stream, self._position(name, stream) or 0))

    def _mend(self, reply: Missed, messages: list[Message], now: float) -> None:
        call = self._calls.get(reply.call)
        repair = call.repairs.get(reply.stream) if call else None
        if call is None or repair is None:
            return  # given up meanwhile
        position = self._position(reply.call, reply.stream) or 0
        if reply.first > position and not repair.joining:
            self._lose(reply.call, reply.stream, position, reply.first - 1)
        for message in messages:
            if message.sequence < position:
                continue
            self.repaired += 1
            if isinstance(message, CallEnded) and len(call.repairs) > 1:
                self._hold(call, message, now)  # a call ends after its streams
            else:
                self._deliver(message)
        behind = max([reply.first, *(message.sequence + 1 for message in messages)])
        if behind <= position:
            self._give_up(reply.call, reply.stream, now)
        elif behind <= repair.last or len(messages) >= REPLY_LIMIT:
            repair.attempts = 0
            self._request(reply.call, reply.stream, repair, now)
        else:
            del call.repairs[reply.stream]
            if (reply.call, reply.stream) not in self._ended:
                call.next[reply.stream] = max(call.next.get(reply.stream, 0), reply.first)
            self._settle(reply.call, call, now)

    def _give_up(self, name: str, stream: str, now: float) -> None:
        call = self._calls[name]
        repair = call.repairs.pop(stream)
        position = self._position(name, stream) or 0
        if position <= repair.last:
            if not repair.joining:
                self._lose(name, stream, position, repair.last)
            call.next[stream] = repair.last + 1
        self._settle(name, call, now)

    def _settle(self, name: str, call: _Call, now: float) -> None:
        """When nothing of the call is missing any more, let go of what was held back."""
        if call.repairs:
            return
        held, call.held = call.held, []
        call.seen.clear()
        self._n_held -= len(held)
        for message in held:
            if message.sequence >= (self._position(message.call, message.stream) or 0):
                self._sort(message, now)
        if not (call.next or call.repairs):
            self._calls.pop(name, None)

    def _count_held(self, n: int, now: float) -> None:
        """Bound what is held back: give up what it waits for, the gaps will show."""
        self._n_held += n
        if self._n_held <= HELD_LIMIT:
            return
        for name, call in list(self._calls.items()):
            for stream in list(call.repairs):
                self._give_up(name, stream, now)
        self._release(now)

    def _deliver(self, message: Message) -> None:
        self.events.append(message)
        call = self._call(message.call)
        call.next[message.stream] = message.sequence + 1
        if isinstance(message, StreamEnded):
            self._remember_end(message.call, message.stream, _End(message.sequence + 1, 0.0))
        elif isinstance(message, CallEnded):
            for stream, position in list(call.next.items()):
                self._remember_end(message.call, stream, _End(position, 0.0))
            if not call.repairs:
                self._calls.pop(message.call, None)

    def _lose(self, call: str, stream: str, first: int, last: int | None) -> None:
        self.lost += 0 if last is None else last - first + 1
        self.events.append(Gap(call=call, stream=stream, first=first, last=last))

    def _call(self, name: str) -> _Call:
        if (call := self._calls.get(name)) is None:
            call = self._calls[name] = _Call()
        return call

    def _position(self, call: str, stream: str) -> int | None:
        """Sequence number of the stream's next message; None: the stream is not known."""
        known = self._calls.get(call)
        if known and stream in known.next:
            return known.next[stream]
        end = self._ended.get((call, stream))
        return end.position if end else None

    def _remember_end(self, call: str, stream: str, end: _End) -> None:
        if known := self._calls.get(call):
            known.next.pop(stream, None)
        self._ended[call, stream] = end
        if len(self._ended) > ENDED_LIMIT:
            del self._ended[next(iter(self._ended))]
