"""What one must know about the calls that are going on: the fold of the feed's messages.

The daemon keeps it to answer late joiners. A client that keeps one has the same as soon as it has applied
the messages of the daemon's snapshot.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from serstream.feed.messages import (
    NONE,
    STREAMS_NAMED,
    Alert,
    CallEnded,
    CallStarted,
    ComparisonReport,
    Event,
    FeedMessage,
    Gap,
    Heartbeat,
    Message,
    ModelChanged,
    ModelRefused,
    Mute,
    Position,
    StreamEnded,
    StreamStarted,
    UtteranceEmotion,
    WindowEmotion,
    WindowUnscored,
    first_ended,
)


@dataclass(slots=True)
class StreamState:
    """The last word of each kind about one stream."""

    started: StreamStarted | None = None
    window: WindowEmotion | None = None
    unscored: WindowUnscored | None = None
    utterance: UtteranceEmotion | None = None
    mute: Mute | None = None
    ended: StreamEnded | None = None
    alerts: dict[str, Alert] = field(default_factory=dict)
    """The raised ones, by rule."""
    sequence: int = -1
    """Of its last message."""

    def messages(self) -> Iterator[Message]:
        """What rebuilds this state, in any order."""
        for message in (self.started, self.window, self.unscored, self.utterance, self.mute, self.ended):
            if message is not None:
                yield message
        yield from self.alerts.values()


@dataclass(slots=True)
class CallState:
    """A call and its streams."""

    started: CallStarted | None = None
    streams: dict[str, StreamState] = field(default_factory=dict)
    ended: dict[str, StreamEnded] = field(default_factory=dict)
    """Of those of ``streams`` that are over; the last `STREAMS_NAMED` to end are kept."""


@dataclass(slots=True)
class FeedState:
    """All calls that are going on."""

    calls: dict[str, CallState] = field(default_factory=dict)
    model: ModelChanged | None = None
    sequence: int = -1
    """Of the daemon's own last message."""

    def update(self, message: Event) -> None:
        """Apply one message or gap; those of a stream in their order."""
        match message:
            case Heartbeat():
                pass
            case Gap(last=None):
                self.forget(message.call, message.stream)
            case Gap():
                pass
            case ModelChanged():
                self.model = message
                self.sequence = message.sequence
            case ModelRefused() | ComparisonReport():
                self.sequence = message.sequence
            case CallEnded():
                ended = self.calls[message.call].ended if message.call in self.calls else ()
                for stream in (*message.streams, *ended, NONE):
                    self.forget(message.call, stream)
            case CallStarted():
                self.calls.setdefault(message.call, CallState()).started = message
            case _:
                self._update_stream(message)

    def forget(self, call: str, stream: str) -> None:
        """Drop a stream of which nothing more will come, and its call when nothing of it goes on."""
        if state := self.calls.get(call):
            if stream == NONE:
                state.started = None
            state.streams.pop(stream, None)
            state.ended.pop(stream, None)
            if not state.started and len(state.ended) == len(state.streams):
                del self.calls[call]

    def messages(self, calls: frozenset[str] = frozenset()) -> list[Message]:
        """The fewest messages that rebuild the state of these calls (none named: of all), in order."""
        found: list[Message] = [] if self.model is None else [self.model]
        for name, call in self.calls.items():
            if calls and name not in calls:
                continue
            for stream in (NONE, *call.streams):
                found.extend(self.about(name, stream))
        return found

    def about(self, call: str, stream: str) -> list[Message]:
        """Those that rebuild the state of one stream, in order."""
        if call == NONE:
            return [self.model] if self.model else []
        known = self.calls.get(call)
        if known is None:
            return []
        if stream == NONE:
            return [known.started] if known.started else []
        return sorted(known.streams[stream].messages(), key=_sequence) if stream in known.streams else []

    def positions(self) -> Iterator[Position]:
        """How far every stream has come, the calls' own messages included."""
        if self.sequence >= 0:
            yield Position(NONE, NONE, self.sequence)
        for name, call in self.calls.items():
            if call.started:
                yield Position(name, NONE, call.started.sequence)
            for stream, state in call.streams.items():
                yield Position(name, stream, state.sequence)

    def _update_stream(self, message: FeedMessage) -> None:
        if (call := self.calls.get(message.call)) is None:
            call = self.calls[message.call] = CallState()
        if isinstance(message, StreamStarted):
            call.ended.pop(message.stream, None)
            call.streams[message.stream] = StreamState(started=message, sequence=message.sequence)
            return
        if (stream := call.streams.get(message.stream)) is None:
            stream = call.streams[message.stream] = StreamState()
        stream.sequence = message.sequence
        match message:
            case WindowEmotion():
                stream.window = message
            case WindowUnscored():
                stream.unscored = message
            case UtteranceEmotion():
                stream.utterance = message
            case StreamEnded():
                stream.ended = message
                call.ended[message.stream] = message
                if len(call.ended) > STREAMS_NAMED:
                    self.forget(message.call, first_ended(call.ended.values()))
            case Alert(state="raised"):
                stream.alerts[message.rule] = message
            case Alert():
                stream.alerts.pop(message.rule, None)
            case Mute():
                stream.mute = message


def _sequence(message: Message) -> int:
    return message.sequence
