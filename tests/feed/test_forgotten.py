"""What a subscriber is told of calls and streams that the daemon has forgotten meanwhile."""

from feed_channel import joined
from scripted_feed import Script, call

from serstream.feed.messages import NONE, Gap
from serstream.feed.order import REPLY_TIMEOUT_S


def test_a_call_whose_end_was_lost_and_is_forgotten_is_gone() -> None:
    feed = joined(history=3)
    messages = call("a")
    for message in messages:
        feed.publish(message, arrives=message not in messages[3:])
    for message in call("b"):
        feed.publish(message)
    feed.beat()
    feed.answer()
    assert len(feed.received) == 3 + len(call("b")), "more of it may be on its way"
    feed.beat()
    gaps = [event for event in feed.received if isinstance(event, Gap)]
    assert len(gaps) == 3 and all(gap.first == 1 and gap.last is None for gap in gaps)
    assert feed.state() == feed.memory.state
    feed.beat(arrives=False)
    for _ in range(2):
        feed.beat()
        feed.answer()
    assert [event for event in feed.received if isinstance(event, Gap)] == gaps, "told once"


def test_a_call_of_which_only_its_own_end_was_lost_is_gone() -> None:
    feed = joined(history=3)
    for message in call("a"):
        feed.publish(message, arrives=message.type != "call_end")
    for message in call("b"):
        feed.publish(message)
    for _ in range(2):
        feed.beat()
        feed.answer()
    assert [event for event in feed.received if isinstance(event, Gap)] == [
        Gap(call="a", stream=NONE, first=1, last=None)
    ]
    assert feed.state() == feed.memory.state


def test_what_is_on_its_way_of_a_forgotten_stream_is_not_told_to_be_lost() -> None:
    feed = joined(history=3)
    script = Script("a", "a-c")
    first, lost, third, end = (
        script.started(),
        script.window(2, "angry"),
        script.window(3, "sad"),
        script.ended(4),
    )
    feed.publish(first)
    feed.publish(lost, arrives=False)
    feed.beat()
    feed.slow_down(True)
    for message in (third, end, *call("b")):
        feed.publish(message)
    feed.memory.state.forget("a", "a-c")
    feed.answer()
    feed.beat()
    feed.slow_down(False)
    told = [event for event in feed.received if event.call == "a"]
    assert told == [first, Gap(call="a", stream="a-c", first=1, last=1), third, end]


def test_what_came_behind_a_forgotten_loss_waits_for_no_heartbeat() -> None:
    feed = joined(history=5)
    own, customer = Script("a", NONE, "unknown"), Script("a", "a-c")
    feed.publish(own.call_started())
    feed.publish(customer.started())
    feed.publish(customer.window(1, "sad"), arrives=False)
    ends = [customer.ended(2), own.call_ended(2, {"a-c": "customer"})]
    for message in [*ends, *call("b")]:
        feed.publish(message)
    feed.answer()
    told = [event for event in feed.received if event.call == "a"]
    assert told[2:] == [Gap(call="a", stream="a-c", first=1, last=1), *ends]


def test_what_is_held_back_is_no_gap_when_the_history_has_forgotten_it() -> None:
    feed = joined(history=5)
    customer = Script("a", "a-c")
    feed.publish(customer.started())
    feed.publish(customer.window(1, "sad"), arrives=False)
    arrived = [customer.utterance(i, i + 1, "sad") for i in range(8)]
    for message in [*arrived, *call("b"), customer.window(20, "sad")]:
        feed.publish(message)
    feed.answer()
    told = [event for event in feed.received if event.call == "a"]
    assert told[1] == Gap(call="a", stream="a-c", first=1, last=1)
    assert told[2:-1] == arrived and feed.inbox.lost == 1


def test_a_daemon_that_dies_leaves_nothing_held_back() -> None:
    feed = joined(history=3)
    customer, agent = Script("a", "a-c"), Script("a", "a-a", "agent")
    feed.publish(customer.started())
    feed.publish(agent.started())
    feed.publish(customer.ended(2), arrives=False)
    for message in call("b"):
        feed.publish(message)
    feed.memory.state.forget("a", "a-c")
    feed.beat()
    feed.answer()
    alert = agent.alert(2)
    feed.publish(alert)
    assert alert not in feed.received
    for _ in range(20):
        feed.wait(REPLY_TIMEOUT_S + 1)
        feed.answer(arrives=False)
    assert alert in feed.received and not feed.inbox._order.n_held


def test_a_gap_leaves_out_what_the_daemon_still_knows() -> None:
    feed = joined(history=3)
    script = Script("a", "a-c")
    started, alert = script.started(), script.alert(4)
    windows = [script.window(float(end), "angry") for end in range(5, 12)]
    feed.publish(started)
    for message in (alert, *windows[:-1]):
        feed.publish(message, arrives=False)
    feed.publish(windows[-1])
    feed.answer()
    assert feed.received == [started, alert, Gap(call="a", stream="a-c", first=2, last=5), *windows[-3:]]
    assert feed.inbox.lost == 4


def test_what_history_has_forgotten_is_a_gap() -> None:
    feed = joined(history=3)
    script = Script("a", "a-c")
    messages = [script.started(), *(script.window(float(end), "angry") for end in range(2, 12))]
    feed.publish(messages[0])
    for message in messages[1:-1]:
        feed.publish(message, arrives=False)
    feed.publish(messages[-1])
    feed.answer()
    assert feed.received == [messages[0], Gap(call="a", stream="a-c", first=1, last=7), *messages[8:]]
    assert feed.inbox.lost == 7
