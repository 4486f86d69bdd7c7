"""A message as the two frames of the feed, topic and payload, and back; also one of a newer schema."""

from __future__ import annotations

from contextlib import suppress
from typing import Literal, TypeAlias

import msgspec

from serstream.errors import UNDECODABLE, FeedError
from serstream.feed.messages import SCHEMA, TYPES, Count, Event, Message

Format: TypeAlias = Literal["json", "msgpack"]


class NewerMessage(msgspec.Struct, frozen=True, gc=False):
    """A message of a type that a newer minor version has added: it keeps its place in the order, unseen."""

    call: str
    stream: str
    sequence: Count


Decoded: TypeAlias = Message | NewerMessage
"""What `decode` reads."""


class _Version(msgspec.Struct):
    schema: str = ""
    type: str = ""


_json_encoder, _msgpack_encoder = msgspec.json.Encoder(), msgspec.msgpack.Encoder()
_json_decoder, _msgpack_decoder = msgspec.json.Decoder(Message), msgspec.msgpack.Decoder(Message)


def encode(message: Event, format: Format = "json") -> bytes:
    """The message as JSON or msgpack."""
    return (_json_encoder if format == "json" else _msgpack_encoder).encode(message)


def decode(payload: bytes, format: Format = "json") -> Decoded:
    """Read a message; unknown fields are ignored.

    Raises:
        FeedError: not a message, a missing field, a type that neither this version nor a newer minor one
            knows, or another major version of the schema.
    """
    try:
        message: Message = (_json_decoder if format == "json" else _msgpack_decoder).decode(payload)
    except UNDECODABLE as error:
        return _decode_newer(payload, format, error)
    if message.schema != SCHEMA:
        _check_major(message.schema)
    return message


def topic(message: Message) -> bytes:
    """Frame 1 of the message: ``emotion.<call>.<stream>.<type>``."""
    return f"emotion.{message.call}.{message.stream}.{message.type}".encode()


def _decode_newer(payload: bytes, format: Format, error: Exception) -> NewerMessage:
    """What cannot be decoded, if that is because it is of a newer minor version."""
    read = msgspec.json.decode if format == "json" else msgspec.msgpack.decode
    try:
        version = read(payload, type=_Version)
        _check_major(version.schema)
        if version.type not in TYPES and _minor(version.schema) > _minor(SCHEMA):
            return read(payload, type=NewerMessage)
    except UNDECODABLE:
        pass  # not even that: the first error says more
    raise FeedError(f"message {payload[:80]!r}: {error}") from error


def _minor(schema: str) -> int:
    with suppress(ValueError):  # what is no number, or one of thousands of digits
        return int(schema.partition(".")[2])
    return 0


def _check_major(schema: str) -> None:
    if schema and schema.partition(".")[0] != SCHEMA.partition(".")[0]:
        raise FeedError(
            f"message of schema {schema!r}, this serstream reads {SCHEMA.partition('.')[0]}.x; "
            "install a serstream of the daemon's version"
        )
