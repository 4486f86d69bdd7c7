"""Sources that come and go, with what systemd stores of their sockets."""

import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile
from fake_sounddevice import FakeInputStream, FakeSounddevice
from waiting import until

from serstream.config import FileSettings, MicrophoneSettings, RtpSettings, Settings
from serstream.rehearsal import HOST, free_port_pair
from serstream.service.intake import Intake
from serstream.service.notifier import Notifier
from serstream.service.shelf import SocketShelf
from serstream.service.sources import LOOK_S, STOP_TIMEOUT_S, STUCK_S, Sources
from serstream.types import SourceEvent, StreamEnd, StreamStart


class Systemd:
    """Holds copies of the sockets that it is given to store, and never gets round to closing one."""

    def __init__(self, path: Path):
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._listener.bind(str(path))
        self._listener.setblocking(False)
        self.environment = {"NOTIFY_SOCKET": str(path)}
        self._copies: list[socket.socket] = []

    def stored(self) -> set[str]:
        """Names of what it stores now; to be asked once."""
        names: set[str] = set()
        while True:
            try:
                message, descriptors, _, _ = socket.recv_fds(self._listener, 4096, 1)
            except BlockingIOError:
                return names
            self._copies += [socket.socket(fileno=descriptor) for descriptor in descriptors]
            fields = dict(line.split("=", 1) for line in message.decode().splitlines())
            (names.add if "FDSTORE" in fields else names.discard)(fields["FDNAME"])

    def close(self) -> None:
        for copy in (self._listener, *self._copies):
            copy.close()


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    running = Systemd(tmp_path / "notify")
    yield running
    running.close()


@contextmanager
def running(intake: Intake, systemd: Systemd, *rtp: RtpSettings, **settings: object) -> Iterator[Sources]:
    shelf = SocketShelf(Notifier(dict(systemd.environment)), {})
    sources = Sources(Settings(rtp=rtp, **settings), Path(), intake, shelf)
    sources.start()
    yield sources
    sources.stop()
    assert until(lambda: not (intake.take(0) or sources.alive))


def test_a_port_that_is_changed_goes_on_with_its_socket(systemd: Systemd) -> None:
    before = RtpSettings(port=free_port_pair())
    with running(Intake(10), systemd, before) as sources:
        stored = systemd.stored()
        assert len(stored) == 2
        assert sources.reload(Settings(rtp=(RtpSettings(port=before.port, role="agent"),))) == []
        assert not systemd.stored()
        assert sources.names() == (f"rtp:{HOST}:{before.port}",)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for i in range(3):
                sender.sendto(b"\x80\0" + i.to_bytes(2) + bytes(8) + bytes(160), (HOST, before.port))
        assert until(lambda: sources.ports[0].packets.get("received"))


def test_what_a_port_no_longer_binds_is_forgotten_and_nothing_else(systemd: Systemd) -> None:
    number = free_port_pair()
    lower, upper = (RtpSettings(port=number + i, rtcp_mux=True) for i in range(2))
    with running(Intake(10), systemd, lower, upper) as sources:
        assert sources.reload(Settings(rtp=(upper,))) == []
        assert systemd.stored() == {f"udp-127-0-0-1-{number + 1}"}


def test_half_a_port_is_forgotten(systemd: Systemd) -> None:
    kept, number = RtpSettings(port=free_port_pair()), free_port_pair()
    with running(Intake(10), systemd, kept) as sources, socket.socket(type=socket.SOCK_DGRAM) as taken:
        taken.bind((HOST, number + 1))
        (fault,) = sources.reload(Settings(rtp=(kept, RtpSettings(port=number))))
        assert f"{HOST}:{number + 1}: cannot bind" in fault
        assert systemd.stored() == {f"udp-127-0-0-1-{kept.port + i}" for i in range(2)}


def test_without_an_open_port_there_is_still_something_to_wait_for(systemd: Systemd) -> None:
    with running(Intake(10), systemd, RtpSettings(port=free_port_pair())) as sources:
        assert sources.reload(Settings(rtp=(RtpSettings(address="192.0.2.1"),)))
        assert sources.names() == ()
        assert sources.alive


def test_a_recording_that_waits_for_room_does_not_hold_up_a_reload(systemd: Systemd, tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    soundfile.write(path, np.zeros(8000 * 60, np.int16), 8000)
    port, intake = RtpSettings(port=free_port_pair()), Intake(100)
    first = FileSettings(path=str(path), realtime=False)
    again = FileSettings(path=str(path), realtime=False, roles=("agent",))
    with running(intake, systemd, port, file=(first,)) as sources:
        assert until(lambda: intake._held_s)
        began = time.monotonic()
        assert sources.reload(Settings(rtp=(port,), file=(again,))) == []
        assert time.monotonic() - began < STOP_TIMEOUT_S / 2
        events: list[SourceEvent] = []

        def both_over() -> bool:
            events.extend(intake.take(0.0))
            return sum(isinstance(event, StreamEnd) for event in events) == 2

        assert until(both_over)
    told = [event for event in events if isinstance(event, StreamStart | StreamEnd)]
    assert [event.reason if isinstance(event, StreamEnd) else event.role for event in told] == [
        *("unknown", "shutdown"),
        *("agent", "eof"),
    ]


def test_many_slow_ends_hold_up_a_new_source_no_longer_than_one(
    monkeypatch: pytest.MonkeyPatch, systemd: Systemd, tmp_path: Path
) -> None:
    began: list[float] = []
    fake = FakeSounddevice("USB", scripts=[lambda _: began.append(time.monotonic())])
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    monkeypatch.setattr("serstream.service.sources.STOP_TIMEOUT_S", 1.0)
    path = tmp_path / "long.wav"
    soundfile.write(path, np.zeros(8000 * 60, np.int16), 8000)
    slow = [FileSettings(path=str(path), call=f"call-{i}", realtime=False) for i in range(6)]
    intake = Intake(100)
    with running(intake, systemd, file=slow) as sources:
        assert until(lambda: intake._held_s > 0)  # from now on they wait for room, deaf to a stop
        reloaded = time.monotonic()
        assert sources.reload(Settings(microphone=(MicrophoneSettings(device="USB"),))) == []
        assert until(lambda: bool(began))
        assert 1.0 <= began[0] - reloaded < 3.0
        assert "microphone:USB" not in sources.stuck(began[0] + STUCK_S - 0.5)


def test_time_in_which_nobody_could_look_is_not_silence(systemd: Systemd, tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    soundfile.write(path, np.zeros(8000 * 60, np.int16), 8000)
    silent = FileSettings(path=str(path), realtime=False)
    intake = Intake(10)
    with running(intake, systemd, file=(silent,)) as sources:
        assert until(lambda: intake._held_s > 0)  # from now on it waits for room, and is not heard
        now = time.monotonic()
        assert silent.label not in sources.stuck(now)
        now += 3 * STUCK_S  # the process was stopped, and no other thread had its turn since
        assert silent.label not in sources.stuck(now)
        looks = [silent.label in sources.stuck(now + i * LOOK_S) for i in range(1, 12)]
        assert looks[0] is False and looks[-1] is True


def test_of_two_equal_microphones_a_reload_ends_the_one_that_is_not_wanted_any_more(
    monkeypatch: pytest.MonkeyPatch, systemd: Systemd
) -> None:
    fake = FakeSounddevice("USB", scripts=[lambda _: None] * 2)
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    microphone = MicrophoneSettings(device="USB")
    with running(Intake(10), systemd, microphone=(microphone, microphone)) as sources:
        assert sources.names() == ("microphone:USB",) * 2
        assert sources.reload(Settings(microphone=(microphone,))) == []
        assert sources.names() == ("microphone:USB",)
        assert len(sources) == 1


def test_what_microphones_lose_is_counted_by_device(
    monkeypatch: pytest.MonkeyPatch, systemd: Systemd
) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", fake := FakeSounddevice("Headset", "USB"))

    def overflows(stream: FakeInputStream) -> None:
        stream.bring(0.25)
        stream.bring(0.5, lost_before=24_000)

    fake.scripts = [overflows] * 3
    microphones = tuple(MicrophoneSettings(device=name) for name in ("Headset", "Headset", "USB"))
    with running(Intake(10), systemd, microphone=microphones) as sources:
        lost = {"microphone:Headset": 1.0, "microphone:USB": 0.5}
        assert until(lambda: sources.microphone_lost_s == lost), sources.microphone_lost_s
