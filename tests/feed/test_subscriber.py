import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from feed_thread import daemon
from scripted_feed import call
from waiting import until

from serstream.errors import FeedError
from serstream.feed import subscribe
from serstream.feed.messages import Alert, Event, FeedMessage, Gap, Heartbeat
from serstream.feed.state import FeedState
from serstream.feed.subscriber import Subscription


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[str]:
    endpoint = f"ipc://{tmp_path}/feed"
    with daemon(endpoint):
        yield endpoint


def take(subscription: Iterator[Event], n: int) -> list[Event]:
    return [next(subscription) for _ in range(n)]


def test_a_late_joiner_gets_the_state(endpoint: str) -> None:
    expected = FeedState()
    for message in call("live")[:-3]:
        expected.update(message)
    with subscribe(endpoint) as subscription:
        state = FeedState()
        for event in take(iter(subscription), len(expected.messages())):
            assert not isinstance(event, Gap)
            state.update(event)
    assert state == expected


def test_async_iteration_gives_the_same(endpoint: str) -> None:
    async def first(n: int) -> list[Event]:
        events: list[Event] = []
        with subscribe(endpoint) as subscription:
            async for event in subscription:
                events.append(event)
                if len(events) == n:
                    break
        return events

    with subscribe(endpoint) as subscription:
        expected = take(iter(subscription), 5)
    assert asyncio.run(asyncio.wait_for(first(5), 10)) == expected


def test_history_begins_at_the_beginning(endpoint: str) -> None:
    with subscribe(endpoint, history=True) as subscription:
        events = take(iter(subscription), len(call("live")) - 3)
    assert {(e.stream, e.sequence) for e in events if isinstance(e, FeedMessage)} == {
        (m.stream, m.sequence) for m in call("live")[:-3]
    }


def test_filters(endpoint: str) -> None:
    with subscribe(endpoint, roles=["agent"]) as subscription:
        assert all(isinstance(e, FeedMessage) and e.role == "agent" for e in take(iter(subscription), 2))
    with subscribe(endpoint, types=["alert"]) as subscription:
        assert isinstance(take(iter(subscription), 1)[0], Alert)
    with subscribe(endpoint, calls=["nobody"], heartbeats=True) as subscription:
        assert all(isinstance(event, Heartbeat) for event in take(iter(subscription), 3))


def test_heartbeats_may_be_named_as_a_type(endpoint: str) -> None:
    with subscribe(endpoint, types=["heartbeat"]) as subscription:
        assert [event.type for event in take(iter(subscription), 2)] == ["heartbeat", "heartbeat"]


@pytest.mark.parametrize(
    "filters, complaint",
    [
        ({"types": ["windw"]}, "message type 'windw': there are alert, call_end"),
        ({"roles": ["custmer"]}, "role 'custmer': there are agent, customer, unknown"),
        ({"calls": "desk-7"}, r"calls is 'desk-7', wanted a list: calls=\['desk-7'\]"),
    ],
)
def test_a_filter_that_would_let_nothing_pass_is_refused(filters: dict[str, Any], complaint: str) -> None:
    with pytest.raises(FeedError, match=complaint):
        subscribe("ipc://feed", **filters)


def test_history_without_repair_is_refused() -> None:
    with pytest.raises(FeedError, match=r"history=True .* repair=False"):
        subscribe("ipc://feed", history=True, repair=False)


def test_an_address_that_cannot_be_connected_to_is_named() -> None:
    with pytest.raises(FeedError, match=r"feed endpoint tcp://\*:5556: cannot connect"):
        subscribe("tcp://*:5556")


def test_a_feed_that_is_never_heard_is_silent_after_two_and_a_half_intervals(tmp_path: Path) -> None:
    nobody = f"ipc://{tmp_path}/nobody"
    with subscribe(nobody) as subscription:
        assert subscription.receive(0.01) == [] and not subscription.silent(), "it may take time to connect"
        assert until(subscription.silent)[nobody] == pytest.approx(2.5, abs=0.5)


def test_a_living_feed_is_not(endpoint: str) -> None:
    with subscribe(endpoint, heartbeats=True) as subscription:
        take(iter(subscription), 5)
        assert not subscription.silent()


def test_the_feeds_of_two_daemons_are_read_as_one_and_a_silent_third_is_named(tmp_path: Path) -> None:
    endpoints = [f"ipc://{tmp_path}/{name}" for name in ("one", "two", "nobody")]
    first, second = states("first", "second")
    with daemon(endpoints[0], "first"), daemon(endpoints[1], "second"):
        with subscribe(*endpoints) as subscription:
            state = FeedState()
            for event in take(iter(subscription), len(first.messages() + second.messages())):
                assert not isinstance(event, Gap)
                state.update(event)
            assert state.calls == first.calls | second.calls
            silent = endpoints[2:]
            assert until(lambda: not subscription.receive(0) and list(subscription.silent()) == silent)


def states(*names: str) -> Iterator[FeedState]:
    """What a late joiner must know of each daemon."""
    for name in names:
        state = FeedState()
        for message in call(name)[:-3]:
            state.update(message)
        yield state


@pytest.mark.parametrize("endpoints", [[], ["ipc://feed", "ipc://feed"]])
def test_endpoints_are_named_once(endpoints: list[str]) -> None:
    with pytest.raises(FeedError, match="wanted at least one, and each once"):
        subscribe(*endpoints)


def test_one_bad_endpoint_leaves_nothing_open() -> None:
    with pytest.raises(FeedError, match="'nonsense'"):
        subscribe("ipc://feed", "nonsense")


def test_the_client_loads_nothing_heavy() -> None:
    code = "import sys, serstream.feed; print(sorted({name.partition('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for heavy in ("numpy", "scipy", "onnxruntime", "soundfile", "soxr", "sounddevice", "rich", "torch"):
        assert f"'{heavy}'" not in loaded
    assert "'msgspec'" in loaded


async def first(subscription: Subscription) -> Event:
    return await anext(aiter(subscription))


@pytest.mark.parametrize("begin", [lambda s: next(iter(s)), lambda s: asyncio.run(first(s))])
def test_an_iteration_that_is_left_leaves_the_rest_to_the_next(
    endpoint: str, begin: Callable[[Subscription], Event]
) -> None:
    with subscribe(endpoint) as subscription:
        expected = take(iter(subscription), 5)
    with subscribe(endpoint) as subscription:
        assert [begin(subscription), *subscription.receive(0)][:5] == expected


def test_an_error_of_one_daemon_loses_nothing_of_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, three = call("one")[0], call("three")[0]
    said: list[list[Event] | None] = [[one], None, [three], [], [], []]

    def exchange(*_: object) -> list[Event]:
        if (events := said.pop(0)) is None:
            raise FeedError("another major version")
        return events

    with subscribe(*(f"ipc://{tmp_path}/{name}" for name in ("one", "two", "three"))) as subscription:
        for link in subscription.links:
            monkeypatch.setattr(link, "exchange", exchange)
        with pytest.raises(FeedError, match="another major version"):
            subscription.receive(0)
        assert subscription.receive(0) == [one, three]
