import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from msgspec import structs
from scripted_feed import EPOCH, LABELS, Script, call

from serstream.errors import FeedError
from serstream.feed import emotionml
from serstream.feed.coding import encode
from serstream.feed.messages import Gap, Message, UtteranceEmotion
from serstream.feed.recording import calls, read
from serstream.view.report import write_reports

EMO = f"{{{emotionml.NAMESPACE}}}"


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "events.jsonl"
    lines = [encode(message) for message in (*call("a", windows=40), *call("b", windows=8))]
    lines.insert(3, encode(Gap(call="a", stream="a-c", first=1, last=2)))
    path.write_bytes(b"\n".join(lines) + b"\n\n")
    return path


def test_a_recording_is_read_back(recording: Path) -> None:
    assert list(read(recording)) == [*call("a", windows=40), *call("b", windows=8)]


def test_a_gap_is_left_out_however_it_is_written(recording: Path) -> None:
    gap = {"last": None, "first": 3, "stream": "a-c", "call": "a", "type": "gap"}
    with recording.open("a") as file:
        file.write(f" {json.dumps(gap)}\n")
    assert list(read(recording)) == [*call("a", windows=40), *call("b", windows=8)]


def test_a_last_line_that_was_cut_off_is_left_out_with_a_warning(
    recording: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """That is what a full disk or a power loss leaves."""
    whole = recording.read_bytes()
    messages = list(read(recording))
    number = whole.count(b"\n") + 1
    last = encode(Script("c", "c-ä").started())
    for length in range(1, len(last)):
        recording.write_bytes(whole + last[:length])
        caplog.clear()
        assert list(read(recording)) == messages
        (warning,) = caplog.messages
        assert f"events.jsonl, line {number}: cut off" in warning
    recording.write_bytes(whole + last)
    assert len(list(read(recording))) == len(messages) + 1


@pytest.mark.parametrize("line", [b"not json", b'{"type":"caf\xe9"}'])
def test_a_bad_line_is_named(recording: Path, line: bytes) -> None:
    with recording.open("ab") as file:
        file.write(line + b"\n")
    with pytest.raises(FeedError, match=rf"events\.jsonl, line \d+: message {re.escape(repr(line)[:-1])}"):
        list(read(recording))


def test_a_missing_recording_is_named(tmp_path: Path) -> None:
    with pytest.raises(FeedError, match=r"none\.jsonl: cannot read it: No such file"):
        list(read(tmp_path / "none.jsonl"))


def test_messages_are_sorted_into_calls_and_parties(recording: Path) -> None:
    a, b = calls(recording)
    assert (a.name, b.name) == ("a", "b")
    assert set(a.parties) == {"a-c", "a-a"}
    assert len(a.parties["a-c"].windows) == 40
    assert a.seconds == 81.0
    assert a.summary is not None


@pytest.mark.parametrize("order", [1, -1])
def test_a_call_lasts_from_its_first_stream_to_the_end_of_its_last(tmp_path: Path, order: int) -> None:
    path = tmp_path / "events.jsonl"
    customer, agent = Script("a", "c", began=60.5), Script("a", "g", "agent", began=360.5)
    told: list[Message] = [customer.ended(600), agent.ended(400)]
    path.write_bytes(b"\n".join(map(encode, told[::order])))
    (found,) = calls(path)
    assert found.began == EPOCH + 60.5
    assert {name: found.offset(party) for name, party in found.parties.items()} == {"c": 0.0, "g": 300.0}
    assert found.seconds == 700.0


def test_a_call_that_is_recorded_from_its_middle_on_begins_where_it_began(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(encode(Script("a", "c").window(300.0, "sad")))
    (found,) = calls(path)
    assert (found.began, found.seconds) == (EPOCH, 300.0)


def test_a_time_that_is_none_is_named(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(encode(structs.replace(Script("a", "c").utterance(2.0, 4.0, "sad"), time="noon")))
    for reader in (calls, emotionml.export):
        with pytest.raises(FeedError, match="message 0 of stream 'c' of call 'a': time is 'noon', wanted"):
            reader(path)


def test_a_name_that_is_used_again_is_another_call(recording: Path) -> None:
    """After its end, and where a daemon that was killed began anew."""
    lines = recording.read_bytes().splitlines()
    recording.write_bytes(b"\n".join([*lines, *lines[:10], *lines]))
    names = [found.name for found in calls(recording)]
    assert names == ["a", "b", "a", "a", "b"]
    assert [len(found.parties["a-c"].windows) for found in calls(recording) if found.name == "a"][::2] == [
        40,
        40,
    ]
    pages = write_reports(recording, recording.with_name("page.html"))
    assert [page.name for page in pages] == [f"page-{name}.html" for name in ("a", "b", "a-2", "a-3", "b-2")]


def test_emotionml_keeps_the_rules_of_its_schema(recording: Path) -> None:
    """EmotionML 1.0, sections 2 and 3, and the assertions of its test suite that apply to our elements."""
    root = ET.fromstring(emotionml.export(recording))
    assert root.tag == f"{EMO}emotionml"
    assert root.get("version") == "1.0"
    vocabularies = root.findall(f"{EMO}vocabulary")
    declared = {v.get("id"): {item.get("name") for item in v} for v in vocabularies}
    assert [v.get("type") for v in vocabularies] == ["category"]
    assert root.get("category-set") in {f"#{name}" for name in declared}
    emotions = root.findall(f"{EMO}emotion")
    assert [child.tag for child in root] == [f"{EMO}vocabulary"] + [f"{EMO}emotion"] * len(emotions)
    ids = [e.get("id") for e in root.iter() if e.get("id")]
    assert len(ids) == len(set(ids)), "xs:ID is unique in a document"
    for emotion in emotions:
        assert set(emotion.keys()) <= {"id", "start", "end", "expressed-through"}
        assert int(emotion.get("start", "")) < int(emotion.get("end", ""))
        assert emotion.get("expressed-through") == "voice"
        (info,) = emotion.findall(f"{EMO}info")
        assert all(child.tag.startswith("{") and not child.tag.startswith(EMO) for child in info)
        categories, dimensions = emotion.findall(f"{EMO}category"), emotion.findall(f"{EMO}dimension")
        assert {c.get("name") for c in categories} == declared["labels"] == set(LABELS)
        assert {d.get("name") for d in dimensions} == {"arousal", "valence"}, "of the FSRE dimensions"
        for element in (*categories, *dimensions):
            assert set(element.keys()) == {"name", "value"}
            assert 0 <= float(element.get("value", "")) <= 1


def test_emotionml_says_what_the_messages_say(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    utterance = Script("a", "a-c", began=300.0).utterance(2.0, 6.5, "sad", 0.75)
    path.write_bytes(encode(utterance))
    (emotion,) = ET.fromstring(emotionml.export(path)).findall(f"{EMO}emotion")
    assert int(emotion.get("start", "")) == (EPOCH + 302.0) * 1000
    assert int(emotion.get("end", "")) == (EPOCH + 306.5) * 1000
    values = {e.get("name"): float(e.get("value", "")) for e in emotion if e.get("value")}
    assert values["sad"] == 0.75
    assert values["valence"] == pytest.approx((utterance.valence + 1) / 2, abs=1e-4)


def test_what_xml_forbids_is_told_in_emotionml_by_its_number(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    utterance = Script("a\x1b\ufffe", "ä\t😀").utterance(2.0, 6.5, "sad")
    path.write_bytes(encode(structs.replace(utterance, probabilities={"s\0d": 1.0})))
    root = ET.fromstring(emotionml.export(path))
    texts = {element.text for element in root.iter()}
    assert {r"a\x1b\ufffe", "ä\t😀"} <= texts
    assert {element.get("name") for element in root.iter()} >= {r"s\x00d"}


def test_a_recording_without_utterances_is_an_empty_document(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"\n".join(encode(m) for m in call("a") if not isinstance(m, UtteranceEmotion)))
    assert not list(ET.fromstring(emotionml.export(path)))
