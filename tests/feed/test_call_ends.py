"""In what order calls and streams end at a subscriber, and names are used again, whatever is lost."""

import pytest
from feed_channel import HEADER, Feed, joined, same
from msgspec import structs
from scripted_feed import Script, call

from serstream.feed.inbox import Inbox
from serstream.feed.messages import NONE, STREAMS_NAMED, CallEnded, CallStarted, Gap, Message, StreamEnded
from serstream.feed.order import REPLY_TIMEOUT_S
from serstream.feed.state import FeedState


def test_a_call_does_not_end_before_its_streams() -> None:
    feed = joined()
    messages = call("a")
    for message in messages:
        feed.publish(message, arrives=message.type != "stream_end")
    feed.answer()
    assert same(feed.received, messages)
    assert feed.received[-1] == messages[-1]


def next_call(before: list[Message]) -> list[Message]:
    """Another call of the same name; its own messages count on."""
    messages: list[Message] = []
    for message in before:
        if isinstance(message, CallEnded):
            streams = {f"{stream}2": role for stream, role in message.streams.items()}
            message = structs.replace(message, sequence=message.sequence + 2, streams=streams)
        elif isinstance(message, CallStarted):
            message = structs.replace(message, sequence=message.sequence + 2)
        else:
            message = structs.replace(message, stream=f"{message.stream}2")
        messages.append(message)
    return messages


@pytest.mark.parametrize("first", range(0, 30, 3))
@pytest.mark.parametrize("n_lost", [1, 2, 5, 12, 40])
@pytest.mark.parametrize("n_told", [20, 28])
def test_a_call_whose_name_is_used_again_is_told_to_its_end(first: int, n_lost: int, n_told: int) -> None:
    feed = joined()
    before = call("a")
    messages = [*before, *next_call(before)[:n_told]]
    for i, message in enumerate(messages):
        feed.publish(message, arrives=not first <= i < first + n_lost)
    feed.beat()
    feed.answer()
    assert same(feed.received, messages) and not feed.inbox.lost
    end = feed.received.index(before[-1])
    assert all(event in feed.received[:end] for event in before[:-1]), "a call's end is its last message"
    expected = FeedState()
    for message in messages:
        expected.update(message)
    assert feed.state() == expected


def test_a_call_does_not_end_before_its_streams_when_a_reply_overtakes_them() -> None:
    feed = joined()
    messages = call("a")
    feed.publish(messages[0], arrives=False)
    for message in messages[1:5]:
        feed.publish(message)
    feed.beat()
    feed.slow_down(True)
    for message in messages[5:]:
        feed.publish(message)
    feed.answer()
    feed.slow_down(False)
    assert same(feed.received, messages)
    assert feed.received[-1] == messages[-1]


def test_a_call_does_not_end_before_a_stream_whose_end_was_lost_during_a_repair() -> None:
    feed = joined()
    own, caller = Script("a", NONE, "unknown"), Script("a", "a-c")
    for message in (own.call_started(), caller.started()):
        feed.publish(message)
    feed.publish(caller.window(2, "angry"), arrives=False)
    feed.beat()
    reply = feed.memory.answer(feed.inbox.requests.popleft())
    end, last = caller.ended(3), own.call_ended(3, {"a-c": "customer"})
    feed.publish(end, arrives=False)
    feed.publish(last)
    feed.inbox.replied([HEADER, *reply], feed.now)
    feed.answer()
    assert feed.received[-2:] == [end, last]


def test_a_gap_in_a_call_whose_name_was_used_before_is_told_once() -> None:
    feed = joined(history=40)
    first = call("a")
    second = next_call(first)
    third = next_call(second)
    fourth = next_call(third)
    for message in first:
        feed.publish(message)
    for message in (*second, *third):
        feed.publish(message, arrives=False)
    feed.beat(arrives=False)
    feed.beat()
    feed.answer()
    feed.beat()
    feed.answer()
    assert feed.received.count(Gap(call="a", stream=NONE, first=2, last=2)) == 1
    assert feed.received[-1] == third[-1]
    for message in fourth:
        feed.publish(message)
    assert feed.received[-len(fourth) :] == fourth


@pytest.mark.parametrize(("repair", "history"), [(False, 10_000), (True, 1)])
def test_a_stream_whose_end_is_lost_for_good_is_over_with_its_call(repair: bool, history: int) -> None:
    inbox = Inbox(repair=repair)
    feed = joined(inbox, history=history)
    messages = call("a")
    for message in messages:
        feed.publish(message, arrives=message not in messages[-5:-1])
    for _ in range(2):
        feed.answer()
        feed.beat()
    assert messages[-1] in feed.received
    assert {event.stream for event in feed.received if isinstance(event, Gap)} == {"a-c", "a-a"}
    restarted = Feed(inbox, name="feed-2")
    restarted.beat()
    assert not restarted.received, "nothing of it was going on any more"


def test_a_stream_that_the_daemon_has_forgotten_is_not_gone_while_its_end_is_held_back() -> None:
    feed = joined(history=3)
    own, one, other = Script("a", NONE, "unknown"), Script("a", "a-c"), Script("a", "a-a", "agent")
    for message in (one.started(), other.started()):
        feed.publish(message)
    feed.publish(other.unscored(2), arrives=False)
    held = [other.unscored(4), one.ended(6), other.ended(6)]
    held.append(own.call_ended(6, {"a-c": "customer", "a-a": "agent"}))
    for message in (*held, *call("b")):
        feed.publish(message)
    feed.answer(arrives=False)
    feed.beat(arrives=False)
    feed.beat()
    feed.answer()
    feed.wait(REPLY_TIMEOUT_S + 0.1)
    feed.answer()
    feed.beat()
    told = [event for event in feed.received if event.call == "a"]
    assert told[2:] == [Gap(call="a", stream="a-a", first=1, last=1), *held]


def long_call(n: int) -> list[Message]:
    """A party stays while ``n`` others come and go one after another; without its end."""
    own, agent = Script("a", NONE, "unknown"), Script("a", "agent", "agent")
    messages: list[Message] = [own.call_started(), agent.started()]
    for i in range(n):
        other = Script("a", f"c{i}", began=i)
        messages += [other.started(), other.window(2, "angry"), other.ended(3)]
    return messages


def end_of_call(n: int) -> list[Message]:
    """Of `long_call`: it names the last streams to end."""
    own, agent = Script("a", NONE, "unknown"), Script("a", "agent", "agent")
    own.sequence = agent.sequence = 1
    named = [f"c{i}" for i in range(n - STREAMS_NAMED + 1, n)]
    return [agent.ended(n + 9), own.call_ended(n + 9, {**dict.fromkeys(named, "customer"), "agent": "agent"})]


@pytest.mark.parametrize("history", [1, 10, 350, 10_000])
@pytest.mark.parametrize("from_history", [False, True])
@pytest.mark.parametrize("n_before", [0, 1, 350, 700])
def test_streams_that_a_call_has_forgotten_are_no_gap(
    history: int, from_history: bool, n_before: int
) -> None:
    n = 3 * STREAMS_NAMED
    feed = Feed(Inbox(history=from_history), history=history)
    messages = long_call(n)
    for message in messages[:n_before]:
        feed.publish(message, arrives=False)
    feed.beat(arrives=False)
    feed.beat()
    feed.answer()
    for message in messages[n_before:]:
        feed.publish(message)
    kept = feed.memory.state.calls["a"].streams
    assert kept.keys() == {"agent", *(f"c{i}" for i in range(n - STREAMS_NAMED, n))}
    assert feed.state() == feed.memory.state
    for message in (over := end_of_call(n)):
        feed.publish(message)
    feed.beat(arrives=False)  # which makes it ask for a snapshot
    feed.beat()
    feed.answer()
    assert not any(isinstance(event, Gap) for event in feed.received)
    assert feed.received[-2:] == over
    assert not feed.memory.state.calls and not feed.state().calls


def test_without_repair_a_lost_end_that_its_call_does_not_name_is_told_with_the_calls() -> None:
    feed = joined(Inbox(repair=False))
    messages = [*long_call(STREAMS_NAMED + 20), *end_of_call(STREAMS_NAMED + 20)]
    ends = [message for message in messages if isinstance(message, StreamEnded)]
    for message in messages:
        feed.publish(message, arrives=message is not ends[0])
    gap = Gap(call="a", stream=ends[0].stream, first=ends[0].sequence, last=None)
    assert feed.received[-2:] == [messages[-1], gap]
    Feed(feed.inbox, name="feed-2").beat()
    assert sum(isinstance(event, Gap) for event in feed.received) == 1


def test_the_order_in_which_streams_end_does_not_matter() -> None:
    messages = long_call(2 * STREAMS_NAMED)
    one, other = FeedState(), FeedState()
    for message in messages:
        one.update(message)
    for message in sorted(messages, key=lambda message: (message.stream, message.sequence)):
        other.update(message)
    assert one == other
