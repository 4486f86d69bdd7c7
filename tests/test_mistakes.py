"""What an operator mistypes is answered with what was seen, what is wanted and what to do, not a trace."""

from pathlib import Path

import pytest

from serstream.cli import main

LONG = 300 * "x"
"""A name that the system refuses to look up, as it does one in a folder that may not be entered."""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with what is no recording, no key and no model."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("hello\n")
    (tmp_path / "empty.wav").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "marked.toml").write_bytes(b"\xef\xbb\xbf[[rtp]]\nport = 0\n")
    (tmp_path / "rtp.toml").write_text("[[rtp]]\n[control]\nsocket = 'none'\n[metrics]\nport = 0\n")


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("check none.toml", "none.toml: cannot read it: No such file or directory; give the path of a"),
        ("check folder", "folder: cannot read it: Is a directory; give the path of a serstream.toml"),
        ("run -c text.txt", "configuration text.txt: not TOML"),
        ("run -c rtp.toml --set feed.endpoint=ipc://none/feed", "there is no folder none; make it"),
        ("run -c rtp.toml --set feed.history=0.5", "feed.history is 0.5: wanted a whole number"),
        ("check marked.toml", "rtp[0].port is 0: wanted a whole number >= 1"),
        ("status -c rtp.toml", "no daemon listens at"),
        ("reload -c rtp.toml", "start it with 'serstream run'"),
        ("replay none.wav", "file none.wav: no such file; give the path of a recording"),
        ("replay text.txt", "file text.txt: not a recording that libsndfile can read; wanted one of"),
        ("replay empty.wav", "file empty.wav: not a recording that libsndfile can read; wanted one of"),
        ("replay folder", "file folder: a folder; give the path of a recording ('serstream replay -o'"),
        ("replay folder -o out", "folder: no recording found; looked for .aif,"),
        ("replay none -o out", "none: no such file or folder; give recordings"),
        ("replay empty.wav -o text.txt", "output text.txt: a file, wanted a folder for the events"),
        ("replay empty.wav -j 0", "--jobs is 0, wanted at least 1"),
        ("replay empty.wav --roles boss", "'boss': wanted one of agent, customer, unknown"),
        ("replay text.txt --rules rtp.toml", "rtp.toml: has no [[alert]], wanted the rules to try"),
        (
            "replay text.txt --rules rtp.toml -c rtp.toml --roles agent -o out -j 2",
            "replay --rules with -c, --roles, -o, -j: rules are tried on events",
        ),
        ("report text.txt -o x.html", "text.txt, line 1: message b'hello\\n': JSON is malformed"),
        (
            "report none.jsonl -o x.html",
            "cannot read it: No such file or directory; wanted the JSON lines of",
        ),
        ("listen nonsense", "feed endpoint 'nonsense': wanted tcp://HOST:PORT"),
        ("listen --keys none.toml", "keys none.toml: cannot read them: No such file or directory; ask for"),
        ("listen --keys text.txt", "keys text.txt: not a key file"),
        ("keys new a/b", "client name 'a/b': wanted 1 to 64 letters"),
        ("keys new anna --keys text.txt", "Not a directory; give another directory (--keys) or file (-o)"),
        ("bench capacity --seconds 0", "--seconds 0.0, wanted a share above 0"),
        ("models show nope", "model 'nope': not in"),
        ("models activate cnn-lstm@99 -c rtp.toml", "model cnn-lstm@99: not in"),
        ("models activate cnn-lstm@x -c rtp.toml", "model 'cnn-lstm@x': wanted NAME@VERSION"),
        ("models list --set model.repository=folder", "no version is active; choose one with 'serstream mod"),
        (
            "models list --set model.repository=none",
            "models none: no such folder; set model.repository to one",
        ),
        ("models verify text.txt", "model text.txt: not ONNX"),
        ("models verify none", "model none: no such file; give a version's folder or a model.onnx"),
        ("models verify a\x1bb", r"model a\x1bb: no such file"),
        ("models verify folder", "model folder/model.onnx: no such file; give a version's folder"),
        (f"models verify {LONG}", f"model {LONG}: cannot read it: File name too long"),
        (f"check rtp.toml --set model.path={LONG}", f"model {LONG}: cannot read it: File name too long"),
        (f"check rtp.toml --set feed.endpoint=ipc://{LONG}/feed", f"there is no folder {LONG}; make it"),
        ("check rtp.toml --set control.socket=a\0", r"a\x00 has a zero byte in its path, wanted none"),
        ("check rtp.toml --set feed.keys=a\0", "server.toml: not a key file: embedded null byte"),
        ("check rtp.toml --set model.repository=a\0", "active.json: cannot read it: embedded null byte"),
        (f"replay {LONG} -o out", f"{LONG}: no such file or folder; give recordings"),
        (f"replay empty.wav -o {LONG}", "file empty.wav: not a recording that libsndfile"),
        (f"keys new anna --keys {LONG}", "File name too long; give another directory (--keys) or file (-o)"),
        ("check rtp.toml --set model.path=folder", "model folder: a folder; give the path of a model.onnx"),
    ],
)
def test_a_mistake_is_answered_with_advice(
    command: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command.split()) == 2
    error = capsys.readouterr().err
    assert "serstream: error: " in error
    assert told in error


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("--streams=abc", "--streams: 'abc', wanted whole numbers with a comma between them"),
        ("--streams=100,", "--streams: '100,', wanted whole numbers"),
        ("--streams=50,0", "--streams: '50,0', wanted at least one stream in each step"),
        ("--streams=-3", "--streams: '-3', wanted at least one stream in each step"),
        ("--cores=all", "--cores: 'all', wanted whole numbers"),
    ],
)
def test_a_number_that_is_none_is_answered_with_one(
    option: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["bench", "capacity", option])
    assert end.value.code == 2
    assert told in capsys.readouterr().err


def test_one_bad_recording_of_several_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["classify", "none.wav", "folder", "empty.wav"]) == 1
    assert capsys.readouterr().err.count("serstream: error: file ") == 3
