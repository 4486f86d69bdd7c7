"""Reloads of a real daemon, by SIGHUP and by `serstream reload`, while calls are going on."""

import signal
import socket
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from published_model import repository

from serstream.cli import main
from serstream.emotion.store import Reference
from serstream.errors import ControlError
from serstream.feed.messages import StreamEnded
from serstream.rehearsal import HOST, DaemonProcess, Leg, free_port_pair
from serstream.rtp.sender import send_in_real_time
from serstream.service.control import Reload, StatusRequest, ask
from serstream.service.status import Status
from serstream.shipped import SAMPLE_CALL

SECONDS = 7


def ask_status(daemon: DaemonProcess) -> Status:
    return ask(daemon.control, StatusRequest())


def names(*ports: int) -> list[str]:
    """Of sources."""
    return sorted(f"rtp:{HOST}:{port}" for port in ports)


def reload(daemon: DaemonProcess, text: str) -> Status:
    """The status behind a reload of this configuration, or of its refusal."""
    before = ask_status(daemon).health
    daemon.control.with_name("serstream.toml").write_text(text)
    daemon.process.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        status = ask_status(daemon)
        if (status.health.reloads, status.health.reload_error) != (before.reloads, before.reload_error):
            return status
        time.sleep(0.05)
    pytest.fail(f"no reload: {daemon.log()}")


def test_a_reload_disturbs_no_call_and_opens_and_closes_ports() -> None:
    samples, rate = soundfile.read(SAMPLE_CALL, dtype="int16", always_2d=True)
    party = np.ascontiguousarray(samples[: SECONDS * rate, 0])
    leg = Leg(party, free_port_pair(), ssrc=1)
    other = free_port_pair()
    with DaemonProcess(f"[[rtp]]\nport = {leg.outgoing.port}\n") as daemon:
        sender = threading.Thread(target=send_in_real_time, args=([leg.outgoing],))
        sender.start()
        time.sleep(1)
        first = daemon.control.with_name("serstream.toml").read_text()
        status = reload(daemon, f"[[rtp]]\nport = {other}\n{first}")
        assert sorted(status.health.sources) == names(leg.outgoing.port, other)
        status = reload(daemon, f"nonsense = 1\n{first}")
        assert "unknown key 'nonsense'" in status.health.reload_error
        assert len(status.health.sources) == 2
        with pytest.raises(ControlError, match="unknown key 'nonsense'"):
            ask(daemon.control, Reload())
        # What the call's own port cannot be given must not end it.
        status = reload(daemon, first.replace("[[rtp]]", '[[rtp]]\nsdp = "none.sdp"'))
        assert "none.sdp" in status.health.reload_error
        daemon.control.with_name("serstream.toml").write_text(first)
        status = ask(daemon.control, Reload())
        assert status.health.sources == tuple(names(leg.outgoing.port))
        assert not status.health.reload_error
        ended = False
        deadline = time.monotonic() + 30
        while not ended and time.monotonic() < deadline:
            for event, arrived in daemon.take(0.1):
                leg.take(event, arrived)
                ended = ended or isinstance(event, StreamEnded)
        sender.join()
    assert ended
    assert leg.expected
    assert leg.lost == 0


def test_a_port_that_cannot_be_opened_is_told_and_the_others_are() -> None:
    port, other = free_port_pair(), free_port_pair()
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken,
        DaemonProcess(f"[[rtp]]\nport = {port}\n") as daemon,
    ):
        taken.bind((HOST, free_port_pair()))
        ports = (taken.getsockname()[1], other)
        path = daemon.control.with_name("serstream.toml")
        path.write_text("".join(f"[[rtp]]\nport = {number}\n" for number in ports) + path.read_text())
        with pytest.raises(ControlError, match=f"reloaded, but without rtp {HOST}:{ports[0]}: cannot bind"):
            ask(daemon.control, Reload())
        assert sorted(ask_status(daemon).health.sources) == names(port, other)
        taken.close()
        assert set(names(ports[0])) <= set(ask(daemon.control, Reload()).health.sources)


def test_without_an_open_source_the_daemon_waits_for_the_reload_that_mends_it() -> None:
    port = free_port_pair()
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken,
        DaemonProcess(f"[[rtp]]\nport = {port}\n") as daemon,
    ):
        taken.bind((HOST, free_port_pair()))
        other = taken.getsockname()[1]
        path = daemon.control.with_name("serstream.toml")
        path.write_text(path.read_text().replace(str(port), str(other)))
        with pytest.raises(ControlError, match=f"reloaded, but without rtp {HOST}:{other}: cannot bind"):
            ask(daemon.control, Reload())
        assert ask_status(daemon).health.sources == ()
        taken.close()
        assert ask(daemon.control, Reload()).health.sources == tuple(names(other))


def test_a_stop_that_comes_with_a_reload_is_not_lost(tmp_path: Path) -> None:
    recording = tmp_path / "long.wav"
    soundfile.write(recording, np.zeros(8000 * 60, np.int16), 8000)
    with DaemonProcess(f"[[rtp]]\nport = {free_port_pair()}\n") as daemon:
        path = daemon.control.with_name("serstream.toml")
        path.write_text(f'[[file]]\npath = "{recording}"\n{path.read_text()}')
        for number in (signal.SIGSTOP, signal.SIGHUP, signal.SIGTERM, signal.SIGCONT):
            daemon.process.send_signal(number)
        assert daemon.process.wait(5) == 0
        assert "reloaded" not in daemon.log()


def test_a_path_that_nobody_can_look_at_ends_no_call() -> None:
    with DaemonProcess(f"[[rtp]]\nport = {free_port_pair()}\n") as daemon:
        text = daemon.control.with_name("serstream.toml").read_text()
        name = 300 * "x"
        assert (
            "File name too long" in reload(daemon, f'[[file]]\npath = "{name}"\n{text}').health.reload_error
        )
        assert not reload(daemon, text).health.reload_error


def test_an_error_that_nobody_foresaw_ends_no_call(monkeypatch: pytest.MonkeyPatch) -> None:
    program = """if True:
        import sys
        from serstream.cli import main
        from serstream.service import daemon
        answers = iter([None, PermissionError(13, "Permission denied", "closed/x")])
        def check_sources(settings, base):
            if error := next(answers, None):
                raise error
        daemon.check_sources = check_sources
        sys.exit(main())
    """
    monkeypatch.setattr(DaemonProcess, "program", (sys.executable, "-c", program))
    with DaemonProcess(f"[[rtp]]\nport = {free_port_pair()}\n") as daemon:
        text = daemon.control.with_name("serstream.toml").read_text()
        assert "Permission denied: 'closed/x'" in reload(daemon, text).health.reload_error
        assert not reload(daemon, text).health.reload_error


def test_a_refused_reload_does_not_exchange_the_model_either(tmp_path: Path) -> None:
    store = repository(tmp_path / "models")
    model = f'[model]\nrepository = "{store.root}"\ndevice = "cpu"\n'
    with DaemonProcess(f"[[rtp]]\nport = {free_port_pair()}\n{model}") as daemon:
        path = daemon.control.with_name("serstream.toml")
        text = path.read_text()
        store.activate(Reference("tiny", 2))
        refused = reload(daemon, f"nonsense = 1\n{text}")
        assert (refused.model.name, refused.model.loading) == ("tiny@1", "")
        path.write_text(text)
        pointer = store.root / "active.json"
        asked = pointer.read_text()
        pointer.write_text('{"active": "tiny@9"}')
        with pytest.raises(ControlError, match="reloaded, but without another model: model tiny@9: not in"):
            ask(daemon.control, Reload())
        pointer.write_text(asked)
        assert ask(daemon.control, Reload()).model.loading == "tiny@2"


@pytest.mark.parametrize("mistake", ['[[rtp]]\nport = "x"\n', "[quality]\nnonsense = 1\n"])
def test_a_mistake_in_the_file_is_the_daemons_to_judge(
    tmp_path: Path, mistake: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Commands that read where it listens still reach it, and the reload that it refuses raises the alarm."""
    store = repository(tmp_path / "models")
    model = f'[model]\nrepository = "{store.root}"\ndevice = "cpu"\n'
    with DaemonProcess(f"[[rtp]]\nport = {free_port_pair()}\n{model}") as daemon:
        path = daemon.control.with_name("serstream.toml")
        path.write_text(mistake + path.read_text())
        monkeypatch.setenv("SERSTREAM_RTP__7__PORT", "1")  # there are not so many
        for command, told in {
            "status": "serstream ",
            "models status": "active     tiny@1",
            "models activate tiny@2": "tiny@2 is active",
            "models rollback": "tiny@1 is active again",
        }.items():
            assert main([*command.split(), "-c", str(path)]) == 0
            assert capsys.readouterr().out.startswith(told)
        assert main(["reload", "-c", str(path)]) == 2
        reason = capsys.readouterr().err.removeprefix("serstream: error: ").strip()
        assert ask_status(daemon).health.reload_error == reason != ""


def test_what_only_a_restart_changes_is_named() -> None:
    with DaemonProcess(f"[[rtp]]\nport = {free_port_pair()}\n") as daemon:
        text = daemon.control.with_name("serstream.toml").read_text()
        text = text.replace("heartbeat_s = 0.25", "heartbeat_s = 0.5") + "[model]\nthreads = 2\n"
        status = reload(daemon, text)
        assert status.feed == daemon.endpoint
        assert "changed only by a restart: model.threads: a model is exchanged" in daemon.log()
        assert "feed.heartbeat_s: subscribers are connected" in daemon.log()


def test_an_alert_that_is_never_raised_is_named_at_the_start_and_at_a_reload() -> None:
    rule = '[[alert]]\nname = "a"\nemotions = ["angri"]\n'
    told = "never says 'angri' of 'a'"
    port = f"[[rtp]]\nport = {free_port_pair()}\n"
    with DaemonProcess(port + rule) as daemon:
        assert told in daemon.log()
    with DaemonProcess(port) as daemon:
        assert told not in daemon.log()
        reload(daemon, daemon.control.with_name("serstream.toml").read_text() + rule)
        assert told in daemon.log()


def test_a_source_that_names_no_role_is_named_at_the_start_and_at_every_reload() -> None:
    number = free_port_pair()
    told = f"no role is named for rtp:{HOST}:{number}: everybody who speaks there is analysed"
    with DaemonProcess(f"[[rtp]]\nport = {number}\n") as daemon:
        text = daemon.control.with_name("serstream.toml").read_text()
        reload(daemon, text)
        assert daemon.log().count(told) == 2
        reload(daemon, text.replace("[[rtp]]", "[[rtp]]\nrole = 'customer'", 1))
        assert daemon.log().count(told) == 2
