"""Recorded events: the JSON lines that ``serstream listen`` and ``serstream replay`` print."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from serstream.errors import UNDECODABLE, FeedError, readable
from serstream.feed.coding import NewerMessage, decode
from serstream.feed.messages import (
    NONE,
    Alert,
    CallEnded,
    CallStarted,
    Event,
    FeedMessage,
    Gap,
    Message,
    Mute,
    StreamEnded,
    StreamStarted,
    UtteranceEmotion,
    WindowEmotion,
    began_at,
)
from serstream.types import Role

logger = logging.getLogger(__name__)

_WANTED = "wanted the JSON lines of 'serstream listen' or 'serstream replay'"
_event_decoder = msgspec.json.Decoder(Event)


def read(path: Path) -> Iterator[Message]:
    """The messages of a recording, in its order.

    Left out are the gaps that a subscriber noted, types that a newer minor version has added, and, with a
    warning, a last line that was cut off.

    Raises:
        FeedError: the file cannot be read, or a whole line is not a message; names the line.
    """
    name = f"recording {readable(path)}"
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                try:
                    message = decode(line)
                except FeedError as error:
                    if _is_gap(line):
                        continue
                    if not line.endswith(b"\n"):
                        logger.warning("%s, line %s: cut off, left out: %s", name, number, error)
                        return
                    raise FeedError(f"{name}, line {number}: {error}; {_WANTED}") from error
                if not isinstance(message, NewerMessage):
                    yield message
    except OSError as error:
        raise FeedError(f"{name}: cannot read it: {error.strerror}; {_WANTED}") from error


def _is_gap(line: bytes) -> bool:
    with suppress(*UNDECODABLE):
        return isinstance(_event_decoder.decode(line), Gap)
    return False


@dataclass(slots=True, eq=False)
class Party:
    """What a recording says about one stream of a call."""

    stream: str
    role: Role
    source: str
    began: float
    """Seconds since the Unix epoch at which its stream time begins."""
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


@dataclass(slots=True, eq=False)
class Call:
    """What a recording says about one call."""

    name: str
    began: float
    """Seconds since the Unix epoch at which its first stream began: where call time begins."""
    parties: dict[str, Party] = field(default_factory=dict)
    model: str = ""
    summary: CallEnded | None = None

    @property
    def seconds(self) -> float:
        """How long it lasted, as far as is recorded."""
        return max((self.offset(party) + party.end for party in self.parties.values()), default=0.0)

    def offset(self, party: Party) -> float:
        """When a party came, in call seconds: what makes call seconds of its stream seconds."""
        return round(party.began - self.began, 3)


def calls(path: Path) -> list[Call]:
    """The calls of a recording, in the order in which they began.

    Raises:
        FeedError: see `follow`.
    """
    found: dict[Call, None] = {}
    for call, party, message in follow(path):
        found[call] = None
        match message:
            case WindowEmotion() if party:
                party.windows.append(message)
            case UtteranceEmotion() if party:
                party.utterances.append(message)
            case Alert() if party:
                party.alerts.append(message)
            case Mute() if party:
                party.mutes.append(message)
            case StreamEnded() if party:
                party.summary = message
    return list(found)


def follow(path: Path) -> Iterator[tuple[Call, Party | None, Message]]:
    """The messages about calls, each with its call and, unless it is about the call itself, its party.

    The parties have no messages: whoever wants them keeps them. A name that is used again is another call.

    Raises:
        FeedError: see `read`; or a message's time is none.
    """
    current: dict[str, Call] = {}
    for message in read(path):
        if message.call == NONE:
            continue
        call = current.get(message.call)
        if call is None or _begins_anew(call, message):
            call = current[message.call] = Call(message.call, began_at(message))
        call.model = message.model or call.model
        if isinstance(message, CallEnded):
            call.summary = message
        party = None
        if message.stream != NONE:
            if (party := call.parties.get(message.stream)) is None:
                party = Party(message.stream, message.role, message.source, began_at(message))
                call.parties[message.stream] = party
                call.began = min(call.began, party.began)
            party.end = max(party.end, message.end)
        yield call, party, message


def _begins_anew(call: Call, message: FeedMessage) -> bool:
    """Whether the name is used again, after the call's end or by a daemon that was started anew."""
    if isinstance(message, StreamStarted):
        return call.summary is not None or message.stream in call.parties
    return call.summary is not None or isinstance(message, CallStarted)
