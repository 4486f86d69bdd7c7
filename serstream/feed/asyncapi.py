"""The feed as an AsyncAPI 3.0 document, generated from the structs: ``python -m serstream.feed.asyncapi``.

AsyncAPI has no binding for ZeroMQ; the envelope stands in the channels' descriptions.
"""

from __future__ import annotations

import ast
import inspect
import json
from itertools import pairwise
from typing import Any, get_args

import msgspec

from serstream.config import FeedSettings
from serstream.feed.messages import SCHEMA, Message
from serstream.feed.protocol import Missed, MissedRequest, Snapshot, SnapshotRequest, snapshot_endpoint

_SCHEMAS = "#/components/schemas/"


def document() -> dict[str, Any]:
    """The whole document, ready for JSON."""
    published: list[type[msgspec.Struct]] = list(get_args(Message))
    requests: list[type[msgspec.Struct]] = [SnapshotRequest, MissedRequest]
    replies: list[type[msgspec.Struct]] = [Snapshot, Missed]
    structs = [*published, *requests, *replies]
    _, schemas = msgspec.json.schema_components(structs, ref_template=_SCHEMAS + "{name}")
    for struct in structs:
        _describe(schemas[struct.__name__], struct)
        if struct not in requests:  # the daemon leaves no field out, a client may
            schemas[struct.__name__]["required"] = list(schemas[struct.__name__]["properties"])
    endpoint = FeedSettings().endpoint
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "serstream emotion feed",
            "version": SCHEMA,
            "description": "What the serstream daemon publishes over ZeroMQ; docs/feed.md explains it.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "feed": _server(endpoint, "PUB socket: messages."),
            "snapshot": _server(snapshot_endpoint(endpoint), "ROUTER socket: state and missed messages."),
        },
        "channels": {
            "events": {
                "address": "emotion.{call}.{stream}.{type}",
                "description": "Three frames: topic (this address); content type and feed, for example "
                "'application/json; feed=3f2a90c1d4e5'; the message. Subscribe to a prefix of the topic.",
                "servers": [{"$ref": "#/servers/feed"}],
                "parameters": {
                    "call": {"description": "Id of the call; '-' in messages about the daemon."},
                    "stream": {"description": "Id of the stream; '-' in messages about a whole call."},
                    "type": {"enum": [_tag(struct) for struct in published]},
                },
                "messages": {_tag(struct): _message(struct) for struct in published},
            },
            "requests": {
                "address": None,
                "description": "One JSON frame from a DEALER socket.",
                "servers": [{"$ref": "#/servers/snapshot"}],
                "messages": {_tag(struct): _message(struct) for struct in requests},
            },
            "replies": {
                "address": None,
                "description": "Frames: content type and feed, as in events; this message as JSON; then one "
                "frame for each message of the feed that is sent again.",
                "servers": [{"$ref": "#/servers/snapshot"}],
                "messages": {_tag(struct): _message(struct) for struct in replies},
            },
        },
        "operations": {
            "publish": {"action": "send", "channel": {"$ref": "#/channels/events"}},
            "answer": {
                "action": "receive",
                "channel": {"$ref": "#/channels/requests"},
                "reply": {"channel": {"$ref": "#/channels/replies"}},
            },
        },
        "components": {"schemas": schemas},
    }


def _server(endpoint: str, description: str) -> dict[str, str]:
    protocol, _, host = endpoint.partition("://")
    return {"host": host, "protocol": f"zmq+{protocol}", "description": description}


def _describe(schema: dict[str, Any], struct: type[msgspec.Struct]) -> None:
    """Give the fields their docstrings, which are in the source only."""
    for cls in reversed(struct.__mro__):
        if not cls.__module__.startswith("serstream."):
            continue
        module = ast.parse(inspect.getsource(cls))
        body = [
            line
            for definition in module.body
            if isinstance(definition, ast.ClassDef)
            for line in definition.body
        ]
        for line, following in pairwise(body):
            match line, following:
                case ast.AnnAssign(target=ast.Name(name)), ast.Expr(ast.Constant(str(text))):
                    schema["properties"][name]["description"] = " ".join(text.split())


def _tag(struct: type[msgspec.Struct]) -> str:
    return str(struct.__struct_config__.tag)


def _message(struct: type[msgspec.Struct]) -> dict[str, Any]:
    summary = (struct.__doc__ or "").partition("\n")[0]
    return {"name": _tag(struct), "summary": summary, "payload": {"$ref": _SCHEMAS + struct.__name__}}


if __name__ == "__main__":
    print(json.dumps(document(), indent=2, ensure_ascii=False))
