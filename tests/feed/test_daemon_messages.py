"""Messages about the daemon itself: a late joiner knows the model and misses nothing."""

from pathlib import Path

import msgspec
from scripted_feed import call, model_change

from serstream.feed.coding import decode, encode
from serstream.feed.memory import Memory
from serstream.feed.messages import NONE, ModelRefused, Position, ShadowReport
from serstream.feed.protocol import Snapshot, SnapshotRequest, reply_decoder
from serstream.feed.recording import calls
from serstream.feed.state import FeedState

CHANGE = model_change()
COMMON = {
    name: getattr(CHANGE, name)
    for name in ("source", "call", "stream", "role", "start", "end", "time", "model")
}
REFUSED = ModelRefused(**COMMON, sequence=1, candidate="tiny@2", reason="broken")
REPORT = ShadowReport(
    **COMMON,
    sequence=2,
    candidate="tiny@3",
    windows=10,
    skipped=0,
    agreement=0.9,
    confidence_shift=-0.1,
    latency_ms=1.5,
    emotions={"sad": 10},
)


def test_a_late_joiner_knows_the_model_and_where_the_daemon_is() -> None:
    memory = Memory(100, "json")
    for message in (CHANGE, REFUSED, REPORT):
        memory.add(message)
    head, *messages = memory.answer(SnapshotRequest())
    snapshot = reply_decoder.decode(head)
    assert isinstance(snapshot, Snapshot)
    assert snapshot.positions == (Position(NONE, NONE, 2),)
    assert [decode(message) for message in messages] == [CHANGE]


def test_they_make_no_call() -> None:
    state = FeedState()
    for message in (CHANGE, REFUSED, REPORT):
        state.update(message)
    assert state.calls == {}
    assert state.messages() == [CHANGE]


def test_they_make_no_call_of_a_recording(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"\n".join(encode(message) for message in (CHANGE, REFUSED, REPORT, *call("a"))))
    assert [found.name for found in calls(path)] == ["a"]


def test_they_survive_the_wire() -> None:
    for message in (CHANGE, REFUSED, REPORT):
        assert decode(msgspec.json.encode(message)) == message
