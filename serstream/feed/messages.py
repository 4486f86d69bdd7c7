"""The messages of the feed: one schema, from the tracker to the subscriber.

Times are seconds of stream time unless they are called UTC. Attribute names ``source``, ``type`` and ``time``
are CloudEvents 1.0's.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

from serstream.errors import FeedError
from serstream.types import EndReason, Role

SCHEMA = "1.0"
"""major.minor; a new minor only adds fields, a new major may change them."""


class QualityReport(msgspec.Struct, frozen=True, kw_only=True):
    """How far a window can be trusted; see `serstream.types.Quality`."""

    loss: float
    clipping: float
    level_dbfs: float
    speech: float


class StreamMessage(msgspec.Struct, frozen=True, kw_only=True):
    """What every message about a stream carries."""

    schema: str = SCHEMA
    source: str
    """Where the sound came from, e.g. ``rtp:5004``."""
    stream: str
    call: str
    role: Role
    sequence: Annotated[int, Meta(ge=0)]
    """Counts the stream's messages from 0; a gap is a loss."""
    start: float
    """Seconds of stream time at which what is described began."""
    end: float
    """Seconds of stream time at which it ended."""
    time: str
    """UTC of ``end``, RFC 3339."""


class StreamStarted(StreamMessage, frozen=True, kw_only=True, tag_field="type", tag="stream_start"):
    """A stream appeared."""


class WindowEmotion(StreamMessage, frozen=True, kw_only=True, tag_field="type", tag="window"):
    """Scores of one speech window."""

    model: str
    """``name@version`` that scored it."""
    utterance: int
    final: bool
    """Last window of its utterance."""
    probabilities: dict[str, float]
    """Calibrated, over all labels of the model."""
    emotion: str
    """Winner of this window alone."""
    confidence: float
    smoothed: dict[str, float]
    """Exponentially smoothed over the stream."""
    smoothed_emotion: str
    quality: QualityReport


class WindowUnscored(StreamMessage, frozen=True, kw_only=True, tag_field="type", tag="unscored"):
    """A speech window that was not scored, and why."""

    utterance: int
    final: bool
    reason: Literal["loss", "clipping", "level", "speech"]
    quality: QualityReport


class UtteranceEmotion(StreamMessage, frozen=True, kw_only=True, tag_field="type", tag="utterance"):
    """Result of a whole utterance: the mean over its scored windows."""

    model: str
    utterance: int
    windows: int
    probabilities: dict[str, float]
    emotion: str
    confidence: float


class StreamEnded(StreamMessage, frozen=True, kw_only=True, tag_field="type", tag="stream_end"):
    """A stream is over: its summary."""

    reason: EndReason
    utterances: int
    windows: int
    unscored: int
    speech_s: float
    """Seconds of speech."""
    lost_s: float
    """Seconds of sound that were never received."""
    emotions_s: dict[str, float]
    """Seconds of speech per emotion, by utterance."""


class CallEnded(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="call_end"):
    """The last stream of a call is over."""

    schema: str = SCHEMA
    source: str
    call: str
    time: str
    streams: dict[str, Role]
    duration_s: float
    emotions_s: dict[str, dict[str, float]]
    """Per stream: seconds of speech per emotion."""


Message: TypeAlias = (
    StreamStarted | WindowEmotion | WindowUnscored | UtteranceEmotion | StreamEnded | CallEnded
)

_decoder = msgspec.json.Decoder(Message)


def encode(message: Message) -> bytes:
    """The message as JSON."""
    return msgspec.json.encode(message)


def decode(payload: bytes) -> Message:
    """Read a message; unknown fields are ignored.

    Raises:
        FeedError: not JSON, an unknown type or a missing field.
    """
    try:
        message: Message = _decoder.decode(payload)
        return message
    except msgspec.MsgspecError as error:
        raise FeedError(f"message {payload[:80]!r}: {error}") from error
