import subprocess
import sys
import threading

import pytest
from fake_sounddevice import FakeInputStream, FakeSounddevice

from serstream.audio import portaudio
from serstream.audio.portaudio import find_input, input_devices, open_input, refresh_devices
from serstream.errors import SourceError

NAMES = ("Webcam", "USB Headset: Audio (hw:1,0)", "USB Headset: Audio (hw:2,0)", "USB")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeSounddevice:
    fake = FakeSounddevice(*NAMES)
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    return fake


def test_devices_as_people_read_them(fake: FakeSounddevice) -> None:
    assert [str(device) for device in input_devices()][:2] == [
        "0: Webcam (ALSA, 48000 Hz, default)",
        "1: USB Headset: Audio (hw:1,0) (ALSA, 48000 Hz)",
    ]


@pytest.mark.parametrize(
    ("wanted", "index"),
    [(None, 0), (2, 2), ("webcam", 0), ("hw:2,0", 2), ("USB", 3), (NAMES[1], 1)],
)
def test_find_by_index_part_of_name_or_default(
    fake: FakeSounddevice, wanted: str | int | None, index: int
) -> None:
    assert find_input(wanted).index == index


@pytest.mark.parametrize("wanted", ["Jabra", 4, 99, -1, "loudspeaker"])
def test_no_such_device_lists_the_ones_there_are(fake: FakeSounddevice, wanted: str | int) -> None:
    with pytest.raises(
        SourceError, match=rf"microphone {wanted!r}: no such device.*0: Webcam .*; 1: .*; 3: USB"
    ):
        find_input(wanted)


def test_several_devices_fit(fake: FakeSounddevice) -> None:
    with pytest.raises(
        SourceError, match=r"'headset': 2 devices have this in their name.*hw:1,0.*hw:2,0"
    ) as info:
        find_input("headset")
    assert "Webcam" not in str(info.value)


def test_no_device_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", FakeSounddevice())
    with pytest.raises(SourceError, match=r"microphone default: no such device.*one of: none"):
        find_input(None)


def test_portaudio_refuses_to_open(fake: FakeSounddevice) -> None:
    def refuse(_stream: FakeInputStream) -> None:
        raise fake.PortAudioError("Device unavailable")

    fake.scripts = [refuse]
    with (
        pytest.raises(
            SourceError, match=r"microphone Webcam at 48000 Hz: PortAudio: Device unavailable; see"
        ),
        open_input(find_input(0), lambda *_: None, lambda: None),
    ):
        pass
    refresh_devices()
    assert fake.starts == 2
    assert fake.opened[0].closed


def test_list_is_renewed_only_while_nobody_records(fake: FakeSounddevice) -> None:
    fake.scripts = [lambda stream: None]
    with open_input(find_input(0), lambda *_: None, lambda: None):
        refresh_devices()
        assert fake.starts == 1
    refresh_devices()
    assert fake.starts == 2


def test_stream_that_cannot_be_closed_blocks_nobody(
    fake: FakeSounddevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(portaudio, "CLOSE_TIMEOUT_S", 0.01)
    answered, closed = threading.Event(), threading.Event()

    def hang(stream: FakeInputStream, ignore_errors: bool) -> None:
        answered.wait(10)
        closed.set()

    monkeypatch.setattr(FakeInputStream, "close", hang)
    fake.scripts = [lambda stream: None]
    with open_input(find_input(0), lambda *_: None, lambda: None):
        pass
    assert not closed.is_set()
    refresh_devices()
    assert fake.starts == 1, "PortAudio was restarted under an open stream"
    answered.set()
    for thread in threading.enumerate():
        if thread.name == "portaudio-close":
            thread.join(10)
    refresh_devices()
    assert fake.starts == 2


def test_start_that_fails_can_be_tried_again(fake: FakeSounddevice) -> None:
    fake.faults = 2
    for _ in range(2):
        with pytest.raises(SourceError, match="Unanticipated host error"):
            refresh_devices()
    refresh_devices()
    assert len(input_devices()) == len(NAMES)


def test_missing_library_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    class NoLibrary:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "sounddevice":
                raise OSError("PortAudio library not found")

    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.setattr(sys, "meta_path", [NoLibrary(), *sys.meta_path])
    with pytest.raises(SourceError, match=r"PortAudio library not found.*apt-get install libportaudio2"):
        input_devices()


def test_import_needs_no_sounddevice() -> None:
    code = (
        "import sys, serstream.audio.file, serstream.audio.microphone; sys.exit('sounddevice' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
