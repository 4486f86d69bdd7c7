"""The inbox against a publisher's memory over a channel that loses, cuts and delays; no socket, no clock."""

import time
from collections import defaultdict

import pytest
from feed_channel import HEADER, Feed, joined, same
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_feed import Script, call, calls, model_change

from serstream.errors import FeedError
from serstream.feed.coding import encode, topic
from serstream.feed.inbox import HELD_LIMIT, Inbox
from serstream.feed.memory import Memory
from serstream.feed.messages import NONE, Gap, Message
from serstream.feed.order import ATTEMPTS, REPLY_TIMEOUT_S
from serstream.feed.protocol import SnapshotRequest


def test_what_arrives_in_order_is_delivered_at_once() -> None:
    feed = joined()
    messages = call("a")
    for message in messages:
        feed.publish(message)
    assert feed.received == messages
    assert not feed.inbox.requests


def test_a_lost_message_is_asked_for_and_delivered_in_its_place() -> None:
    feed = joined()
    messages = call("a")
    for i, message in enumerate(messages):
        feed.publish(message, arrives=i != 4)
    assert len(feed.received) < len(messages), "the call waits for the repair"
    feed.answer()
    assert feed.received[-1] == messages[-1]
    by_stream = defaultdict(list)
    for event in feed.received:
        by_stream[event.stream].append(event)
    for stream, received in by_stream.items():
        assert received == [m for m in messages if m.stream == stream]


def test_a_repair_holds_back_its_call_and_no_other() -> None:
    feed = joined()
    a, b = call("a"), call("b")
    for i, (one, other) in enumerate(zip(a, b, strict=True)):
        feed.publish(one, arrives=i != 4)
        feed.publish(other)
    assert [event for event in feed.received if event.call == "b"] == b


def test_the_loss_of_a_last_message_shows_in_the_heartbeat() -> None:
    feed = joined()
    messages = call("a")
    for message in messages[:-1]:
        feed.publish(message)
    feed.publish(messages[-1], arrives=False)
    assert feed.received == messages[:-1]
    feed.beat()
    feed.answer()
    assert feed.received == messages


def test_a_lost_heartbeat_leads_to_a_snapshot() -> None:
    feed = joined()
    messages = call("a")
    for message in messages[:5]:
        feed.publish(message)
    for message in (*messages[5:], *call("b")):
        feed.publish(message, arrives=False)
    feed.beat(arrives=False)
    feed.beat()
    feed.answer()
    feed.beat()
    feed.answer()
    assert same(feed.received, [*messages, *call("b")]), "a call that came and went meanwhile is told, too"
    assert feed.received[-1] == call("b")[-1]


def test_what_was_lost_before_a_snapshot_that_overtakes_the_backlog_is_told() -> None:
    feed = joined(history=3)
    lost = call("a")
    feed.beat(arrives=False)
    feed.beat()
    feed.slow_down(True)
    for message in lost[:5]:
        feed.publish(message)
    for message in (*lost[5:], *call("b")):
        feed.publish(message, arrives=False)
    feed.beat(arrives=False)
    feed.answer()
    feed.publish(begun := Script("c", "c-c").started())
    feed.beat()
    feed.slow_down(False)
    feed.answer()
    feed.beat()
    gone = {event.stream for event in feed.received if isinstance(event, Gap) and event.last is None}
    assert gone >= {NONE, "a-c", "a-a"}
    assert feed.received[:5] == lost[:5] and begun in feed.received
    assert feed.state() == feed.memory.state


def test_a_backlog_that_a_snapshot_overtakes_is_neither_asked_for_again_nor_told_to_be_lost() -> None:
    feed = joined(history=3)
    messages = call("a")
    feed.publish(messages[0])
    feed.beat(arrives=False)
    feed.beat()
    feed.slow_down(True)
    for message in (*messages[1:], *call("b")):
        feed.publish(message)
    feed.answer()
    feed.beat()
    feed.slow_down(False)
    assert feed.received == [*messages, *call("b")]
    assert not feed.inbox.requests


def test_a_snapshot_of_many_calls_takes_time_in_proportion_to_them() -> None:
    def align(n: int) -> float:
        feed = joined()
        for i in range(n):
            feed.publish(Script(f"{i}", f"{i}-c").started())
        feed.beat(arrives=False)
        feed.beat()
        began = time.process_time()
        feed.answer()
        return time.process_time() - began

    few, many = (min(align(n) for _ in range(3)) for n in (500, 5_000))
    assert many < 40 * few, "ten times as many, not a hundred times the work"


def test_silence_of_the_feed_is_told_from_a_stop_of_its_reader() -> None:
    stopped, silent = joined(), joined()
    stopped.wait(0.1)
    stopped.wait(60)
    assert not stopped.inbox.requests, "its backlog is still to be read"
    for _ in range(6):
        silent.wait(0.5)
    assert silent.inbox.is_stale(silent.now)
    assert silent.inbox.requests


def test_a_daemon_that_dies_before_the_first_poll_is_silent() -> None:
    feed = Feed(Inbox())
    feed.now = 1000.0
    feed.beat()
    for _ in range(6):
        feed.wait(0.5)
    assert feed.inbox.is_stale(feed.now)


def test_a_daemon_that_dies_after_a_stop_of_its_reader_is_silent() -> None:
    feed = joined()
    feed.wait(0.1)
    feed.now += 60
    feed.beat()
    feed.wait(0.0)
    for _ in range(6):
        feed.wait(0.5)
    assert feed.inbox.is_stale(feed.now)


def test_calls_that_were_over_before_are_not_told() -> None:
    feed = Feed(Inbox())
    for message in call("a"):
        feed.publish(message, arrives=False)
    feed.beat()
    feed.answer()
    feed.beat(arrives=False)
    feed.beat()
    feed.answer()
    assert feed.received == []


def test_a_long_absence_is_repaired_in_pages() -> None:
    feed = joined()
    script = Script("a", "a-c")
    messages = [script.started(), *(script.window(float(end), "angry") for end in range(2, 2500))]
    feed.publish(messages[0])
    for message in messages[1:-1]:
        feed.publish(message, arrives=False)
    feed.publish(messages[-1])
    feed.answer()
    assert feed.received == messages
    assert feed.inbox.repaired == len(messages) - 1


def test_without_repair_a_gap_is_reported_at_once() -> None:
    feed = joined(Inbox(repair=False))
    script = Script("a", "a-c")
    first, lost, third = script.started(), script.window(2, "angry"), script.window(3, "angry")
    feed.publish(first)
    feed.publish(lost, arrives=False)
    feed.publish(third)
    assert feed.received == [first, Gap(call="a", stream="a-c", first=1, last=1), third]


def test_a_reply_that_never_comes_is_asked_for_again_and_given_up() -> None:
    feed = joined()
    script = Script("a", "a-c")
    feed.publish(script.started())
    feed.publish(script.window(2, "angry"), arrives=False)
    last = script.window(3, "angry")
    feed.publish(last)
    for _ in range(3):
        assert len(feed.inbox.requests) == 1
        feed.answer(arrives=False)
        feed.beat()
        feed.wait(REPLY_TIMEOUT_S + 0.1)
    assert feed.received[-2:] == [Gap(call="a", stream="a-c", first=1, last=1), last]


def test_copies_are_dropped() -> None:
    feed = joined()
    messages = call("a")
    for message in messages:
        feed.publish(message)
        feed.inbox.arrived([topic(message), HEADER, encode(message)], feed.now)
    feed.read()
    first = [m for m in feed.received if m == messages[3]]
    assert len(first) == 1


def test_a_restarted_daemon_ends_what_was_going_on() -> None:
    inbox = Inbox()
    old = joined(inbox)
    messages = call("a")
    for message in messages[:6]:
        old.publish(message)
    new = Feed(inbox, name="feed-2")
    new.received = old.received
    other = call("a", seed=1)
    for message in other[:4]:
        new.publish(message)
    new.beat()
    new.answer()
    gone = {event.stream for event in new.received if isinstance(event, Gap) and event.last is None}
    assert gone == {NONE, "a-c", "a-a"}
    assert new.state() == new.memory.state


def test_a_name_may_be_used_again() -> None:
    feed = joined()
    for message in [*call("a"), *call("a", seed=1)]:
        feed.publish(message)
    assert feed.received == [*call("a"), *call("a", seed=1)]


def test_without_an_answering_snapshot_endpoint_messages_come_all_the_same() -> None:
    feed = Feed(Inbox())
    feed.publish(call("a")[0])
    for _ in range(4):
        feed.answer(arrives=False)
        feed.beat()
        feed.wait(REPLY_TIMEOUT_S + 0.1)
    assert feed.received == call("a")[:1]


def test_what_is_held_back_is_bounded() -> None:
    feed = joined(Inbox())
    script = Script("a", "a-c")
    feed.publish(script.started())
    feed.publish(script.window(2, "angry"), arrives=False)
    message = script.window(3, "angry")
    frames = [topic(message), HEADER, b""]
    for sequence in range(2, HELD_LIMIT + 5):
        frames[2] = encode(message).replace(b'"sequence":2', b'"sequence":%d' % sequence)
        feed.inbox.arrived(frames, feed.now)
    feed.read()
    assert Gap(call="a", stream="a-c", first=1, last=1) in feed.received
    assert len(feed.received) > HELD_LIMIT


def test_only_the_wanted_calls_are_asked_for() -> None:
    feed = Feed(Inbox(["b"]))
    for message in (*call("a")[:5], *call("b")[:5]):
        feed.publish(message, arrives=False)
    feed.beat()
    feed.answer()
    assert {event.call for event in feed.received} == {"b"}


def test_a_request_that_names_many_calls_costs_the_daemon_no_more_than_reading_it() -> None:
    memory = Memory(10_000, "json")
    for message in calls(100):
        memory.add(message)
    request = SnapshotRequest(("nobody",) * 200_000)
    began = time.process_time()
    memory.answer(request)
    assert time.process_time() - began < 0.5


def test_history_brings_all_that_is_kept_of_live_calls() -> None:
    feed = Feed(Inbox(history=True))
    messages = call("a")[:-3]
    for message in messages:
        feed.publish(message, arrives=False)
    feed.beat()
    feed.answer()
    assert same(feed.received, messages)


def test_history_that_is_not_complete_begins_with_the_state() -> None:
    feed = Feed(Inbox(history=True), history=4)
    messages = call("a")[:-3]
    for message in messages:
        feed.publish(message, arrives=False)
    feed.beat()
    feed.answer()
    assert not any(isinstance(event, Gap) for event in feed.received)
    assert all(message in feed.received for message in messages[-4:])
    assert all(feed.received.count(message) == 1 for message in feed.received)
    assert feed.state() == feed.memory.state


@pytest.mark.parametrize(
    ("frames", "complaint"),
    [
        ([b"x"], "wanted 3"),
        ([b"emotion.a.b.window", b"text/plain", b"{}"], "is this a serstream feed"),
        ([b"emotion.a.b.window", HEADER, b"{"], "malformed|truncated"),
        ([b"emotion.a.b.window", HEADER, b'{"schema":"2.0","type":"window"}'], "schema '2.0'"),
    ],
)
def test_what_is_not_a_message_is_refused_by_name(frames: list[bytes], complaint: str) -> None:
    with pytest.raises(FeedError, match=complaint):
        Inbox().arrived(frames, 0.0)


class NewerFeed(Feed):
    """A daemon of a newer minor version, which says "mute" by a word that this one does not know."""

    def publish(self, message: Message, arrives: bool = True) -> None:
        body = self.memory.add(message)
        if arrives:
            self.inbox.arrived([topic(message), self.header, self.translated(body)], self.now)
        self.read()

    def answer(self, arrives: bool = True) -> None:
        while self.inbox.requests:
            reply = self.memory.answer(self.inbox.requests.popleft())
            self.inbox.replied([self.header, *map(self.translated, reply)], self.now)
        self.read()

    def translated(self, body: bytes) -> bytes:
        return body.replace(b'"type":"mute","schema":"1.1"', b'"type":"hush","schema":"1.2"')


@pytest.mark.parametrize("arrives", [True, False])
def test_a_message_type_of_a_newer_minor_version_keeps_its_place_unseen(arrives: bool) -> None:
    feed = NewerFeed(Inbox())
    feed.beat()
    feed.answer()
    messages = call("a")
    for message in messages:
        feed.publish(message, arrives or message.type != "mute")
    feed.answer()
    assert same(feed.received, [message for message in messages if message.type != "mute"])
    assert not feed.inbox.requests and not feed.inbox.lost


def test_a_late_joiner_bears_a_state_of_a_newer_minor_version() -> None:
    feed = NewerFeed(Inbox())
    messages = call("a")
    for message in messages[:-3]:
        feed.publish(message, arrives=False)
    feed.beat()
    feed.answer()
    feed.publish(messages[-3])
    assert "mute" not in {event.type for event in feed.received if not isinstance(event, Gap)}
    assert feed.received[-1] == messages[-3] and not feed.inbox.lost


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c"] * 3 + ["beat", "answer", "wait", "slow"]),
        st.booleans(),
        st.integers(1, 30),
    ),
    max_size=70,
)
"""What happens, whether it arrives (or the channel is slow), and how long a wait takes in tenths."""


@settings(max_examples=200, deadline=None)
@given(steps=STEPS, history=st.sampled_from([8, 40, 10_000]), whole=st.booleans())
def test_whatever_is_lost_a_subscriber_ends_in_the_daemons_state(
    steps: list[tuple[str, bool, int]], history: int, whole: bool
) -> None:
    """Random loss, cuts, late joining, lost and late replies: order and state are right in the end."""
    feed = Feed(Inbox(history=whole), history=history)
    scripts = {name: iter(call(name, windows=3)) for name in "abc"}
    feed.publish(model_change(), arrives=False)
    if history == 8:  # late joining needs a history that reaches back to the messages on their way
        feed.beat()
        feed.answer()
    for step, arrives, tenths in steps:
        if step == "beat":
            feed.beat(arrives)
        elif step == "answer":
            feed.answer(arrives)
        elif step == "slow":
            feed.slow_down(arrives)
        elif step == "wait":
            # Later repairs are given up, and what is under way for longer than a reply may take is no copy.
            if not feed.is_slow and feed.now + tenths / 10 < ATTEMPTS * REPLY_TIMEOUT_S - 1:
                feed.wait(tenths / 10)
        elif message := next(scripts[step], None):
            feed.publish(message, arrives)
    feed.slow_down(False)
    for _ in range(5):  # and now the channel is good
        feed.beat()
        feed.answer()
        feed.wait(REPLY_TIMEOUT_S + 0.1)
    assert feed.state() == feed.memory.state
    last: dict[tuple[str, str], int] = {}
    for event in feed.received:
        key = (event.call, event.stream)
        if isinstance(event, Gap):
            last[key] = event.first - 1 if event.last is None else event.last
            continue
        assert event.sequence > last.get(key, -1), "in order, no copies"
        last[key] = event.sequence
    if history == 10_000:
        assert not any(isinstance(event, Gap) for event in feed.received), "nothing is lost for good"
