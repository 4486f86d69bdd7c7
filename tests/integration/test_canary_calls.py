"""A canary in a real daemon: calls are pinned to it, and taken back when it is bad."""

import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from published_model import models_command, publish, repository

from serstream.emotion.store import ModelStore, Reference
from serstream.feed.messages import (
    CallEnded,
    CallStarted,
    CanaryReport,
    Event,
    ModelRefused,
    StreamEnded,
    WindowEmotion,
)
from serstream.rehearsal import DaemonProcess, free_port_pair
from serstream.service.control import Reload, StatusRequest, ask
from serstream.shipped import SAMPLE_CALL

TIMEOUT_S = 60.0
VARIED = 121
"""A seed of weights that hear three emotions in the sample call, none of them in half of its windows."""


def serving(store: ModelStore) -> DaemonProcess:
    """A daemon that waits for calls."""
    return DaemonProcess(
        f'[[rtp]]\nport = {free_port_pair()}\n[model]\nrepository = "{store.root}"\ndevice = "cpu"\n'
    )


def play(daemon: DaemonProcess, *calls: str) -> None:
    """Begin calls with a reload, which a canary must not notice either."""
    path = daemon.control.with_name("serstream.toml")
    tables = (f"[[file]]\npath = '{SAMPLE_CALL}'\ncall = '{call}'\nrealtime = false\n" for call in calls)
    path.write_text("".join(tables) + path.read_text())
    ask(daemon.control, Reload())


def hear(daemon: DaemonProcess, until: Callable[[list[Event]], bool]) -> list[Event]:
    """The feed's events, until they are enough."""
    events: list[Event] = []
    deadline = time.monotonic() + TIMEOUT_S
    while not until(events):
        assert time.monotonic() < deadline, events[-5:]
        events += [event for event, _ in daemon.take(0.1)]
    return events


def over(n: int) -> Callable[[list[Event]], bool]:
    return lambda events: sum(isinstance(event, CallEnded) for event in events) == n


def models_by_call(events: list[Event]) -> dict[str, set[str]]:
    """Of everything that is said about a call, from its start to its end."""
    models = defaultdict(set)
    for event in events:
        if isinstance(event, CallStarted | WindowEmotion | StreamEnded | CallEnded):
            models[event.call].add(event.model)
    return dict(models)


def test_a_call_is_scored_by_one_model_from_its_start_to_its_end(tmp_path: Path) -> None:
    store = repository(tmp_path / "models")
    with serving(store) as daemon:
        config = daemon.control.with_name("serstream.toml")
        assert models_command("canary", "tiny@2", "--share", "0.5", config=config) == (
            0,
            "tiny@2 scores 50% of the calls that begin; see 'serstream models status'\n",
        )
        play(daemon, "a", "b", "c", "d")
        events = hear(daemon, over(4))
        models = models_by_call(events)
        assert sorted(map(sorted, models.values())) == [["tiny@1"], ["tiny@1"], ["tiny@2"], ["tiny@2"]]
        windows = sum(isinstance(event, WindowEmotion) and event.model == "tiny@2" for event in events)
        status = ask(daemon.control, StatusRequest()).model.canary
        assert status and (status.calls, status.windows, status.errors) == (2, windows, 0)
        (first,) = [event for event in events if isinstance(event, CanaryReport)][:1]
        assert (first.candidate, first.model, first.share) == ("tiny@2", "tiny@1", 0.5)
        assert "canary     tiny@2: 2 calls" in models_command("status", config=config)[1]

        assert models_command("canary", "--off", config=config) == (0, "tiny@2 is the canary no longer\n")
        play(daemon, "e", "f")
        assert set().union(*models_by_call(hear(daemon, over(2))).values()) == {"tiny@1"}
        assert "tiny@1                           active\n" in models_command("list", config=config)[1]


def test_a_canary_that_says_always_the_same_is_taken_back_and_not_tried_again(tmp_path: Path) -> None:
    publish(tmp_path / "models", 1, seed=VARIED)
    publish(tmp_path / "models", 2, scale=0.0)
    store = ModelStore(tmp_path / "models")
    store.activate(Reference("tiny", 1))
    calls = [f"call-{i}" for i in range(8)]
    with serving(store) as daemon:
        config = daemon.control.with_name("serstream.toml")
        assert models_command("canary", "tiny@2", "--share", "1", config=config)[0] == 0
        play(daemon, *calls)
        events = hear(daemon, over(len(calls)))
        (refused,) = [event for event in events if isinstance(event, ModelRefused)]
        assert (refused.candidate, refused.model) == ("tiny@2", "tiny@1")
        assert refused.reason.startswith("has collapsed to one class: angry in ")
        windows = [event for event in events if isinstance(event, WindowEmotion)]
        assert {event.model for event in windows} == {"tiny@2", "tiny@1"}
        ended = [event.windows for event in events if isinstance(event, StreamEnded)]
        assert sum(ended) == len(windows) == len({(event.stream, event.start) for event in windows})
        play(daemon, "afterwards")
        assert set().union(*models_by_call(hear(daemon, over(1))).values()) == {"tiny@1"}
        status = ask(daemon.control, StatusRequest()).model
        assert (status.canary, status.refusals, status.name) == (None, 1, "tiny@1")
        text = models_command("status", config=config)[1]
        assert "refused    tiny@2 at" in text and "collapsed" in text
        assert "canary     -" in text
