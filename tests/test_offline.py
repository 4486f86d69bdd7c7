import fcntl
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
from waiting import until

from serstream import offline
from serstream.config import ModelSettings, Settings
from serstream.emotion.model import EmotionModel
from serstream.errors import SourceError
from serstream.feed.coding import encode
from serstream.offline import find_jobs
from serstream.replay import recording_events, replay
from serstream.replay_command import replay_into
from serstream.shipped import SAMPLE_CALL

CLIPS = sorted((Path(__file__).parent / "fixtures" / "emo-db").glob("*.flac"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two recordings, one of them a folder deeper, two damaged ones, and something else."""
    (tmp_path / "in" / "deeper").mkdir(parents=True)
    shutil.copy(CLIPS[0], tmp_path / "in" / "a.flac")
    shutil.copy(CLIPS[1], tmp_path / "in" / "deeper" / "b.flac")
    (tmp_path / "in" / "broken.wav").write_bytes(b"RIFF nothing")
    (tmp_path / "in" / "fast.wav").write_bytes(
        struct.pack("<4sI8sIHHIIHH4sI", b"RIFF", 44, b"WAVEfmt ", 16, 1, 1, 2**31 - 1, 0, 2, 16, b"data", 8)
        + bytes(8)
    )
    (tmp_path / "in" / "notes.txt").write_text("no recording")
    return tmp_path / "in"


def run(folder: Path, model: Path) -> int:
    settings = Settings(model=ModelSettings(path=str(model)))
    return replay_into(folder.parent / "out", [folder], settings, Path(), (), processes=2)


def test_every_recording_gets_the_events_that_replay_gives(
    folder: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(folder, tiny_model) == 2
    errors = capsys.readouterr().err
    assert "broken.wav" in errors.replace("\n", "")
    assert "fast.wav: says that it has 2147483647 samples a second, wanted at most 768000" in errors
    assert "2 scored, 0 already there, 2 failed" in errors
    out = folder.parent / "out"
    assert sorted(p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()) == [
        "a.flac.jsonl",
        "deeper/b.flac.jsonl",
    ]
    model = EmotionModel(tiny_model)
    events = replay(recording_events(folder / "a.flac", (), Settings()), Settings(), model)
    assert (out / "a.flac.jsonl").read_bytes() == b"".join(encode(event) + b"\n" for event in events)


def test_what_is_there_already_is_not_scored_again(
    folder: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder.parent / "out").mkdir()
    (folder.parent / "out" / "a.flac.jsonl").write_text("kept\n")
    run(folder, tiny_model)
    assert "1 scored, 1 already there, 2 failed" in capsys.readouterr().err
    assert (folder.parent / "out" / "a.flac.jsonl").read_text() == "kept\n"


def begin_run(tmp_path: Path) -> subprocess.Popen[str]:
    """300 recordings, in a session of their own."""
    (tmp_path / "in").mkdir()
    for i in range(300):
        (tmp_path / "in" / f"{i}.wav").symlink_to(SAMPLE_CALL)
    command = [sys.executable, "-m", "serstream", "replay", str(tmp_path / "in"), "-o", str(tmp_path / "out")]
    return subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Who runs the tests in the background has SIGINT ignored, and so would their processes.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


@pytest.mark.parametrize("moment", ["while the workers start", "after the first recording"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_says_so_and_leaves_whole_files(
    tmp_path: Path, moment: str, number: signal.Signals
) -> None:
    process = begin_run(tmp_path)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    deadline = time.monotonic() + 60
    while True:
        assert process.poll() is None and time.monotonic() < deadline
        if moment == "while the workers start":
            if len(children.read_text().split()) > 1:  # beside multiprocessing's resource tracker
                break
        elif list(tmp_path.glob("out/*.jsonl")):
            break
        time.sleep(0.01)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does: to all processes
    else:
        process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert errors.endswith("serstream: interrupted\n") and "Traceback" not in errors
    files = [path for path in tmp_path.glob("out/*") if path.is_file()]
    assert len(files) < 300
    assert len({file.read_bytes().count(b"\n") for file in files}) <= 1, "none is cut off"


def test_a_killed_run_leaves_no_workers_and_the_next_one_removes_its_files(
    tmp_path: Path, tiny_model: Path
) -> None:
    process = begin_run(tmp_path)
    assert until(lambda: [*tmp_path.glob("out/.*")])
    process.kill()
    process.communicate(timeout=20)  # until the last of them lets go of stderr
    (tmp_path / "out" / ".killed.wav.jsonl.1").touch()
    settings = Settings(model=ModelSettings(path=str(tiny_model)))
    job = offline.Job(CLIPS[0], tmp_path / "out" / "one.jsonl")
    with (tmp_path / "out" / ".other.wav.jsonl.1").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # as a run that goes on does
        assert [done.error for done in offline.score_all([job], settings, Path(), (), 1)] == [""]
    assert [path.name for path in tmp_path.glob("out/.*")] == [".other.wav.jsonl.1"]


def test_a_defect_holds_up_no_other_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("found by chance")

    monkeypatch.setattr(offline, "replay", broken)
    monkeypatch.setattr(offline, "_model", None, raising=False)
    done = offline._score(offline.Job(CLIPS[0], tmp_path / "a.jsonl"), Settings(), Path(), ())
    assert done.error.startswith(f"{CLIPS[0]}: a defect of serstream, please report it\nTraceback")
    assert done.error.endswith("ZeroDivisionError: found by chance")
    assert not list(tmp_path.iterdir())


def test_recordings_that_would_share_their_events_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "y").mkdir()
    shutil.copy(CLIPS[0], tmp_path / "x" / "a.flac")
    shutil.copy(CLIPS[1], tmp_path / "y" / "a.flac")
    with pytest.raises(SourceError, match=r"would both write .*a\.flac\.jsonl"):
        find_jobs([tmp_path / "x", tmp_path / "y"], tmp_path / "out")


def test_nothing_to_do_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no recording found"):
        find_jobs([tmp_path], tmp_path / "out")
    with pytest.raises(SourceError, match="no such file or folder"):
        find_jobs([tmp_path / "none"], tmp_path / "out")


def test_events_that_cannot_be_written_are_told(
    folder: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder.parent / "out").mkdir()
    (folder.parent / "out" / "deeper").write_text("in the way")
    assert run(folder, tiny_model) == 2
    told = capsys.readouterr().err
    assert "b.flac.jsonl: cannot write them: " in told
    assert "1 scored, 0 already there, 3 failed" in told
