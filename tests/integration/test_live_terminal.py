"""The live view in a real terminal: tmux, a real feed, real keys."""

import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from scripted_feed import EPOCH, Script
from waiting import until

from serstream.config import FeedSettings
from serstream.feed.publisher import Publisher

pytestmark = pytest.mark.skipif(not shutil.which("tmux"), reason="needs Debian's tmux")


@pytest.fixture
def feed(tmp_path: Path) -> Iterator[tuple[str, threading.Event]]:
    """Two live calls that began 95 s ago by the daemon's clock; the event silences the feed."""
    endpoint, silent, stop = f"ipc://{tmp_path}/feed", threading.Event(), threading.Event()

    def turn() -> None:
        publisher = Publisher(FeedSettings(endpoint=endpoint, heartbeat_s=0.1))
        scripts = [Script("call-one", "c"), Script("call-two", "c")]
        publisher.publish([message for s in scripts for message in (s.started(), s.window(8.0, "sad"))])
        publisher.publish([scripts[1].alert(8.0)])
        began = time.monotonic()
        while not stop.wait(0.01):
            if not silent.is_set():
                now = time.monotonic()
                publisher.poll(now, EPOCH + 95.0 + now - began)
        publisher.close()

    thread = threading.Thread(target=turn)
    thread.start()
    yield endpoint, silent
    stop.set()
    thread.join()


def test_a_supervisor_can_work_with_it(feed: tuple[str, threading.Event], tmp_path: Path) -> None:
    endpoint, silent = feed
    socket = str(tmp_path / "tmux")

    def tmux(*arguments: str) -> str:
        command = ["tmux", "-S", socket, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def screen() -> str:
        return tmux("capture-pane", "-p", "-t", "live")

    # A size in the environment would be believed instead of the terminal's.
    live = f"env -u LINES -u COLUMNS {sys.executable} -m serstream live {endpoint}"
    run = f"{live}; echo left with $?; sleep 60"
    tmux("-f", "/dev/null", "new-session", "-d", "-s", "live", "-x", "80", "-y", "24", run)
    try:
        assert until(lambda: "call-one" in screen() and "call-two" in screen()), screen()
        rows = [line for line in screen().splitlines() if "call-" in line]
        assert "call-two" in rows[0], "the call with the alert comes first"
        assert until(lambda: bool(re.search(r"call-two .* 1:[345]\d\n", screen()))), screen()
        tmux("send-keys", "-t", "live", "/", "o", "n", "e", "Enter")
        assert until(lambda: "call-two" not in screen()), screen()
        tmux("send-keys", "-t", "live", "Escape")
        assert until(lambda: "call-two" in screen()), screen()
        tmux("send-keys", "-t", "live", "Down", "Enter")
        assert until(lambda: "call call-two" in screen() and "anger raised" in screen()), screen()
        tmux("resize-window", "-t", "live", "-x", "60", "-y", "12")
        assert until(lambda: len(screen().splitlines()) <= 12 and "esc back" in screen()), screen()
        silent.set()
        assert until(lambda: "STALE" in screen()), screen()
        silent.clear()
        assert until(lambda: "STALE" not in screen()), screen()
        tmux("send-keys", "-t", "live", "q")
        assert until(lambda: "left with 0" in screen()), screen()
    finally:
        tmux("kill-server")
