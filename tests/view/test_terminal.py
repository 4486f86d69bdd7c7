"""`serstream live` in a real terminal, on its way out; and in a pipe."""

import os
import pty
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from scripted_feed import Script
from waiting import until

from serstream.config import FeedSettings
from serstream.feed.publisher import Publisher

LIVE = [sys.executable, "-m", "serstream", "live"]
ALTERNATE_SCREEN, MAIN_SCREEN, CURSOR = b"\x1b[?1049h", b"\x1b[?1049l", b"\x1b[?25h"


def _heed_signals() -> None:
    """As a shell has it; nohup and a job in the background leave some ignored."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


class Terminal:
    """`serstream live` on a pseudo-terminal of its own."""

    def __init__(self, endpoint: str, kind: str = "xterm"):
        self.end, self._other = pty.openpty()
        self.before = termios.tcgetattr(self._other)
        os.set_blocking(self.end, False)
        self.shown = b""
        self.process = subprocess.Popen(
            [*LIVE, endpoint], stdin=self._other, stdout=self._other, stderr=self._other,
            env=os.environ | {"TERM": kind}, start_new_session=True, preexec_fn=_heed_signals,
        )  # fmt: skip

    def shows(self, what: bytes) -> bool:
        try:
            while piece := os.read(self.end, 65536):
                self.shown += piece
        except BlockingIOError:
            pass
        return what in self.shown

    def is_as_before(self) -> bool:
        return termios.tcgetattr(self._other) == self.before

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.end)
        os.close(self._other)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_gives_the_terminal_back(number: signal.Signals, tmp_path: Path) -> None:
    terminal = Terminal(f"ipc://{tmp_path}/feed")
    try:
        assert until(lambda: terminal.shows(b"no calls yet")), terminal.shown
        assert ALTERNATE_SCREEN in terminal.shown and not terminal.is_as_before()
        terminal.process.send_signal(number)
        assert terminal.process.wait(20) == 0
        assert terminal.shows(MAIN_SCREEN), terminal.shown[-200:]
        assert terminal.shown.rindex(CURSOR) > terminal.shown.rindex(b"\x1b[?25l")
        assert terminal.is_as_before()
    finally:
        terminal.close()


def test_a_dumb_terminal_gets_lines(tmp_path: Path) -> None:
    terminal = Terminal(f"ipc://{tmp_path}/feed", kind="dumb")
    try:
        assert until(lambda: terminal.shows(b"nothing heard from ipc:")), terminal.shown
        assert b"\x1b" not in terminal.shown
    finally:
        terminal.close()


def ended(pid: int) -> int:
    """The exit code of a child, which has ten seconds to end."""
    if end := until(lambda: os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG), 10):
        return end.si_status
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    raise AssertionError("it did not end")


def test_nothing_is_said_to_a_terminal_that_is_gone(tmp_path: Path) -> None:
    errors = tmp_path / "errors"
    pid, end = pty.fork()
    if not pid:
        os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT), 2)
        os.execve(sys.executable, [*LIVE, f"ipc://{tmp_path}/feed"], os.environ | {"TERM": "xterm"})
    shown = b""
    while b"no calls yet" not in shown:
        shown += os.read(end, 65536)
    os.close(end)
    assert ended(pid) == 0
    assert errors.read_text() == ""


@pytest.fixture
def talkative(tmp_path: Path) -> Iterator[str]:
    """A feed on which a stream never stops to speak."""
    endpoint, stop = f"ipc://{tmp_path}/feed", threading.Event()

    def turn() -> None:
        publisher = Publisher(FeedSettings(endpoint=endpoint, heartbeat_s=0.1))
        script = Script("call-one", "c")
        while not stop.wait(0.02):
            publisher.publish([script.utterance(0.0, 2.0, "sad")])
            publisher.poll(time.monotonic(), time.time())
        publisher.close()

    thread = threading.Thread(target=turn)
    thread.start()
    yield endpoint
    stop.set()
    thread.join()


def test_a_closed_pipe_is_a_good_end(talkative: str) -> None:
    """As with `serstream live | head -1`."""
    with subprocess.Popen([*LIVE, talkative], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as live:
        assert live.stdout and live.stderr
        assert b"call-one customer" in live.stdout.readline()
        live.stdout.close()
        assert live.stderr.read() == b""
    assert live.returncode == 0
