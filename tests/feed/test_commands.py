"""The commands around the feed, as a user types them."""

import logging
import re
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from feed_thread import daemon
from scripted_feed import Script, call

from serstream.cli import main
from serstream.feed import silence
from serstream.feed.coding import encode
from serstream.feed.keys import ClientKeys, ServerKeys


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"\n".join(map(encode, call("a", windows=20))))
    return path


def test_keys_new(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "anna.toml"
    assert main(["keys", "new", "anna", "--keys", str(tmp_path / "keys"), "-o", str(file)]) == 0
    assert "hand it to anna" in capsys.readouterr().out
    assert ClientKeys.load(file).server == ServerKeys.load(tmp_path / "keys").public
    assert main(["keys", "new", "anna", "--keys", str(tmp_path / "keys"), "-o", str(file)]) == 2
    assert "'anna' has a key already" in capsys.readouterr().err


class Steps(logging.Handler):
    """Something happens whenever something is logged, and Ctrl-C in the end."""

    def __init__(self, *steps: Callable[[], object]):
        super().__init__(logging.WARNING)
        self._steps = iter(steps)

    def emit(self, record: logging.LogRecord) -> None:
        for step in self._steps:
            step()
            return
        raise KeyboardInterrupt


def test_listen_tells_that_a_daemon_is_silent_heard_again_and_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(silence, "SILENT_S", 0.0)
    feed, running = f"ipc://{tmp_path}/feed", ExitStack()
    steps = Steps(lambda: running.enter_context(daemon(feed)), running.close)
    monkeypatch.setattr(logging.root, "handlers", [*logging.root.handlers, steps])
    assert main(["listen", feed]) == 0
    silent, back, gone = caplog.messages
    assert re.fullmatch(rf"nothing heard from {feed} for \d s; is it running\?", silent)
    assert back == f"{feed} is heard again"
    assert re.fullmatch(rf"nothing heard from {feed} for \d s; is it running\?", gone)


def test_listen_with_keys_names_every_feed_that_is_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(silence, "SILENT_S", 0.0)
    monkeypatch.setattr(logging.root, "handlers", [*logging.root.handlers, Steps(lambda: None)])
    keys = tmp_path / "anna.toml"
    assert main(["keys", "new", "anna", "--keys", str(tmp_path / "keys"), "-o", str(keys)]) == 0
    feeds = [f"ipc://{tmp_path}/{name}" for name in ("one", "two")]
    assert main(["listen", *feeds, "--keys", str(keys)]) == 0
    assert [line.partition(" for ")[0] for line in caplog.messages] == [
        f"nothing heard from {f}" for f in feeds
    ]
    assert all(line.endswith("; is it running, and are these its keys?") for line in caplog.messages)


def test_report(recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "call.html"
    assert main(["report", str(recording), "-o", str(page)]) == 0
    assert capsys.readouterr().out.strip() == str(page)
    assert "<svg" in page.read_text()


def test_export(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "--emotionml", str(recording)]) == 0
    assert "<emotionml" in capsys.readouterr().out


def test_replay_with_rules(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = Script("a", "a-c")
    recording = tmp_path / "events.jsonl"
    recording.write_bytes(b"\n".join(encode(script.window(float(end), "angry")) for end in range(2, 1801)))
    rules = tmp_path / "rules.toml"
    rules.write_text('[[alert]]\nname = "anger"\nemotions = ["angry"]\n')
    assert main(["replay", "--rules", str(rules), str(recording)]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "anger" in line]
    assert [cell.strip() for cell in line.strip("│ ").split("│")][:5] == [
        "anger",
        "any",
        "warning",
        "1",
        "2.0",
    ]


def test_a_rule_is_one_line_off_a_terminal_and_its_keys_may_be_set(
    recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rules = tmp_path / "rules.toml"
    name = "customers of the second line who have been kept waiting"
    rules.write_text(f'[[alert]]\nname = "{name}"\nemotions = ["angry"]\n')
    command = ["replay", "--rules", str(rules), "--set", "alert[0].severity=critical", str(recording)]
    assert main(command) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if name in line]
    assert "critical" in line


def test_a_bad_recording_is_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path / "none.jsonl"), "-o", str(tmp_path / "x.html")]) == 2
    assert "none.jsonl: cannot read it" in capsys.readouterr().err
