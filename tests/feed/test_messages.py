import json
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from scripted_feed import Script, call, model_change

from serstream.errors import FeedError
from serstream.feed import asyncapi
from serstream.feed.coding import Format, NewerMessage, decode, encode, topic
from serstream.feed.messages import SCHEMA, TYPES, Gap, Message, began_at, rfc3339, utc_of

DOCUMENT = Path(__file__).parents[2] / "docs" / "asyncapi.json"


@pytest.mark.parametrize("format", ["json", "msgpack"])
def test_what_is_encoded_is_decoded(format: Format) -> None:
    for message in (*call("a"), model_change()):
        assert decode(encode(message, format), format) == message


def test_every_message_carries_the_common_fields() -> None:
    common = {
        "schema",
        "type",
        "source",
        "call",
        "stream",
        "role",
        "sequence",
        "start",
        "end",
        "time",
        "model",
    }
    for message in (*call("a"), model_change()):
        assert common <= set(json.loads(encode(message)))


def test_json_and_cloudevents_names() -> None:
    fields = json.loads(encode(Script("a", "s").window(2.0, "angry")))
    assert fields["type"] == "window"
    assert fields["source"] == "rtp:5004"
    assert fields["time"] == "2026-01-01T00:00:02.000Z"


def test_topics_end_with_the_type() -> None:
    assert topic(Script("a", "s").window(2.0, "angry")) == b"emotion.a.s.window"
    assert topic(model_change()) == b"emotion.-.-.model_change"


def test_an_old_client_ignores_what_a_newer_minor_version_added() -> None:
    message = Script("a", "s").window(2.0, "angry")
    newer = json.loads(encode(message)) | {"schema": "1.9", "pitch_hz": 210.0}
    read = decode(json.dumps(newer).encode())
    assert msgspec.structs.replace(read, schema=SCHEMA) == message


@pytest.mark.parametrize("encoding", [msgspec.json, msgspec.msgpack])
def test_a_type_that_a_newer_minor_version_added_is_told_from_a_wrong_one(encoding: Any) -> None:
    newer = {"schema": "1.10", "type": "weather", "call": "a", "stream": "s", "sequence": 7, "sky": "grey"}
    format: Format = "json" if encoding is msgspec.json else "msgpack"
    assert decode(encoding.encode(newer), format) == NewerMessage("a", "s", 7)
    for wrong in (
        {"schema": SCHEMA},
        {"schema": "1.x"},
        {"schema": f"1.{'9' * 5000}"},
        {"type": "window"},
        {"sequence": "seven"},
    ):
        with pytest.raises(FeedError):
            decode(encoding.encode(newer | wrong), format)


def test_a_newer_major_version_is_refused_with_what_to_do() -> None:
    newer = json.loads(encode(Script("a", "s").window(2.0, "angry"))) | {"schema": "2.0"}
    for fields in (newer, {"schema": "2.0", "type": "window", "all": "different"}):
        with pytest.raises(FeedError, match=r"schema '2\.0', this serstream reads 1\.x; install a serstream"):
            decode(json.dumps(fields).encode())


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"confidence": 1.5}, "confidence"),
        ({"sequence": -1}, "sequence"),
        ({"role": "boss"}, "role"),
        ({"type": "weather"}, "weather"),
    ],
)
def test_a_bad_value_is_named(change: dict[str, object], complaint: str) -> None:
    fields = json.loads(encode(Script("a", "s").window(2.0, "angry"))) | change
    with pytest.raises(FeedError, match=complaint):
        decode(json.dumps(fields).encode())


@pytest.mark.parametrize("format", ["json", "msgpack"])
def test_a_message_that_is_not_utf8_is_named(format: Format) -> None:
    payload = encode(Script("cafe", "s").started(), format).replace(b"cafe", b"caf\xe9")
    with pytest.raises(FeedError, match=r"message b'.*utf-8"):
        decode(payload, format)


def test_a_gap_can_be_written_as_a_line() -> None:
    assert json.loads(encode(Gap(call="a", stream="s", first=3, last=None)))["type"] == "gap"


def test_time_is_rfc_3339_with_milliseconds() -> None:
    assert rfc3339(1_767_225_600.1239) == "2026-01-01T00:00:00.123Z"


def test_the_asyncapi_file_is_what_the_structs_say() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert json.loads(text) == json.loads(json.dumps(asyncapi.document())), (
        "run: python -m serstream.feed.asyncapi > docs/asyncapi.json"
    )


def test_the_asyncapi_file_explains_the_fields_and_which_are_always_there() -> None:
    schemas = asyncapi.document()["components"]["schemas"]
    for message in (*call("a"), model_change()):
        schema = schemas[type(message).__name__]
        assert set(schema["required"]) == set(json.loads(encode(message)))
        assert "from 0" in schema["properties"]["sequence"]["description"]
    assert schemas["SnapshotRequest"]["required"] == ["request"]


def test_every_reference_of_the_asyncapi_file_leads_somewhere() -> None:
    document = asyncapi.document()

    def references(node: object) -> list[str]:
        if isinstance(node, dict):
            own = [node["$ref"]] if "$ref" in node else []
            return own + [ref for child in node.values() for ref in references(child)]
        return [ref for child in node for ref in references(child)] if isinstance(node, list) else []

    for reference in references(document):
        node: object = document
        for step in reference.removeprefix("#/").split("/"):
            assert isinstance(node, dict), reference
            node = node[step]
    assert (
        set(document["channels"]["events"]["messages"])
        == set(TYPES)
        == {m.__struct_config__.tag for m in get_args(Message)}
    )


@pytest.mark.parametrize("time", ["noon", "2026-11-22T11:00:00", "", "0000-01-01T00:00:00Z"])
def test_a_time_that_is_none_is_named(time: str) -> None:
    message = msgspec.structs.replace(Script("a", "a-c").started(), time=time)
    with pytest.raises(FeedError, match=f"stream 'a-c' of call 'a': time is '{time}', wanted UTC"):
        utc_of(message)


def test_a_stream_cannot_have_begun_before_1970() -> None:
    message = msgspec.structs.replace(Script("a", "a-c").started(), end=1e300)
    with pytest.raises(FeedError, match=r"end is 1e\+300 s, which began before 1970"):
        began_at(message)


def test_a_stream_may_have_begun_with_1970() -> None:
    message = msgspec.structs.replace(Script("a", "a-c").started(), end=1.2345, time=rfc3339(1.2345))
    assert began_at(message) == 0.0
