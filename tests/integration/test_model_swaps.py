"""Models change in a real daemon process while real RTP arrives."""

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
from published_model import models_command, publish, repository, reseal
from waiting import until

from serstream.emotion.store import ModelStore, Reference
from serstream.feed.messages import ModelChanged, ModelRefused, WindowEmotion
from serstream.rehearsal import DaemonProcess, Leg, free_port_pair
from serstream.rtp.sender import send_in_real_time
from serstream.service.control import Activate, StatusRequest, ask
from serstream.service.status import ModelStatus
from serstream.shipped import SAMPLE_CALL

SECONDS = 40
"""Of the calls: beside other tests a swap may take ten."""
SWAPS = 30
TIMEOUT_S = 300.0
"""Models are inspected at a low priority, so the tests beside this one come first."""


def configuration(store: ModelStore, ports: list[int]) -> str:
    sources = "\n".join(f"[[rtp]]\nport = {port}\nrole = 'customer'" for port in ports)
    return f'{sources}\n[model]\nrepository = "{store.root}"\ndevice = "cpu"\n'


def model_status(daemon: DaemonProcess) -> ModelStatus:
    status = ask(daemon.control, StatusRequest())
    return status.model


def wait_until(daemon: DaemonProcess, what: Callable[[ModelStatus], bool]) -> ModelStatus:
    status = until(lambda: what(status := model_status(daemon)) and status, TIMEOUT_S)
    assert status, model_status(daemon)
    return status


def held(daemon: DaemonProcess) -> tuple[int, int]:
    """Threads and descriptors of the daemon, itself included in none."""
    process = Path("/proc", str(daemon.process.pid))
    return len(os.listdir(process / "task")), len(os.listdir(process / "fd"))


@dataclass
class Progress:
    """What two threads tell each other."""

    inspected: threading.Event = field(default_factory=threading.Event)
    """Both models are: from here on a swap is quick."""
    calls_over: threading.Event = field(default_factory=threading.Event)
    swaps: int = 0
    problems: list[BaseException] = field(default_factory=list)


def swap_often(daemon: DaemonProcess, progress: Progress) -> None:
    """At least thirty good swaps, as long as the calls last, and three bad ones among them."""
    try:
        while (i := progress.swaps) < SWAPS or not progress.calls_over.is_set():
            wanted = f"tiny@{1 + (i + 1) % 2}"
            ask(daemon.control, Activate(wanted))
            wait_until(daemon, lambda status, wanted=wanted: status.name == wanted and not status.loading)
            progress.swaps += 1
            if i == 1:
                progress.inspected.set()
            if i in (5, 15, 25):
                refused = model_status(daemon).refusals
                ask(daemon.control, Activate(f"tiny@{3 + i // 10}"))
                status = wait_until(daemon, lambda status, n=refused: status.refusals > n)
                assert status.name == wanted
    except BaseException as problem:
        progress.problems.append(problem)
        raise


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    """Two good versions and three bad ones."""
    store = repository(tmp_path / "models", versions=5)
    store.file(Reference("tiny", 3)).write_bytes(b"damaged")
    store.file(Reference("tiny", 4)).write_bytes(b"a text")
    reseal(store.file(Reference("tiny", 4)).parent)
    (store.file(Reference("tiny", 5)).with_name("golden.npz")).unlink()
    reseal(store.file(Reference("tiny", 5)).parent)
    return store


def test_no_window_is_lost_or_scored_twice_by_thirty_swaps(store: ModelStore) -> None:
    samples, rate = soundfile.read(SAMPLE_CALL, dtype="int16", always_2d=True)
    legs = [
        Leg(np.roll(samples[:, i % 2], i * rate)[: SECONDS * rate], free_port_pair(), i + 1, "customer")
        for i in range(4)
    ]
    by_source = {f"rtp:{leg.outgoing.port}": leg for leg in legs}
    scored: Counter[tuple[str, float, float]] = Counter()
    models: Counter[str] = Counter()
    changes: list[ModelChanged] = []
    reasons: list[str] = []
    progress = Progress()
    ended = 0
    with DaemonProcess(configuration(store, [leg.outgoing.port for leg in legs])) as daemon:
        before = held(daemon)
        sender = threading.Thread(target=send_in_real_time, args=([leg.outgoing for leg in legs],))
        swapper = threading.Thread(target=swap_often, args=(daemon, progress))
        swapper.start()
        assert progress.inspected.wait(TIMEOUT_S)
        sender.start()
        deadline = time.monotonic() + TIMEOUT_S
        while ended < len(legs) or swapper.is_alive():
            assert time.monotonic() < deadline
            if ended == len(legs):
                progress.calls_over.set()
            for event, arrived in daemon.take(0.1):
                if leg := by_source.get(getattr(event, "source", "")):
                    leg.take(event, arrived)
                ended += event.type == "stream_end"
                match event:
                    case WindowEmotion():
                        scored[event.stream, event.start, event.end] += 1
                        models[event.model] += 1
                    case ModelChanged():
                        changes.append(event)
                    case ModelRefused():
                        reasons.append(event.reason)
        sender.join()
        swapper.join()
        after = held(daemon)
    assert not progress.problems
    assert [leg.lost for leg in legs] == [0, 0, 0, 0]
    assert set(scored.values()) == {1}
    assert set(models) == {"tiny@1", "tiny@2"}
    assert len(changes) == 1 + progress.swaps
    assert all(a.model == b.previous for a, b in pairwise(changes))
    assert len(set(reasons)) == len(reasons) == 3
    assert after[0] <= before[0]
    assert after[1] <= before[1] + len(legs)  # the senders' own streams may hold one each


def test_the_commands_work_on_a_running_and_on_a_stopped_daemon(store: ModelStore, tmp_path: Path) -> None:
    with DaemonProcess(configuration(store, [free_port_pair()])) as daemon:
        config = daemon.control.with_name("serstream.toml")
        assert models_command("activate", "tiny@2", config=config) == (
            0,
            "tiny@2 is active on CPUExecutionProvider; before: tiny@1\n",
        )
        code, text = models_command("activate", "tiny@4", config=config)
        assert code == 2
        assert "tiny@4 refused, tiny@2 stays active: model" in text
        assert "not ONNX" in text
        code, text = models_command("status", config=config)
        assert "exchanged  1 times, 1 refused" in text
        store.activate(Reference("tiny", 1))
        daemon.process.send_signal(signal.SIGHUP)
        wait_until(daemon, lambda status: status.name == "tiny@1")
    stopped = tmp_path / "serstream.toml"
    stopped.write_text(configuration(store, [free_port_pair()]) + "[control]\nsocket = 'control'\n")
    told = f"no daemon listens at {tmp_path / 'control'}; its next start uses tiny@2\n"
    assert models_command("rollback", config=stopped) == (0, told)
    code, text = models_command("shadow", "tiny@2", config=stopped)
    assert (code, "tiny@2 is active" in text) == (2, True), text
    code, text = models_command("activate", "tiny@5", config=stopped)
    assert code == 2
    assert "golden.npz" in text
    assert "tiny@2                           active" in models_command("list", config=stopped)[1]
    assert store.pointer().active == "tiny@2"


def test_a_damaged_version_is_refused_even_when_it_is_in_use(tmp_path: Path) -> None:
    store = repository(tmp_path / "models")
    store.activate(Reference("tiny", 2))
    with DaemonProcess(configuration(store, [free_port_pair()])) as daemon:
        config = daemon.control.with_name("serstream.toml")
        in_use = {"activate": "tiny@1", "shadow": "tiny@2"}
        for purpose, model in in_use.items():
            assert models_command(purpose, model, config=config)[0] == 0
            with store.file(Reference.parse(model)).open("ab") as damaged:
                damaged.write(b"x")
        for purpose, model in in_use.items():
            code, text = models_command(purpose, model, config=config)
            assert code == 2, text
            assert f"{model} refused, tiny@1 stays active: model" in text
            assert "it was damaged or changed after publishing" in text
        file = store.file(Reference("tiny", 1))
        good = file.read_bytes()[:-1]
        file.unlink()
        code, text = models_command("activate", "tiny@1", config=config)
        assert (code, "lists model.onnx, which is not there" in text) == (2, True), text
        file.write_bytes(good)
        code, text = models_command("activate", "tiny@1", config=config)
        assert (code, text) == (0, "tiny@1 is active on CPUExecutionProvider; before: tiny@2\n")


def test_the_list_says_which_model_scores_when_that_is_not_the_one_that_should(tmp_path: Path) -> None:
    store = repository(tmp_path / "models")
    store.activate(Reference("tiny", 2))
    store.file(Reference("tiny", 2)).write_bytes(b"damaged")
    with DaemonProcess(configuration(store, [free_port_pair()])) as daemon:
        config = daemon.control.with_name("serstream.toml")
        code, text = models_command("list", config=config)
        assert [line.split(maxsplit=1) for line in text.splitlines()] == [
            ["tiny@1", "active"],
            ["tiny@2", "previous (should be active)"],
        ]
        assert code == 0


def test_a_bare_file_is_verified_and_a_model_shown(tmp_path: Path) -> None:
    folder = publish(tmp_path / "models")
    code, text = models_command("verify", str(folder), config=Path(os.devnull))
    assert (code, "fine; tiny@1, SHA-256" in text) == (0, True)
    config = tmp_path / "serstream.toml"
    config.write_text("[model]\nrepository = 'models'\n")
    code, text = models_command("show", "tiny", config=config)
    assert code == 0
    assert "CC0-1.0" in text and "# tiny" in text
    elsewhere = f"model.repository={tmp_path / 'models'}"
    assert models_command("show", "tiny", "--set", elsewhere, config=Path(os.devnull)) == (0, text)
