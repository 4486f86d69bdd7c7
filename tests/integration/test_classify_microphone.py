"""``serstream classify --microphone`` in a real terminal, with a real sound server and real keys."""

import contextlib
import json
import os
import pty
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sound_server import SoundServer, missing
from waiting import until

CLIP = Path(__file__).parents[1] / "fixtures" / "emo-db" / "14a05Wa.flac"

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())


@pytest.fixture
def server(tmp_path: Path) -> Iterator[SoundServer]:
    server = SoundServer(tmp_path)
    yield server
    server.kill()


class Terminal:
    """A command whose keys and messages go over a pseudo-terminal; its output goes to a pipe."""

    def __init__(self, command: list[str], env: dict[str, str]):
        self._end, other = pty.openpty()
        self.process = subprocess.Popen(
            command, stdin=other, stderr=other, stdout=subprocess.PIPE, env=env, text=True
        )
        os.close(other)
        self.shown = ""
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        """All the time: a terminal that is not read stops who writes to it."""
        with contextlib.suppress(OSError):  # the command has ended
            while piece := os.read(self._end, 4096):
                self.shown += piece.decode(errors="replace")

    def press(self, key: str) -> None:
        os.write(self._end, key.encode())

    def until(self, text: str) -> None:
        """Wait until the screen has shown a text."""
        assert until(lambda: text in self.shown), self.shown

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()
        os.close(self._end)


@pytest.fixture
def terminal(server: SoundServer, tmp_path: Path) -> Iterator[Terminal]:
    command = [sys.executable, "-m", "serstream", "classify", "--microphone", "--json", "--picture"]
    terminal = Terminal([*command, str(tmp_path / "me.svg")], server.env | {"TERM": "xterm"})
    yield terminal
    terminal.close()


def test_a_key_starts_and_a_key_stops(server: SoundServer, terminal: Terminal, tmp_path: Path) -> None:
    terminal.until("Press a key to start")
    terminal.press(" ")
    terminal.until("recording")
    server.play(CLIP)
    terminal.press("\n")
    out, _ = terminal.process.communicate(timeout=20)
    assert terminal.process.returncode == 0
    verdict = json.loads(out)
    assert verdict["recording"] == "microphone"
    assert 3 < verdict["speech_s"] <= verdict["seconds"], "the clip lasts four seconds"
    command = [sys.executable, "-m", "serstream", "classify", "--json", str(CLIP)]
    played = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert verdict["emotion"] == played["emotion"]
    assert verdict["confidence"] == pytest.approx(played["confidence"], abs=0.2)
    assert f"{verdict['emotion']} {verdict['confidence']:.0%}" in (tmp_path / "me.svg").read_text()
