import logging
import os
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile

from serstream.audio.file import FileSource
from serstream.config import FileSettings
from serstream.errors import SourceError
from serstream.types import AudioChunk, Role, Samples, SourceEvent, StreamEnd, StreamStart

CLIP = Path(__file__).parents[1] / "fixtures" / "emo-db" / "03a04Fd.flac"


def play(path: Path, roles: tuple[Role, ...] = (), call: str = "") -> list[SourceEvent]:
    return list(FileSource(FileSettings(path=str(path), roles=roles, call=call)).events())


def sound(events: list[SourceEvent]) -> dict[str, Samples]:
    """Samples per stream; every chunk must begin where the one before ended."""
    pieces: dict[str, list[Samples]] = {}
    position: dict[str, int] = {}
    for event in events:
        if isinstance(event, AudioChunk):
            assert event.start == position.get(event.stream, 0)
            position[event.stream] = event.start + len(event.samples)
            pieces.setdefault(event.stream, []).append(event.samples)
    return {stream: np.concatenate(chunks) for stream, chunks in pieces.items()}


def write(path: Path, samples: Samples, rate: int = 16000, **how: str) -> Path:
    soundfile.write(path, samples, rate, **how)
    return path


def tone(n: int) -> Samples:
    return (0.3 * np.sin(np.arange(n) * 0.1)).astype(np.float32)


def test_mono_file_is_one_stream_sample_for_sample() -> None:
    events = play(CLIP)
    expected, rate = soundfile.read(CLIP, dtype="float32")
    start, end = events[0], events[-1]
    assert isinstance(start, StreamStart) and start.role == "unknown" and start.source == "file:03a04Fd.flac"
    assert isinstance(end, StreamEnd) and end.reason == "eof"
    ((stream, samples),) = sound(events).items()
    assert stream == start.stream == end.stream
    assert np.array_equal(samples, expected)
    assert {e.sample_rate for e in events if isinstance(e, AudioChunk)} == {rate}


@pytest.mark.parametrize("rate", [8000, 11025, 44100])
@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("call.wav", {"subtype": "ULAW"}),
        ("call.flac", {}),
        ("call.ogg", {"format": "OGG", "subtype": "VORBIS"}),
        ("call.mp3", {"format": "MP3"}),
        ("call.aiff", {}),
    ],
)
def test_formats_and_rates(tmp_path: Path, name: str, how: dict[str, str], rate: int) -> None:
    path = write(tmp_path / name, tone(rate), rate, **how)
    (samples,) = sound(play(path)).values()
    assert abs(len(samples) - rate) < 0.1 * rate
    assert samples.dtype == np.float32


def test_every_channel_is_a_stream_with_its_role(tmp_path: Path) -> None:
    left, right = tone(5000), -tone(5000) / 2
    path = write(tmp_path / "call.wav", np.stack([left, right], axis=1), subtype="FLOAT")
    events = play(path, roles=("customer", "agent"))
    starts = [e for e in events if isinstance(e, StreamStart)]
    assert [s.role for s in starts] == ["customer", "agent"]
    assert len({s.call for s in starts}) == 1
    heard = sound(events)
    assert np.array_equal(heard[starts[0].stream], left)
    assert np.array_equal(heard[starts[1].stream], right)


def test_names_are_deterministic_unique_and_fit_for_topics(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    paths = [
        write(tmp_path / "a" / "Anruf +49 30 1.2.wav", tone(100)),
        write(tmp_path / "b" / "Anruf +49 30 1.2.wav", tone(100)),
        write(tmp_path / "电话.wav", tone(100)),
    ]
    names = []
    for path, call in [(paths[0], ""), (paths[1], ""), (paths[2], ""), (paths[0], "second")]:
        start, again = play(path, call=call)[0], play(path, call=call)[0]
        assert start == again
        assert isinstance(start, StreamStart)
        assert start.call == call or not call
        names.append(start.stream)
        for name in (start.stream, start.call):
            assert name.replace("-", "").replace("_", "").isalnum() and name.isascii()
    assert len(set(names)) == len(names)


def test_float_file_beyond_full_scale_or_not_a_number(tmp_path: Path) -> None:
    wild = np.array([0.5, 3.0, -3.0, np.nan, np.inf, -np.inf], np.float32)
    path = write(tmp_path / "wild.wav", wild, subtype="FLOAT")
    assert sound(play(path)).popitem()[1].tolist() == [0.5, 1.0, -1.0, 0.0, 1.0, -1.0]


def test_relative_path_starts_at_base(tmp_path: Path) -> None:
    write(tmp_path / "call.wav", tone(100))
    assert len(list(FileSource(FileSettings(path="call.wav"), tmp_path).events())) == 3


def test_a_recording_that_was_written_in_1970_begins_in_it(tmp_path: Path) -> None:
    os.utime(write(tmp_path / "call.wav", tone(16_000)), (0.5, 0.5))
    start = next(FileSource(FileSettings(path="call.wav"), tmp_path).events())
    assert isinstance(start, StreamStart) and start.started_at == 0.0


def test_a_path_that_cannot_be_looked_at_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="x: cannot read it: File name too long; give the path"):
        play(tmp_path / (300 * "x"))


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"none\.wav: no such file; give the path"):
        play(tmp_path / "none.wav")


def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SourceError, match="pipe: a pipe or device, which cannot be sought in; save it as"):
        play(tmp_path / "pipe")


@pytest.mark.parametrize("name", ["letter.txt", "letter.wav", "letter.raw"])
def test_foreign_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("Dear Sir or Madam")
    with pytest.raises(SourceError, match=rf"{name}: not a recording that libsndfile.*FLAC.*MP3.*WAV"):
        play(tmp_path / name)


def test_empty_file(tmp_path: Path) -> None:
    path = write(tmp_path / "empty.wav", tone(0))
    with pytest.raises(SourceError, match=r"empty\.wav: holds no samples"):
        play(path)


@pytest.mark.parametrize("roles", [("customer",), ("customer", "agent", "agent")])
def test_stereo_with_another_number_of_roles(tmp_path: Path, roles: tuple[Role, ...]) -> None:
    path = write(tmp_path / "stereo.wav", np.zeros((10, 2), np.float32))
    with pytest.raises(
        SourceError, match=rf"stereo\.wav: has 2 channel\(s\), roles has {len(roles)} \(customer"
    ):
        play(path, roles=roles)


@pytest.mark.parametrize("fault", ["cut", "garbage"])
def test_damaged_tail_loses_only_the_tail(
    tmp_path: Path, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    whole, _ = soundfile.read(CLIP, dtype="float32")
    content = CLIP.read_bytes()
    half = len(content) // 2
    rest = b"" if fault == "cut" else b"\x55" * (len(content) - half)
    (tmp_path / "damaged.flac").write_bytes(content[:half] + rest)
    events = play(tmp_path / "damaged.flac")
    (samples,) = sound(events).values()
    assert 0.3 * len(whole) < len(samples) < 0.7 * len(whole)
    assert np.array_equal(samples, whole[: len(samples)])
    assert isinstance(events[-1], StreamEnd)
    lost_s = (len(whole) - len(samples)) / 16000
    assert "damaged.flac: damaged" in caplog.text
    assert f"{lost_s:.2f} s of {len(whole) / 16000:.2f} s lost" in caplog.text


@pytest.mark.parametrize("ending", ["mp3", "wav", "aiff", "au"])
def test_recording_that_ends_before_its_header_says(
    tmp_path: Path, ending: str, caplog: pytest.LogCaptureFixture
) -> None:
    content = write(tmp_path / f"whole.{ending}", tone(32000), format=ending.upper()).read_bytes()
    (tmp_path / f"cut.{ending}").write_bytes(content[: len(content) // 2])
    with caplog.at_level(logging.WARNING):
        (samples,) = sound(play(tmp_path / f"cut.{ending}")).values()
        assert 0 < len(samples) < 32000
        assert f"cut.{ending}: its end is missing; {2 - len(samples) / 16000:.2f} s of 2.0" in caplog.text
        caplog.clear()
        play(tmp_path / f"whole.{ending}")
    assert not caplog.text


@pytest.mark.parametrize("size", [0x7FFFF000, 0x80000000, 0xFFFFFFFF])
def test_recording_from_a_pipe_does_not_know_its_length(
    tmp_path: Path, size: int, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "piped.wav", tone(32000))
    content = path.read_bytes()
    path.write_bytes(content.replace((64000).to_bytes(4, "little"), size.to_bytes(4, "little")))
    (samples,) = sound(play(path)).values()
    assert len(samples) == 32000
    assert not caplog.text


class FakeTime:
    """A monotonic clock that only waiting moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return 1_000_000.0 + self.now


class FakeStop(threading.Event):
    """Moves the clock instead of waiting."""

    def __init__(self, clock: FakeTime) -> None:
        super().__init__()
        self._clock = clock

    def wait(self, timeout: float | None = None) -> bool:
        self._clock.now += timeout or 0.0
        return self.is_set()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    clock = FakeTime()
    monkeypatch.setattr("serstream.audio.file.time", clock)
    monkeypatch.setattr("serstream.audio.file.threading.Event", lambda: FakeStop(clock))
    return clock


def test_realtime_gives_each_block_when_its_last_sample_is_due(tmp_path: Path, clock: FakeTime) -> None:
    write(tmp_path / "call.wav", tone(8000), 8000)
    source = FileSource(FileSettings(path="call.wav"), tmp_path)
    arrivals: list[tuple[float, SourceEvent]] = []
    source.run(lambda events: arrivals.extend((clock.now, event) for event in events))
    assert isinstance(arrivals[0][1], StreamStart) and arrivals[0][1].started_at == 1_000_100.0
    for now, chunk in arrivals[1:-1]:
        assert isinstance(chunk, AudioChunk) and len(chunk.samples) == 160
        assert now == pytest.approx(100 + (chunk.start + 160) / 8000)
        assert chunk.arrived == now
    assert arrivals[-1][1] == StreamEnd(arrivals[0][1].stream, "eof")


def test_as_fast_as_possible_waits_for_nothing(tmp_path: Path, clock: FakeTime) -> None:
    write(tmp_path / "call.wav", tone(80000), 8000)
    events: list[SourceEvent] = []
    FileSource(FileSettings(path="call.wav", realtime=False), tmp_path).run(events.extend)
    assert clock.now == 100.0
    assert np.array_equal(sound(events).popitem()[1], sound(play(tmp_path / "call.wav")).popitem()[1])


def test_stop_ends_the_streams(tmp_path: Path, clock: FakeTime) -> None:
    write(tmp_path / "call.wav", np.zeros((80000, 2), np.float32), 8000)
    source = FileSource(FileSettings(path="call.wav"), tmp_path)
    events: list[SourceEvent] = []

    def emit(some: list[SourceEvent]) -> None:
        events.extend(some)
        if len(events) > 20:
            source.stop()

    source.run(emit)
    assert len(events) < 30
    assert [e.reason for e in events if isinstance(e, StreamEnd)] == ["shutdown", "shutdown"]


def test_no_more_is_asked_for_than_the_file_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second of sound at a very high rate in very many channels would be gigabytes."""
    full = np.full
    asked: list[tuple[int, int]] = []

    def count(shape: tuple[int, int], *rest: object) -> Samples:
        asked.append(shape)
        return full(shape, *rest)

    monkeypatch.setattr("serstream.audio.file.np.full", count)
    play(write(tmp_path / "call.wav", np.zeros((10, 1000), np.float32), 768_000))
    assert asked == [(10, 1000)]
