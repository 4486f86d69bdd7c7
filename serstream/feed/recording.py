"""Recorded events: the JSON lines that ``serstream listen`` and ``serstream replay`` print."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from serstream.errors import FeedError
from serstream.feed.messages import (
    NONE,
    Alert,
    CallEnded,
    CallStarted,
    FeedMessage,
    Message,
    Mute,
    NewerMessage,
    StreamEnded,
    StreamStarted,
    UtteranceEmotion,
    WindowEmotion,
    decode,
)
from serstream.types import Role

_WANTED = "wanted the JSON lines of 'serstream listen' or 'serstream replay'"


def read(path: Path) -> Iterator[Message]:
    """The messages of a recording, in its order.

    Left out are the gaps that a subscriber noted, and types that a newer minor version has added.

    Raises:
        FeedError: the file cannot be read, or a line is not a message; names the line.
    """
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip() or line.startswith(b'{"type":"gap"'):
                    continue
                try:
                    message = decode(line)
                except FeedError as error:
                    raise FeedError(f"recording {path}, line {number}: {error}; {_WANTED}") from error
                if not isinstance(message, NewerMessage):
                    yield message
    except OSError as error:
        raise FeedError(f"recording {path}: cannot read it: {error.strerror}; {_WANTED}") from error


@dataclass(slots=True)
class Party:
    """What a recording says about one stream of a call."""

    stream: str
    role: Role
    source: str
    end: float = 0.0
    """Stream seconds."""
    windows: list[WindowEmotion] = field(default_factory=list)
    utterances: list[UtteranceEmotion] = field(default_factory=list)
    alerts: list[Alert] = field(default_factory=list)
    mutes: list[Mute] = field(default_factory=list)
    summary: StreamEnded | None = None

    @property
    def muted(self) -> list[tuple[float, float]]:
        """From when to when there was no time to hear it, in stream seconds."""
        spans = [(mute.start, mute.end) for mute in self.mutes if mute.state == "heard"]
        if self.mutes and self.mutes[-1].state == "muted":
            spans.append((self.mutes[-1].start, self.end))
        return spans


@dataclass(slots=True)
class Call:
    """What a recording says about one call."""

    name: str
    parties: dict[str, Party] = field(default_factory=dict)
    began: str = ""
    """UTC of its first message, RFC 3339."""
    model: str = ""
    summary: CallEnded | None = None

    @property
    def seconds(self) -> float:
        """How long it lasted, as far as is recorded."""
        return max((party.end for party in self.parties.values()), default=0.0)


def calls(path: Path) -> list[Call]:
    """The calls of a recording, in the order in which they began.

    Raises:
        FeedError: see `read`.
    """
    found: list[Call] = []
    current: dict[str, Call] = {}
    for message in read(path):
        if message.call == NONE:
            continue
        call = current.get(message.call)
        if call is None or _begins_anew(call, message):
            call = current[message.call] = Call(message.call, began=message.time)
            found.append(call)
        call.model = message.model or call.model
        if isinstance(message, CallEnded):
            call.summary = message
        if message.stream == NONE:
            continue
        party = call.parties.setdefault(message.stream, Party(message.stream, message.role, message.source))
        party.end = max(party.end, message.end)
        match message:
            case WindowEmotion():
                party.windows.append(message)
            case UtteranceEmotion():
                party.utterances.append(message)
            case Alert():
                party.alerts.append(message)
            case Mute():
                party.mutes.append(message)
            case StreamEnded():
                party.summary = message
    return found


def _begins_anew(call: Call, message: FeedMessage) -> bool:
    """Whether the name is used again, after the call's end or by a daemon that was started anew."""
    if isinstance(message, StreamStarted):
        return call.summary is not None or message.stream in call.parties
    return call.summary is not None or isinstance(message, CallStarted)
