"""A real daemon process, real RTP over loopback, a real subscriber in this process."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from waiting import until

from serstream.feed.messages import NONE, CallEnded, StreamEnded, UtteranceEmotion, WindowEmotion
from serstream.rehearsal import DaemonProcess, Leg, free_port_pair
from serstream.rtp.sender import send_in_real_time
from serstream.service.control import StatusRequest, ask
from serstream.shipped import SAMPLE_CALL
from serstream.unix_socket import connect_error

RATE = 8000
SECONDS = 14
ROLES = ("customer", "agent")


def sample() -> NDArray[np.int16]:
    samples, _ = soundfile.read(SAMPLE_CALL, dtype="int16", always_2d=True, frames=SECONDS * RATE)
    return samples


def serstream(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "serstream", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, env=os.environ | {"COLUMNS": "100"}
    )


def events_of_a_call(model: Path) -> tuple[list[Leg], list[object], str]:
    """Play the first seconds of the sample call to a daemon; its legs, all events, and the daemon's maps."""
    samples = sample()
    legs = [Leg(samples[:, i], free_port_pair(), i + 1, role) for i, role in enumerate(ROLES)]
    sources = "\n".join(
        f'[[rtp]]\nport = {leg.outgoing.port}\nrole = "{leg.role}"\ncall = "c"' for leg in legs
    )
    events: list[object] = []
    privacy = "[privacy]\nanalyse_agents = true"
    with DaemonProcess(f'[model]\npath = "{model}"\n{sources}\n{privacy}') as daemon:
        sender = threading.Thread(target=send_in_real_time, args=([leg.outgoing for leg in legs],))
        sender.start()
        deadline = time.monotonic() + SECONDS + 20
        while time.monotonic() < deadline and not any(isinstance(e, CallEnded) for e in events):
            for event, arrived in daemon.take(0.1):
                events.append(event)
                for leg in legs:
                    if getattr(event, "role", "") == leg.role:
                        leg.take(event, arrived)
        sender.join()
        maps = Path(f"/proc/{daemon.process.pid}/maps").read_text()
    return legs, events, maps


@pytest.fixture(scope="module")
def call(tiny_model: Path) -> tuple[list[Leg], list[object], str]:
    return events_of_a_call(tiny_model)


def test_every_window_comes_back_and_the_call_ends(call: tuple[list[Leg], list[object], str]) -> None:
    legs, events, _ = call
    assert [leg.lost for leg in legs] == [0, 0]
    assert [leg.received - leg.expected for leg in legs] == [set(), set()]
    ends = [event for event in events if isinstance(event, StreamEnded)]
    assert {end.role: end.reason for end in ends} == {"customer": "bye", "agent": "bye"}
    assert all(end.lost_s == 0 for end in ends)
    assert sum(isinstance(event, CallEnded) for event in events) == 1


def test_replay_equals_live(
    call: tuple[list[Leg], list[object], str], tiny_model: Path, tmp_path: Path
) -> None:
    _, events, _ = call
    soundfile.write(tmp_path / "call.wav", sample(), RATE, subtype="ULAW")
    (tmp_path / "c.toml").write_text(f'[model]\npath = "{tiny_model}"\n[privacy]\nanalyse_agents = true\n')
    result = serstream("replay", "-c", tmp_path / "c.toml", "--roles", ",".join(ROLES), tmp_path / "call.wav")
    assert result.returncode == 0, result.stderr
    replayed = [json.loads(line) for line in result.stdout.splitlines()]
    for role in ROLES:
        live_windows = [e for e in events if isinstance(e, WindowEmotion) and e.role == role]
        of_file = [m for m in replayed if m["type"] == "window" and m["role"] == role]
        assert live_windows, role
        assert [(w.start, w.end, w.emotion) for w in live_windows] == [
            (m["start"], m["end"], m["emotion"]) for m in of_file
        ]
        for live, replay in zip(live_windows, of_file, strict=True):
            assert live.probabilities == pytest.approx(replay["probabilities"], abs=1e-3)
        live_utterances = [e for e in events if isinstance(e, UtteranceEmotion) and e.role == role]
        assert [(u.start, u.end, u.emotion) for u in live_utterances] == [
            (m["start"], m["end"], m["emotion"])
            for m in replayed
            if m["type"] == "utterance" and m["role"] == role
        ]


def test_an_rtp_daemon_loads_neither_torch_nor_portaudio(call: tuple[list[Leg], list[object], str]) -> None:
    maps = call[2]
    assert "onnxruntime" in maps, "the maps are the daemon's"
    assert "libtorch" not in maps and "portaudio" not in maps


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_every_stream_with_its_last_window(tiny_model: Path, number: signal.Signals) -> None:
    leg = Leg(sample()[5 * RATE :, 0], free_port_pair(), 7)
    stopped = threading.Event()
    sender = threading.Thread(target=send_in_real_time, args=([leg.outgoing], stopped))
    with DaemonProcess(f'[model]\npath = "{tiny_model}"\n[[rtp]]\nport = {leg.outgoing.port}') as daemon:
        sender.start()
        types = types_within(daemon, seconds=1.5)
        assert sorted(types) == ["call_start", "stream_start"], "speech is going on and no window is full"
        daemon.process.send_signal(number)
        types += types_within(daemon, seconds=2)
        assert daemon.process.wait(10) == 0
    stopped.set()
    sender.join()
    assert types[2:] == ["window", "utterance", "stream_end", "call_end"]


EARLY_SIGNALS = """
import os, signal, sys
from serstream import cli
class Import:
    def find_spec(self, name, path, target=None):
        if name == "serstream.service.daemon":  # takes longer than all before
            os.kill(os.getpid(), signal.SIGHUP)
            os.kill(os.getpid(), signal.SIGTERM)
sys.meta_path.insert(0, Import())
sys.exit(cli.main())
"""


DEFECT = """
import sys
from serstream import cli
from serstream.rtp.receiver import RtpReceiver
RtpReceiver._turn = None
sys.exit(cli.main())
"""


@pytest.mark.parametrize(
    ("program", "code", "told"),
    [
        (EARLY_SIGNALS, 0, "SIGTERM: ending all streams"),
        (DEFECT, 1, "a source failed: ending all streams"),
    ],
    ids=["signals while it starts", "a defect in a source"],
)
def test_the_daemon_ends_in_order_after(
    tiny_model: Path, tmp_path: Path, program: str, code: int, told: str
) -> None:
    path = tmp_path / "c.toml"
    path.write_text(
        f'[[rtp]]\nport = {free_port_pair()}\n[model]\npath = "{tiny_model}"\n[metrics]\nport = 0\n'
        f'[feed]\nendpoint = "ipc://{tmp_path}/feed"\n[control]\nsocket = "control"\n'
    )
    command = [sys.executable, "-c", program, "run", "-c", path]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == code, result.stderr
    assert told in result.stderr


def types_within(daemon: DaemonProcess, seconds: float) -> list[str]:
    deadline = time.monotonic() + seconds
    types: list[str] = []
    while time.monotonic() < deadline:
        types += [event.type for event, _ in daemon.take(0.05) if event.call != NONE]
    return types


@pytest.mark.parametrize(
    ("configuration", "message"),
    [
        ("[[rtp]]\nprot = 1", "unknown key 'rtp[0].prot'; did you mean 'port'?"),
        ("", "no source: the configuration needs at least one [[rtp]], [[microphone]] or [[file]]"),
        ("[[file]]\npath = 'none.wav'", "none.wav: no such file"),
        ("[[file]]\npath = 'c.toml'", "c.toml: not a recording that libsndfile can read"),
        ("[[rtp]]\n[model]\npath = 'c.toml'", "c.toml: ONNX Runtime cannot load it"),
        ("[[rtp]]\n[feed]\nendpoint = 'tcp://0.0.0.0:5556'", "can be reached from outside"),
        ("[[rtp]]\nport = BUSY", "BUSY"),
    ],
)
def test_what_the_user_can_mend_is_named_and_ends_with_exit_code_2(
    tiny_model: Path, tmp_path: Path, configuration: str, message: str
) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as busy:
        busy.bind(("127.0.0.1", 0))
        port = str(busy.getsockname()[1])
        path = tmp_path / "c.toml"
        model = "" if "[model]" in configuration else f'\n[model]\npath = "{tiny_model}"'
        feed = "" if "[feed]" in configuration else f'\n[feed]\nendpoint = "ipc://{tmp_path}/feed"'
        path.write_text(configuration.replace("BUSY", port) + model + feed)
        result = serstream("run", "-c", path)
    assert result.returncode == 2, result.stderr
    assert message.replace("BUSY", port) in result.stderr
    assert "Traceback" not in result.stderr


def test_a_daemon_whose_control_socket_vanished_can_be_asked_again(tiny_model: Path) -> None:
    with DaemonProcess(f'[model]\npath = "{tiny_model}"\n[[rtp]]\nport = {free_port_pair()}') as daemon:
        daemon.control.unlink()
        assert until(lambda: connect_error(daemon.control) is None)
        assert ask(daemon.control, StatusRequest()).pid == daemon.process.pid


def test_a_closed_pipe_ends_replay_quietly(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(f'[model]\npath = "{tiny_model}"\n')
    command = (
        f"{sys.executable} -m serstream replay -c {tmp_path}/c.toml {SAMPLE_CALL} {SAMPLE_CALL} | head -1"
    )
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert result.stdout.count("\n") == 1
    assert result.stderr == ""


@pytest.mark.parametrize("arguments", [["replay", SAMPLE_CALL], ["check", "config/serstream.toml"]])
def test_a_full_disk_below_the_output_is_told(arguments: list[str | Path]) -> None:
    command = [sys.executable, "-m", "serstream", *map(str, arguments)]
    with open("/dev/full", "w") as full:
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert result.returncode == 2
    assert "standard output: cannot write: No space left on device" in result.stderr
    assert "Traceback" not in result.stderr


def test_replay_of_a_wrong_role_list_names_both(tmp_path: Path) -> None:
    result = serstream("replay", SAMPLE_CALL, "--roles", "customer")
    assert result.returncode == 2
    assert "has 2 channel(s), roles has 1 (customer)" in result.stderr


def test_every_command_explains_itself() -> None:
    for command in ("run", "replay", "listen", "live", "devices", "check", "demo"):
        result = serstream(command, "--help")
        assert result.returncode == 0
        assert f"serstream {command}" in result.stdout.split("examples:")[1]
