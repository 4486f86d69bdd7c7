"""The live view where there is no screen: a line per utterance, alert and muting, for logs and pipes."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console

from serstream.feed.messages import (
    NONE,
    Alert,
    CallEnded,
    Event,
    Gap,
    Mute,
    StreamEnded,
    StreamStarted,
    UtteranceEmotion,
    rfc3339,
)
from serstream.feed.silence import Silences
from serstream.view.emoji import face
from serstream.view.screen import mute_text, printable


class LineView:
    """Prints events. Feed it with ``update``; ``refresh`` looks after the feeds."""

    def __init__(self, console: Console):
        self.console = console
        self.silent: dict[str, float] = {}
        """Feeds that say nothing, and for how many seconds."""
        self.done = False
        """The user wants to leave."""
        self._silences = Silences()

    def __enter__(self) -> LineView:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def update(self, event: Event, now: float) -> None:
        """Take an event."""
        if line := plain_line(event):
            self._print(line)

    def press(self, key: str, now: float) -> None:
        """React to a key of `serstream.view.keyboard`."""
        self.done |= key == "q"

    def refresh(self, now: float) -> None:
        """Say which feeds have become silent, and which are heard again."""
        for line in self._silences.update(self.silent):
            self._print(_now(line))

    def _print(self, line: str) -> None:
        self.console.print(printable(line), markup=False, highlight=False, soft_wrap=True)


def plain_line(event: Event) -> str:
    """An event as one line of text; empty for those that a reader of a log would not miss."""
    match event:
        case StreamStarted():
            return f"{event.time} {event.call} {event.role}: began ({event.source})"
        case UtteranceEmotion():
            emoji = face(event.emotion)
            return (
                f"{event.time} {event.call} {event.role}: {emoji} {event.emotion} {event.confidence:.0%} "
                f"from {event.start:.1f} to {event.end:.1f} s"
            )
        case Alert():
            return f"{event.time} {event.call} {event.role}: {event.severity} {event.rule} {event.state}"
        case Mute():
            return f"{event.time} {event.call} {event.role}: {mute_text(event)}"
        case StreamEnded():
            return f"{event.time} {event.call} {event.role}: ended ({event.reason}) after {event.end:.1f} s"
        case CallEnded():
            return f"{event.time} {event.call}: call over"
        case Gap():
            return _now(_loss(event))
    return ""


def _now(line: str) -> str:
    """What no daemon has dated, with the time of this machine."""
    return f"{rfc3339(time.time())} {line}"


def _loss(gap: Gap) -> str:
    if gap.call == NONE:
        what = "the daemon"
    elif gap.stream == NONE:
        what = f"call {gap.call}"
    else:
        what = f"call {gap.call}, stream {gap.stream}"
    if gap.last is not None:
        return f"{what}: {gap.last - gap.first + 1} messages were lost"
    return "the daemon was restarted" if gap.call == NONE else f"{what}: its end was lost"
