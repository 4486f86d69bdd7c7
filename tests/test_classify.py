import json
import os
import shlex
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile
from tiny_model import LABELS, write_model

from serstream.audio import microphone
from serstream.classify import Classified, classify
from serstream.cli import main
from serstream.config import FileSettings, MicrophoneSettings, SegmenterSettings, Settings
from serstream.emotion.model import EmotionModel
from serstream.feed.messages import WindowEmotion
from serstream.replay import recording_events, replay
from serstream.shipped import SAMPLE_CALL
from serstream.types import AudioBlock, AudioChunk, Emit, Samples, SourceEvent, StreamEnd, StreamStart
from serstream.view import keyboard, sketch

CLIPS = sorted((Path(__file__).parent / "fixtures" / "emo-db").glob("*.flac"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> EmotionModel:
    return EmotionModel(write_model(tmp_path_factory.mktemp("model") / "model.onnx"))


def heard(path: Path, model: EmotionModel, keep_s: float = 0.0) -> list[Classified]:
    settings = Settings()
    return classify(str(path), recording_events(path, (), settings), settings, model, keep_s)


def test_a_verdict_is_the_mean_over_the_windows_that_the_daemon_would_publish(model: EmotionModel) -> None:
    (clip,) = heard(CLIPS[3], model)
    settings = Settings()
    windows = [
        message
        for message in replay(recording_events(CLIPS[3], (), settings), settings, model)
        if isinstance(message, WindowEmotion)
    ]
    assert clip.windows == windows
    assert len(windows) > 1
    for label in LABELS:
        expected = np.mean([window.probabilities[label] for window in windows])
        assert clip.verdict.probabilities[label] == pytest.approx(expected, abs=1e-4)
    assert clip.verdict.confidence == max(clip.verdict.probabilities.values())
    assert clip.verdict.model == "tiny@1"
    assert len(clip.samples) == 0


def test_every_channel_has_its_verdict_and_the_sound_that_was_asked_for(model: EmotionModel) -> None:
    customer, agent = heard(SAMPLE_CALL, model, keep_s=1e9)
    sound, rate = soundfile.read(SAMPLE_CALL, dtype="float32")
    assert customer.sample_rate == agent.sample_rate == rate
    np.testing.assert_array_equal(customer.samples, sound[:, 0])
    np.testing.assert_array_equal(agent.samples, sound[:, 1])
    assert customer.verdict.utterances[0].start > 1 > agent.verdict.utterances[0].start
    short = heard(SAMPLE_CALL, model, keep_s=2.0)[0]
    assert len(short.samples) == pytest.approx(2 * rate, abs=rate / 10)


def test_sound_of_busy_ports_is_kept_as_well(model: EmotionModel) -> None:
    speech, _ = soundfile.read(SAMPLE_CALL, dtype="int16")
    n_packets = 500
    packets = speech[: 160 * n_packets].T.reshape(2, n_packets, 160)
    names = ("a", "b")
    events: list[SourceEvent] = [StreamStart(name, "call", "unknown", "rtp:5004", 0.0) for name in names]
    events += [
        AudioBlock(names, packets[:, k], 8000, (160 * k, 160 * k), (0.0, 0.0)) for k in range(n_packets)
    ]
    events += [StreamEnd(name, "bye") for name in names]
    for stream, channel in zip(classify("call", events, Settings(), model, 1e9), speech.T, strict=True):
        np.testing.assert_array_equal(stream.samples * 32768, channel[: 160 * n_packets])
        assert stream.verdict.utterances


def beep(seconds: float, rate: int) -> Samples:
    return (0.5 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def test_sound_lies_where_it_was_heard(model: EmotionModel) -> None:
    """The source leaves long silence out, and a codec that changes in mid-call brings another rate."""
    events = [
        StreamStart("a", "call", "unknown", "rtp:5004", 0.0),
        AudioChunk("a", beep(1.0, 8000), 8000, 0),
        AudioChunk("a", beep(1.0, 8000), 8000, 5 * 8000),
        AudioChunk("a", beep(0.5, 16_000), 16_000, 6 * 16_000),
        AudioChunk("a", beep(0.5, 16_000), 16_000, 10 * 16_000),
        StreamEnd("a", "bye"),
    ]
    (stream,) = classify("call", events, Settings(), model, 1e9)
    assert stream.sample_rate == 16_000
    assert len(stream.samples) / 16_000 == stream.verdict.seconds == 10.5
    level = np.sqrt(np.square(stream.samples).reshape(-1, 1600).mean(axis=1))
    loud = [(0, 10), (50, 65), (100, 105)]
    for tenth, heard in enumerate(level):
        expected = 0.5 / np.sqrt(2) if any(begin <= tenth < end for begin, end in loud) else 0.0
        assert heard == pytest.approx(expected, abs=0.02), f"{tenth / 10} s"


def test_silence_has_no_emotion(model: EmotionModel, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "silence.wav", np.zeros(32_000), 16_000)
    (silence,) = heard(tmp_path / "silence.wav", model)
    assert (silence.verdict.emotion, silence.verdict.confidence, silence.verdict.windows) == (None, 0.0, 0)


def test_bad_recordings_are_named_and_the_others_classified(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.wav").write_text("no sound")
    files = [str(CLIPS[0]), str(tmp_path / "text.wav"), str(tmp_path / "none.wav"), str(CLIPS[1])]
    assert main(["classify", "--json", *files]) == 1
    printed = capsys.readouterr()
    verdicts = [json.loads(line) for line in printed.out.splitlines()]
    assert [verdict["recording"] for verdict in verdicts] == [files[0], files[3]]
    assert all(sum(v["probabilities"].values()) == pytest.approx(1, abs=1e-3) for v in verdicts)
    assert f"file {files[1]}: not a recording" in printed.err
    assert f"file {files[2]}: no such file" in printed.err


@pytest.mark.parametrize("command", ["classify --json", "replay"])
def test_keys_may_be_set_on_the_command_line_and_in_the_environment(
    command: str, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SERSTREAM_SEGMENTER__HOP_MS", "500")
    assert main([*command.split(), str(CLIPS[3]), "--set", f"model.path={tiny_model}"]) == 0
    messages = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {message["model"] for message in messages} == {"tiny@1"}
    settings = Settings(segmenter=SegmenterSettings(hop_ms=500))
    events = replay(recording_events(CLIPS[3], (), settings), settings, EmotionModel(tiny_model))
    windows = [event for event in events if isinstance(event, WindowEmotion)]
    told = [message for message in messages if message.get("type") == "window"]
    assert (messages[0]["windows"] if command == "classify --json" else len(told)) == len(windows)


def test_agents_are_not_scored(tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["classify", str(SAMPLE_CALL), "--roles", "customer,agent", "--set", f"model.path={tiny_model}"]
    assert main([*command, "--json"]) == 0
    customer, agent = map(json.loads, capsys.readouterr().out.splitlines())
    assert (customer["role"], agent["role"]) == ("customer", "agent")
    assert customer["emotion"] and agent["emotion"] is None
    assert agent["probabilities"] == {} and list(agent["unscored"]) == ["role"]
    assert main(command) == 0
    assert "no verdict: windows not scored: " in capsys.readouterr().out
    assert main([*command, "--set", "privacy.analyse_agents=true", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[1])["emotion"]


def test_people_are_shown_emoji_and_every_probability(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["classify", str(CLIPS[3])]) == 0
    shown = capsys.readouterr().out
    assert "14a05Wa.flac" in shown and "cnn-lstm@" in shown
    assert "😠 angry" in shown
    assert shown.count("%") == 6


@pytest.fixture
def odd_name(tmp_path: Path) -> Path:
    """A recording whose name is Latin-1, as an old PBX writes it, and would clear the screen."""
    path = tmp_path / os.fsdecode(b"caf\xe9 \x1b[2J.flac")
    path.symlink_to(CLIPS[3])
    return path


ESCAPED = r"caf\xe9 \x1b[2J.flac"


@pytest.mark.parametrize("how", [[], ["--json"]])
def test_a_name_that_is_no_text_is_escaped(
    how: list[str], odd_name: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = odd_name.with_stem(f"{odd_name.stem}2")
    command = ["classify", *how, "--set", f"model.path={tiny_model}"]
    assert main([*command, str(odd_name), str(gone), str(CLIPS[3])]) == 1
    printed = capsys.readouterr()
    assert r"caf\xe9 \x1b[2J2.flac: no such file" in printed.err
    first = printed.out.splitlines()[0]
    name = json.loads(first)["recording"] if how else first
    assert name.startswith(f"{odd_name.parent}/{ESCAPED}")
    assert str(CLIPS[3]) in printed.out


def test_a_recording_whose_name_is_no_text_is_replayed(
    odd_name: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["replay", str(odd_name), "--set", f"model.path={tiny_model}"]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert {json.loads(line)["source"] for line in printed.splitlines()} == {f"file:{ESCAPED}"}
    assert main([*command, "-o", str(tmp_path / "out"), "-j", "1"]) == 0
    (events,) = (tmp_path / "out").iterdir()
    assert events.read_text() == printed


def test_a_heading_stays_in_one_line_off_a_terminal(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = tmp_path / f"{'long name ' * 12}.flac"
    long.symlink_to(CLIPS[3])
    assert main(["classify", str(long), "--set", f"model.path={tiny_model}"]) == 0
    heading = capsys.readouterr().out.splitlines()[0]
    assert heading.startswith(str(long)) and heading.endswith("tiny@1")


def test_output_that_knows_no_emoji_ends_no_command_and_spoils_no_json(tmp_path: Path) -> None:
    (tmp_path / "café.flac").symlink_to(CLIPS[3])
    for how in ([], ["--json"]):
        command = [sys.executable, "-m", "serstream", "classify", *how, str(tmp_path / "café.flac")]
        ended = subprocess.run(command, capture_output=True, env=os.environ | {"PYTHONIOENCODING": "ascii"})
        assert (ended.returncode, ended.stderr) == (0, b"")
        if how:
            assert json.loads(ended.stdout)["recording"].endswith("café.flac")
        else:
            assert b"caf?.flac" in ended.stdout and b"? angry" in ended.stdout


@pytest.mark.parametrize("how", [[], ["--json"]])
def test_a_reader_that_has_gone_is_no_failure(how: list[str]) -> None:
    command = [sys.executable, "-m", "serstream", "classify", *how, *map(str, CLIPS)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, b"")


@pytest.mark.parametrize("command", ["classify", "classify --json", "replay"])
def test_output_that_is_closed_is_no_failure(command: str, tiny_model: Path) -> None:
    words = [sys.executable, "-m", "serstream", *command.split(), str(CLIPS[0])]
    line = f"{shlex.join([*words, '--set', f'model.path={tiny_model}'])} >&-"
    ended = subprocess.run(["sh", "-c", line], stderr=subprocess.PIPE)
    assert (ended.returncode, ended.stderr) == (0, b"")


def test_pictures_are_named_after_their_streams_where_there_are_several(tmp_path: Path) -> None:
    assert main(["classify", str(CLIPS[0]), "--picture", str(tmp_path / "one.svg")]) == 0
    assert main(["classify", str(SAMPLE_CALL), "--picture", str(tmp_path / "call.svg")]) == 0
    assert len(list(tmp_path.glob("call-call-*-[12].svg"))) == 2
    assert (tmp_path / "one.svg").is_file()
    assert len(list(tmp_path.iterdir())) == 3


def test_a_picture_that_cannot_be_drawn_costs_no_verdict_and_no_other_picture(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sketch, "LIMIT_S", 10.0)
    files = [SAMPLE_CALL, *CLIPS[:2]]
    blocked, drawn = (f"y-{FileSettings(path=str(path)).prefix}" for path in CLIPS[:2])
    (tmp_path / f"{blocked}-1.svg").mkdir()
    command = ["classify", "--json", *map(str, files), "--picture", str(tmp_path / "y.svg")]
    assert main([*command, "--set", f"model.path={tiny_model}"]) == 1
    printed = capsys.readouterr()
    told = [json.loads(line)["recording"] for line in printed.out.splitlines()]
    assert told == [str(SAMPLE_CALL), *map(str, files)]
    assert printed.err.count("a picture has room for") == 2, "for each channel of the call"
    assert f"{blocked}-1.svg: cannot write it: Is a directory" in printed.err
    assert {path.name for path in tmp_path.iterdir()} == {f"{blocked}-1.svg", f"{drawn}-1.svg"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "wanted recordings or --microphone, one of both"),
        ([str(CLIPS[0]), "--microphone"], "wanted recordings or --microphone, one of both"),
        (
            [str(CLIPS[0]), "--picture", "x.gif"],
            "picture x.gif: its name ends in '.gif', wanted .svg or .png",
        ),
        (
            [str(CLIPS[0]), "--picture", "no/folder.svg"],
            "picture no/folder.svg: there is no folder no; make it",
        ),
        (["--microphone", "--roles", "customer,agent"], "customer,agent: wanted one role for a microphone"),
        (["--microphone"], "standard input is no terminal"),
    ],
)
def test_bad_arguments_are_explained(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["classify", *arguments]) == 2
    assert said in capsys.readouterr().err


class EndlessSpeech:
    """A microphone that hears as fast as it is listened to."""

    def __init__(self, _settings: MicrophoneSettings):
        self._stopped = threading.Event()
        self._speech, self._rate = soundfile.read(CLIPS[3], dtype="float32")

    def run(self, emit: Emit) -> None:
        emit([StreamStart("mic", "mic", "unknown", "microphone:speech", 0.0)])
        step = self._rate // 50
        position = 0
        while not self._stopped.is_set():
            sound = np.take(self._speech, np.arange(position, position + step), mode="wrap")
            emit([AudioChunk("mic", sound, self._rate, position)])
            position += step
        emit([StreamEnd("mic", "shutdown")])

    def stop(self) -> None:
        self._stopped.set()


class OneKey:
    """A keyboard on which a key is pressed once."""

    def __init__(self) -> None:
        self._keys = [" "]

    def __enter__(self) -> "OneKey":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def keys(self, timeout_s: float = 0.0) -> list[str]:
        pressed, self._keys = self._keys, []
        return pressed


def test_a_microphone_that_nobody_stops_fills_one_picture(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sketch, "LIMIT_S", 10.0)
    monkeypatch.setattr(microphone, "MicrophoneSource", EndlessSpeech)
    monkeypatch.setattr(keyboard, "Keyboard", OneKey)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    command = ["classify", "--microphone", "--json", "--picture", str(tmp_path / "me.svg")]
    assert main([*command, "--set", f"model.path={tiny_model}"]) == 0
    assert json.loads(capsys.readouterr().out)["seconds"] == pytest.approx(10.0, abs=0.05)
    assert (tmp_path / "me.svg").is_file()


def test_a_png_without_pillow_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert main(["classify", str(CLIPS[0]), "--picture", "x.png"]) == 2
    assert "PNG needs Pillow; pip install pillow" in capsys.readouterr().err
