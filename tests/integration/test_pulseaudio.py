"""The microphone against a real sound server: PulseAudio with a null sink, in a directory of its own."""

import json
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.signal
import soundfile
import soxr
from sound_server import SoundServer, missing

HERE = Path(__file__).parent
CLIP = HERE.parent / "fixtures" / "emo-db" / "03a04Fd.flac"

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())


class Microphone:
    """A MicrophoneSource in another process."""

    def __init__(self, server: SoundServer, folder: Path, **table: object):
        self._path = folder / "recorded.npz"
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "record_microphone.py"), json.dumps(table), str(self._path)],
            env=server.env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._events: queue.Queue[dict[str, Any]] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._events.put(json.loads(line))

    def expect(self, event: str) -> dict[str, Any]:
        """The next event, which must be of that kind."""
        seen = self._events.get(timeout=15)
        assert seen["event"] == event, seen
        return seen

    def stop(self) -> dict[str, np.ndarray]:
        """End the source; samples per stream."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert self._process.wait(10) == 0
        with np.load(self._path) as recorded:
            return dict(recorded)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[SoundServer]:
    server = SoundServer(tmp_path)
    yield server
    server.kill()


@pytest.fixture
def microphones() -> Iterator[list[Microphone]]:
    started: list[Microphone] = []
    yield started
    for microphone in started:
        microphone.kill()


def clip() -> np.ndarray:
    samples, rate = soundfile.read(CLIP, dtype="float32")
    assert rate == 16000
    return samples


def find(piece: np.ndarray, recording: np.ndarray) -> tuple[int, float]:
    """Where a piece lies in a recording, and how alike they are there (correlation coefficient)."""
    lag = int(np.argmax(scipy.signal.correlate(recording, piece, mode="valid")))
    return lag, float(np.corrcoef(recording[lag : lag + len(piece)], piece)[0, 1])


def test_what_is_played_is_what_the_source_emits(
    server: SoundServer, microphones: list[Microphone], tmp_path: Path
) -> None:
    microphone = Microphone(server, tmp_path, device="pulse", role="agent", call="desk-7")
    microphones.append(microphone)
    start = microphone.expect("start")
    assert (start["call"], start["role"], start["source"]) == ("desk-7", "agent", "microphone:pulse")
    rate = microphone.expect("sound")["rate"]
    server.play(CLIP)
    recorded = microphone.stop()
    assert microphone.expect("end")["reason"] == "shutdown"
    assert microphone.expect("done")["lost_s"] == 0
    heard, played = soxr.resample(recorded[start["stream"]], rate, 16000), clip()
    begin, alike = find(played, heard)
    assert alike > 0.95
    # Not a sample is missing or double in between: the last second lies exactly where the first one says.
    tail, alike = find(played[-16000:], heard)
    assert alike > 0.95
    assert abs(tail - begin - (len(played) - 16000)) <= 1


def test_sound_server_dies_and_comes_back(
    server: SoundServer, microphones: list[Microphone], tmp_path: Path
) -> None:
    microphone = Microphone(server, tmp_path, reconnect_s=1.0)
    microphones.append(microphone)
    first = microphone.expect("start")["stream"]
    microphone.expect("sound")
    server.kill()
    assert microphone.expect("end") == {"event": "end", "stream": first, "reason": "lost"}
    server.start()
    second = microphone.expect("start")["stream"]
    assert second != first
    rate = microphone.expect("sound")["rate"]
    server.play(CLIP)
    recorded = microphone.stop()
    assert find(clip(), soxr.resample(recorded[second], rate, 16000))[1] > 0.95


def test_device_falls_silent_and_wakes_up(
    server: SoundServer, microphones: list[Microphone], tmp_path: Path
) -> None:
    microphone = Microphone(server, tmp_path, reconnect_s=0.5)
    microphones.append(microphone)
    first = microphone.expect("start")["stream"]
    microphone.expect("sound")
    server.process.send_signal(signal.SIGSTOP)
    threading.Event().wait(1.0)  # the silence itself
    server.process.send_signal(signal.SIGCONT)
    assert microphone.expect("end") == {"event": "end", "stream": first, "reason": "lost"}
    assert microphone.expect("start")["stream"] != first
    microphone.expect("sound")
    microphone.stop()


def test_no_such_microphone_lists_the_ones_there_are(
    server: SoundServer, microphones: list[Microphone], tmp_path: Path
) -> None:
    microphone = Microphone(server, tmp_path, device="Jabra")
    microphones.append(microphone)
    message = microphone.expect("error")["message"]
    assert message.startswith("microphone 'Jabra': no such device")
    assert "pulse (ALSA, 44100 Hz)" in message
