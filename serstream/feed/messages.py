"""The messages of the feed: one schema, from the tracker to the subscriber.

Every message says which stream of which call it is about, its place in that stream's count, when, and by
which model. Times are seconds of stream time unless they are called UTC. Attribute names ``source``, ``type``
and ``time`` are CloudEvents 1.0's.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated, Literal, TypeAlias, TypedDict, get_args

import msgspec
from msgspec import Meta

from serstream.errors import FeedError
from serstream.types import EndReason, Role, Severity

SCHEMA = "1.1"
"""major.minor; a new minor only adds fields and types, a new major may change them."""

NONE = "-"
"""``stream`` of a message about a whole call; ``call`` and ``stream`` of one about the daemon."""

STREAMS_NAMED = 100
"""Streams that are over which a call remembers; see `first_ended`."""

UnscoredReason: TypeAlias = Literal["loss", "clipping", "level", "speech", "role", "overload"]

Count = Annotated[int, Meta(ge=0)]
Seconds = Annotated[float, Meta(ge=0)]
Share = Annotated[float, Meta(ge=0, le=1)]
Distribution: TypeAlias = dict[str, Share]
"""Label to probability over all labels of the model, sum 1."""


class QualityReport(msgspec.Struct, frozen=True, kw_only=True):
    """How far a window can be trusted; see `serstream.types.Quality`."""

    loss: Share
    clipping: Share
    level_dbfs: float
    speech: Share


class _Typed(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    @property
    def type(self) -> str:
        """As in `TYPES`, or ``gap``; the last part of the topic."""
        return str(self.__struct_config__.tag)


class FeedMessage(_Typed, frozen=True, kw_only=True):
    """What every message carries."""

    schema: str = SCHEMA
    """major.minor"""
    source: str
    """Where the sound comes from, e.g. ``rtp:5004``; ``serstream`` for the daemon itself."""
    call: str
    """``-`` when the message is about the daemon."""
    stream: str
    """``-`` when the message is about a whole call, or the daemon."""
    role: Role
    """``unknown`` when the message is not about one stream."""
    sequence: Count
    """Counts the messages of this (call, stream) from 0; a gap is a loss. A call's own messages count on into
    the next call of its name. Heartbeats have a count of their own."""
    start: Seconds
    """Stream time at which what is described began; call time or daemon time when no stream is meant."""
    end: Seconds
    """The same clock, when it ended."""
    time: str
    """UTC of ``end``, RFC 3339."""
    model: str
    """``name@version`` of the model that scores the stream; of the active one when no stream is meant."""


class Header(TypedDict):
    """What every `FeedMessage` wants, from whoever numbers its stream: ``Mute(**header, state="muted")``."""

    source: str
    call: str
    stream: str
    role: Role
    sequence: int
    start: float
    end: float
    time: str
    model: str


def daemon_header(sequence: int, age: float, utc: float, model: str) -> Header:
    """Of a message about the daemon itself.

    Args:
        sequence: in the count that it belongs to.
        age: of the daemon, in seconds.
        utc: seconds since the Unix epoch.
        model: ``name@version`` of the active one.
    """
    return {
        "source": "serstream",
        "call": NONE,
        "stream": NONE,
        "role": "unknown",
        "sequence": sequence,
        "start": age,
        "end": age,
        "time": rfc3339(utc),
        "model": model,
    }


class CallStarted(FeedMessage, frozen=True, kw_only=True, tag="call_start"):
    """The first stream of a call appeared."""


class StreamStarted(FeedMessage, frozen=True, kw_only=True, tag="stream_start"):
    """A stream appeared; its first message."""


class WindowEmotion(FeedMessage, frozen=True, kw_only=True, tag="window"):
    """Scores of one speech window."""

    utterance: Count
    """Number of the utterance in its stream, from 0."""
    final: bool
    """Cut at the end of its utterance. Most utterances end too soon after a window to have one of these:
    ``utterance`` tells the end."""
    probabilities: Distribution
    """Calibrated scores of this window alone."""
    emotion: str
    """Their winner."""
    confidence: Share
    """The winner's probability."""
    smoothed: Distribution
    """Exponentially smoothed over the speech of the stream."""
    smoothed_emotion: str
    arousal: Annotated[float, Meta(ge=-1, le=1)]
    """Of ``smoothed``; see `serstream.emotion.affect`."""
    valence: Annotated[float, Meta(ge=-1, le=1)]
    quality: QualityReport
    speech_s: Seconds
    """Seconds of speech in the stream so far."""
    lost_s: Seconds
    """Seconds of sound of the stream that were never received so far."""


class WindowUnscored(FeedMessage, frozen=True, kw_only=True, tag="unscored"):
    """A speech window that was not scored, and why."""

    utterance: Count
    final: bool
    reason: UnscoredReason
    """What was too bad to judge; ``role``: streams of this role are not analysed; ``overload``: shed."""
    quality: QualityReport
    speech_s: Seconds
    lost_s: Seconds


class UtteranceEmotion(FeedMessage, frozen=True, kw_only=True, tag="utterance"):
    """Result of a whole utterance: the mean over its scored windows."""

    utterance: Count
    windows: Count
    """How many windows were scored."""
    probabilities: Distribution
    emotion: str
    confidence: Share
    arousal: Annotated[float, Meta(ge=-1, le=1)]
    """Of ``probabilities``."""
    valence: Annotated[float, Meta(ge=-1, le=1)]


class Alert(FeedMessage, frozen=True, kw_only=True, tag="alert"):
    """A rule of the configuration was met, or is no longer; ``start`` is when its condition began to hold.

    A stream's end clears its alerts without a message: subscribe to ``stream_end`` and ``gap``, too.
    """

    rule: str
    """Name of the rule."""
    state: Literal["raised", "cleared"]
    severity: Severity
    emotions: tuple[str, ...]
    """The labels whose smoothed probabilities are added up."""
    probability: Share
    """Their sum at ``end``."""
    threshold: Share


class Mute(FeedMessage, frozen=True, kw_only=True, tag="mute"):
    """There is no time to hear a stream, or there is again: from ``start`` to ``end`` it was not heard.

    A stream is muted when there are more than the machine bears. What is said meanwhile is in no window, and
    raised alerts stay as they were. The end of a stream ends its muting.
    """

    state: Literal["muted", "heard"]


class StreamEnded(FeedMessage, frozen=True, kw_only=True, tag="stream_end"):
    """A stream is over: its summary; its last message."""

    reason: EndReason
    utterances: Count
    windows: Count
    """Scored windows."""
    unscored: Count
    speech_s: Seconds
    lost_s: Seconds
    muted_s: Seconds = 0.0
    """Seconds during which there was no time to hear it."""
    emotions_s: dict[str, Seconds]
    """Seconds of utterances per emotion; short pauses within them count."""


class CallEnded(FeedMessage, frozen=True, kw_only=True, tag="call_end"):
    """The last stream of a call is over: the call's summary."""

    streams: dict[str, Role]
    """The last 100 to end; a call of more names no others: each had a summary of its own (``stream_end``)."""
    emotions_s: dict[str, dict[str, Seconds]]
    """Per stream of ``streams``: seconds of utterances per emotion."""
    alerts: Count
    """How many alerts were raised, by all of its streams."""


class ModelChanged(FeedMessage, frozen=True, kw_only=True, tag="model_change"):
    """From here on ``model`` scores the windows, on the first of ``providers``."""

    previous: str
    """``name@version``; empty at start-up, ``model`` itself when it has moved to another device."""
    labels: tuple[str, ...] = ()
    """What it tells apart; another model may know more or fewer."""
    providers: tuple[str, ...] = ()
    """ONNX Runtime execution providers that its session really uses, best first."""


class ModelRefused(FeedMessage, frozen=True, kw_only=True, tag="model_refused"):
    """A model must not become, or no longer be, active, shadow or canary; ``model`` goes on."""

    candidate: str
    """``name@version``."""
    reason: str


class ComparisonReport(FeedMessage, frozen=True, kw_only=True):
    """How a candidate compares with the active model on the same windows, since both are what they are."""

    candidate: str
    """``name@version``."""
    windows: Count
    """Compared."""
    agreement: Share
    """Share of windows with the same winner."""
    confidence_shift: Annotated[float, Meta(ge=-1, le=1)]
    """Mean confidence of the candidate minus that of the active model."""
    latency_ms: Annotated[float, Meta(ge=0)]
    """Mean time that the candidate takes for a window."""
    emotions: dict[str, Count]
    """How often each label won with the candidate."""


class ShadowReport(ComparisonReport, frozen=True, kw_only=True, tag="shadow"):
    """The candidate is only compared: none of its scores is in any other message."""

    skipped: Count
    """Windows not compared because the candidate was too slow."""


class CanaryReport(ComparisonReport, frozen=True, kw_only=True, tag="canary"):
    """The candidate scores a share of the calls; their messages name it as their model."""

    share: Share
    """Of the calls that begin."""
    calls: Count
    """That it has scored or scores."""
    errors: Count
    """Windows that it failed on, and that the active model scored instead."""


class Position(msgspec.Struct, frozen=True, array_like=True):
    """How far a stream has come."""

    call: str
    stream: str
    sequence: Count
    """Of its last message."""


class Heartbeat(FeedMessage, frozen=True, kw_only=True, tag="heartbeat"):
    """The feed lives."""

    interval_s: Annotated[float, Meta(gt=0)]
    """Seconds until the next one."""
    positions: tuple[Position, ...]
    """Of every stream with a message since the heartbeat before, so that the loss of a last message shows."""


Message: TypeAlias = (
    CallStarted
    | StreamStarted
    | WindowEmotion
    | WindowUnscored
    | UtteranceEmotion
    | Alert
    | Mute
    | StreamEnded
    | CallEnded
    | ModelChanged
    | ModelRefused
    | ShadowReport
    | CanaryReport
    | Heartbeat
)


class Gap(_Typed, frozen=True, kw_only=True, tag="gap"):
    """Never published: what a subscriber gets in place of messages that are lost for good."""

    call: str
    stream: str
    first: Count
    """Sequence number of the first lost message."""
    last: Count | None
    """Of the last one; None: the stream is gone, and how far it had come is not known."""


Event: TypeAlias = Message | Gap
"""What a subscription yields."""


TYPES: dict[str, type[FeedMessage]] = {}
"""``type`` to struct."""
for _struct in get_args(Message):
    TYPES[str(_struct.__struct_config__.tag)] = _struct


def first_ended(ends: Iterable[StreamEnded]) -> str:
    """The stream that its call forgets: one party may stay for weeks while thousands of others come and go.

    In whatever order their ends are told, the same streams are left, so that a late joiner knows all that the
    call's end will name.
    """
    return min((end.time, end.stream) for end in ends)[1]


def rfc3339(utc: float) -> str:
    """Seconds since the Unix epoch as ``FeedMessage.time`` has them, to the millisecond."""
    return datetime.fromtimestamp(utc, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def utc_of(message: FeedMessage) -> float:
    """When a message ended, in seconds since the Unix epoch.

    Raises:
        FeedError: its time is none.
    """
    with suppress(ValueError, OverflowError):
        time = datetime.fromisoformat(message.time)
        if time.tzinfo is not None:
            return time.timestamp()
    raise FeedError(f"{_described(message)}: time is {message.time!r}, wanted UTC as of RFC 3339")


def began_at(message: FeedMessage) -> float:
    """When the clock of its ``start`` and ``end`` began, in seconds since the Unix epoch.

    Raises:
        FeedError: its time is none, or that was before 1970.
    """
    then = utc_of(message) - message.end
    if then < -0.001:  # to which ``time`` is cut
        raise FeedError(f"{_described(message)}: end is {message.end:g} s, which began before 1970")
    return max(0.0, then)


def _described(message: FeedMessage) -> str:
    return f"message {message.sequence} of stream {message.stream!r} of call {message.call!r}"
