"""A publisher's memory and an inbox with a channel between them that loses, cuts and delays."""

from collections import deque

from serstream.feed.coding import encode, topic
from serstream.feed.inbox import Inbox
from serstream.feed.memory import Memory
from serstream.feed.messages import NONE, Event, Gap, Heartbeat, Message
from serstream.feed.protocol import header
from serstream.feed.state import FeedState

HEADER = header("json", "feed-1")


class Feed:
    """A daemon without sockets, and a channel to one inbox."""

    def __init__(self, inbox: Inbox, history: int = 10_000, name: str = "feed-1"):
        self.inbox = inbox
        self.memory = Memory(history, "json")
        self.now = 0.0
        self.header = header("json", name)
        self.received: list[Event] = []
        self._under_way: deque[list[bytes]] = deque()
        self.is_slow = False
        """What is published stays under way, and replies overtake it."""

    def slow_down(self, is_slow: bool) -> None:
        """From now on, or no longer."""
        self.is_slow = is_slow
        self._arrive()

    def publish(self, message: Message, arrives: bool = True) -> None:
        body = self.memory.add(message)
        if arrives:
            self._under_way.append([topic(message), self.header, body])
        self._arrive()

    def beat(self, arrives: bool = True) -> None:
        sequence, positions = self.memory.beat()
        heartbeat = Heartbeat(
            source="serstream",
            call=NONE,
            stream=NONE,
            role="unknown",
            sequence=sequence,
            start=self.now,
            end=self.now,
            time="2026-01-01T00:00:00.000Z",
            model="m@1",
            interval_s=1.0,
            positions=positions,
        )
        if arrives:
            self._under_way.append([topic(heartbeat), self.header, encode(heartbeat)])
        self._arrive()

    def answer(self, arrives: bool = True) -> None:
        """Answer until there is nothing more to ask."""
        while self.inbox.requests:
            reply = self.memory.answer(self.inbox.requests.popleft())
            if arrives:
                self.inbox.replied([self.header, *reply], self.now)
        self.read()

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.inbox.poll(self.now)
        self.read()

    def read(self) -> None:
        self.received += [event for event in self.inbox.events if not isinstance(event, Heartbeat)]
        self.inbox.events.clear()

    def _arrive(self) -> None:
        while self._under_way and not self.is_slow:
            self.inbox.arrived(self._under_way.popleft(), self.now)
        self.read()

    def state(self) -> FeedState:
        state = FeedState()
        for event in self.received:
            state.update(event)
        return state


def same(received: list[Event], messages: list[Message]) -> bool:
    """The same messages in any order, none twice."""

    def order(event: Event) -> tuple[str, str, int]:
        assert not isinstance(event, Gap)
        return event.call, event.stream, event.sequence

    return sorted(received, key=order) == sorted(messages, key=order)


def joined(inbox: Inbox | None = None, **options: int) -> Feed:
    """A feed whose inbox has its snapshot."""
    feed = Feed(inbox or Inbox(), **options)
    feed.beat()
    feed.answer()
    return feed
