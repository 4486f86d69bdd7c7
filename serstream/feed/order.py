"""Messages of the streams of a feed, each stream's in order: gaps are noticed, repaired, in the end given up.

Within a stream a gap shows in the sequence numbers; at its end somebody who knows the last one says so
(`Order.expect`).
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Sequence, Set
from dataclasses import dataclass, field

from serstream.feed.coding import Decoded, NewerMessage
from serstream.feed.messages import NONE, CallEnded, CallStarted, Event, Gap, Position, StreamEnded
from serstream.feed.protocol import REPLY_LIMIT, Missed, MissedRequest, Request

Key = tuple[str, str]
"""(call, stream)."""

REPLY_TIMEOUT_S = 2.0
ATTEMPTS = 3
"""How often missed messages are asked for before the gap is given up."""
ENDED_LIMIT = 100_000
"""Streams whose end is remembered, so that late copies of their messages are known for what they are."""


@dataclass(slots=True)
class _Repair:
    last: int
    """Sequence number of the last message known to exist."""
    joining: bool = False
    """The stream began before this reader did: what the history has forgotten is no loss."""
    asked_at: float = 0.0
    attempts: int = 0
    gone_by: int | None = None
    """See `Missed`: what is not here by that heartbeat is lost."""


@dataclass(slots=True)
class _Call:
    """What is known of a call. A repair of one stream holds back all its messages: its end stays last."""

    next: dict[str, int] = field(default_factory=dict)
    """Per stream that is not over: sequence number of the message whose turn it is."""
    repairs: dict[str, _Repair] = field(default_factory=dict)
    held: list[Decoded] = field(default_factory=list)
    seen: dict[str, int] = field(default_factory=dict)
    """Per stream: the last sequence number in ``held``."""


@dataclass(frozen=True, slots=True)
class _End:
    """A stream is over."""

    position: int
    """Behind its last message."""
    copies_until: float
    """A first message until then is a copy that was on its way; later the name is used again."""


class Order:
    """Takes messages as they come, leaves events and requests to be fetched.

    Args:
        history: ask for the messages of calls that had begun before, as far as the daemon keeps them; only
            with ``repair``.
        repair: ask for missed messages; if not, a gap is reported at once.
    """

    def __init__(self, *, history: bool, repair: bool):
        self.events: deque[Event] = deque()
        """Ready for the reader, oldest first."""
        self.requests: deque[Request] = deque()
        """To be sent to the snapshot endpoint."""
        self.repaired = 0
        """Messages that were missed and came after all."""
        self.lost = 0
        """Messages that are lost for good, as far as they can be counted."""
        self.n_held = 0
        """Messages held back while gaps are repaired."""
        self._history = history
        self._repair = repair
        self._calls: dict[str, _Call] = {}
        self._ended: dict[Key, _End] = {}
        """Streams that are over, oldest first."""

    def take(self, message: Decoded, now: float) -> None:
        """A message came."""
        if isinstance(message, CallEnded):
            self._expect_ends(message, now)
        self._sort(message, now)

    def forget(self) -> None:
        """All counts begin again; what was going on is lost."""
        for name, call in self._calls.items():
            for stream, position in call.next.items():
                self._lose(name, stream, position, None)
        self._calls.clear()
        self._ended.clear()
        self.n_held = 0

    def join(self, snapshot: Sequence[Position], messages: list[Decoded], now: float) -> None:
        """Begin with the calls of which nothing has come yet.

        Args:
            snapshot: how far every stream has come.
            messages: rebuild the state.
            now: in seconds.
        """
        states: dict[Key, list[Decoded]] = {}
        for message in messages:
            states.setdefault((message.call, message.stream), []).append(message)
        known = set(self._calls)
        for name, stream, last in ((p.call, p.stream, p.sequence) for p in snapshot):
            state = states.get((name, stream), [])
            if name in known or (name, stream) in self._ended:
                continue
            if state and self._history:
                self._start_repair(name, stream, _Repair(last, joining=True), now)
            elif state:
                self.events.extend(message for message in state if not isinstance(message, NewerMessage))
                if isinstance(state[-1], StreamEnded):
                    self._remember_end(name, stream, _End(last + 1, now + REPLY_TIMEOUT_S))
                else:
                    self._call(name).next[stream] = last + 1
            else:
                self._remember_end(name, stream, _End(last + 1, now + REPLY_TIMEOUT_S))

    def end_all_but(self, alive: Set[Key], heartbeat: int) -> None:
        """Streams that are none of these are over; their ends, if not here, are lost by that heartbeat."""
        for name, call in list(self._calls.items()):
            here = _held_ends(call)
            for stream in dict.fromkeys([*call.next, *call.repairs, *call.seen]):
                if (name, stream) not in alive and stream not in here:
                    repair = call.repairs.setdefault(stream, _Repair(-1))
                    repair.last = max(repair.last, call.seen.get(stream, -1))
                    repair.gone_by = heartbeat

    def expect(self, name: str, stream: str, last: int, now: float) -> None:
        """The message with this sequence number exists: if it is not here, have it repaired."""
        position = self._position(name, stream) or 0
        known = self._calls.get(name)
        if last < position or (known and last <= known.seen.get(stream, -1)):
            return
        if not self._repair:
            self._lose(name, stream, position, last)
            self._pass(name, stream, last + 1)
        elif known and (repair := known.repairs.get(stream)):
            repair.last = max(repair.last, last)
        else:
            self._start_repair(name, stream, _Repair(last), now)

    def mend(self, reply: Missed, messages: list[Decoded], now: float) -> None:
        """What was asked for came."""
        call = self._calls.get(reply.call)
        repair = call.repairs.get(reply.stream) if call else None
        if call is None or repair is None:
            return  # given up meanwhile
        if reply.gone_by is not None and call.seen.get(reply.stream, -1) <= repair.last:
            repair.gone_by = reply.gone_by  # what comes behind the loss may still be on its way
            return
        position = self._position(reply.call, reply.stream) or 0
        if reply.first > position and reply.stream != NONE:  # the history no longer has what may be held here
            held = [message for message in call.held if message.stream == reply.stream]
            here = {message.sequence: message for message in (*held, *messages)}
            messages = [here[sequence] for sequence in sorted(here)]
        expected = position
        holds = False
        for message in messages:
            if message.sequence < position:
                continue
            if message.sequence > expected and not repair.joining:
                self._lose(reply.call, reply.stream, expected, message.sequence - 1)
            expected = message.sequence + 1
            self.repaired += 1
            if isinstance(message, CallEnded):
                self._expect_ends(message, now)  # a reply may overtake what was published before it
                holds = holds or len(call.repairs) > 1 or bool(call.held)
            if holds:  # from the call's end on: behind it the next call of that name begins
                self._hold(call, message)
            else:
                self._deliver(message)
        if reply.first > expected and not repair.joining:
            self._lose(reply.call, reply.stream, expected, reply.first - 1)
        behind = max(reply.first, expected)
        if behind <= position:
            self._give_up(reply.call, reply.stream, now)
        elif behind <= repair.last or len(messages) >= REPLY_LIMIT:
            repair.attempts = 0
            self._request(reply.call, reply.stream, repair, now)
        else:
            del call.repairs[reply.stream]
            if (self._position(reply.call, reply.stream) or 0) < reply.first:
                self._pass(reply.call, reply.stream, reply.first)
            for message in [held for held in call.held if isinstance(held, CallEnded)]:
                self._expect_ends(message, now)  # the end may have been lost since this was asked for
            self._settle(reply.call, call, now)

    def ask_again(self, now: float) -> None:
        """Ask again for what was not answered in time, and in the end do without it."""
        for name, call in list(self._calls.items()):
            for stream, repair in list(call.repairs.items()):
                if repair.gone_by is None and now - repair.asked_at > REPLY_TIMEOUT_S:
                    self._request(name, stream, repair, now)

    def passed(self, heartbeat: int, now: float) -> None:
        """All that was published before this heartbeat has come or is lost."""
        for name, call in list(self._calls.items()):
            gone = [s for s, r in call.repairs.items() if r.gone_by is not None and r.gone_by <= heartbeat]
            for stream in sorted(gone, key=lambda stream: stream == NONE):
                if stream != NONE or len(call.repairs) == 1:  # a call ends after its streams
                    self._give_up(name, stream, now)

    def give_up(self, now: float) -> None:
        """Wait for nothing any more: the gaps will show."""
        for name, call in list(self._calls.items()):
            for stream in list(call.repairs):
                self._give_up(name, stream, now)

    def _sort(self, message: Decoded, now: float) -> None:
        """Deliver a message whose turn it is; drop a copy; hold back one that comes too early."""
        if message.sequence == 0:
            end = self._ended.get((message.call, message.stream))
            if end and now >= end.copies_until:
                del self._ended[message.call, message.stream]
        position = self._position(message.call, message.stream) or 0
        if message.sequence < position:
            return
        if message.sequence > position:
            self.expect(message.call, message.stream, message.sequence - 1, now)
        call = self._call(message.call)
        if not call.repairs:
            self._deliver(message)
            return
        self._hold(call, message)

    def _hold(self, call: _Call, message: Decoded) -> None:
        call.held.append(message)
        call.seen[message.stream] = message.sequence
        self.n_held += 1

    def _expect_ends(self, message: CallEnded, now: float) -> None:
        """A call ends after its streams: one whose end is not here has lost it."""
        call = self._call(message.call)
        for stream in message.streams.keys() - _held_ends(call):
            if (message.call, stream) not in self._ended:
                position = max(self._position(message.call, stream) or 0, call.seen.get(stream, -1) + 1)
                self.expect(message.call, stream, position, now)

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

    def _give_up(self, name: str, stream: str, now: float) -> None:
        call = self._calls[name]
        repair = call.repairs.pop(stream)
        position = self._position(name, stream) or 0
        is_owed = position > 0 or not repair.joining
        holds_more = call.seen.get(stream, -1) > repair.last
        is_open = stream in call.next or (position <= repair.last and not self._is_over(name, stream))
        if repair.gone_by is not None and is_open and not holds_more:
            self._remember_end(name, stream, _End(max(position, repair.last + 1), 0.0))
            if stream == NONE:
                self._settle(name, call, now)  # a call ends after its streams
            if is_owed:
                self._lose(name, stream, position, None)
        elif position <= repair.last:
            if is_owed:
                self._lose(name, stream, position, repair.last)
            self._pass(name, stream, repair.last + 1)
        self._settle(name, call, now)

    def _settle(self, name: str, call: _Call, now: float) -> None:
        """When nothing of the call is missing any more, let go of what was held back."""
        if call.repairs:
            return
        held, call.held = call.held, []
        call.seen.clear()
        self.n_held -= len(held)
        for message in _one_call_after_another(held):
            if message.sequence >= (self._position(message.call, message.stream) or 0):
                self._sort(message, now)
        if self._calls.get(name) is call and not (call.next or call.repairs):
            del self._calls[name]

    def _deliver(self, message: Decoded) -> None:
        if not isinstance(message, NewerMessage):
            self.events.append(message)
        call = self._call(message.call)
        call.next[message.stream] = message.sequence + 1
        if isinstance(message, StreamEnded):
            self._remember_end(message.call, message.stream, _End(message.sequence + 1, 0.0))
        elif isinstance(message, CallEnded):
            if not self._repair:  # nothing is held back: what is still open has lost its end
                for stream in call.next.keys() - {NONE, *message.streams}:
                    self._lose(message.call, stream, call.next[stream], None)
                    self._remember_end(message.call, stream, _End(sys.maxsize, 0.0))
            for stream in call.next.keys() & {NONE, *message.streams}:
                self._remember_end(message.call, stream, _End(call.next[stream], 0.0))
            if not (call.next or call.repairs):
                self._calls.pop(message.call, None)

    def _lose(self, call: str, stream: str, first: int, last: int | None) -> None:
        self.lost += 0 if last is None else last - first + 1
        self.events.append(Gap(call=call, stream=stream, first=first, last=last))

    def _pass(self, name: str, stream: str, position: int) -> None:
        """Go on behind a loss."""
        if self._is_over(name, stream):
            self._remember_end(name, stream, _End(position, 0.0))
        else:
            self._call(name).next[stream] = position

    def _is_over(self, name: str, stream: str) -> bool:
        """A stream that is over stays so; a call's own count goes on with the name."""
        return stream != NONE and (name, stream) in self._ended

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


def _held_ends(call: _Call) -> set[str]:
    """Streams whose end is held back; `NONE` if the call's is."""
    return {held.stream for held in call.held if isinstance(held, StreamEnded | CallEnded)}


def _one_call_after_another(held: list[Decoded]) -> list[Decoded]:
    """What was held back while one call ended and the next of its name began, as may have been published."""
    counted = {message.sequence: message for message in held if isinstance(message, CallEnded)}
    ends = [counted[sequence] for sequence in sorted(counted)]

    def place(message: Decoded) -> tuple[int, int]:
        if message.stream == NONE:
            before = sum(end.sequence < message.sequence for end in ends)
        else:
            before = next((i for i, end in enumerate(ends) if message.stream in end.streams), len(ends))
        return before, isinstance(message, CallEnded) - isinstance(message, CallStarted)

    return sorted(held, key=place) if ends else held
