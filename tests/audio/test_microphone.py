import logging
import sys
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from fake_sounddevice import FakeInputStream, FakeSounddevice, Script

from serstream.audio import microphone, portaudio
from serstream.audio.microphone import Block, MicrophoneSource, Recorder
from serstream.config import MicrophoneSettings
from serstream.errors import SourceError
from serstream.service.log_limit import GrowingPauses
from serstream.types import AudioChunk, SourceEvent, StreamEnd, StreamStart


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeSounddevice:
    fake = FakeSounddevice("Headset (hw:1,0)")
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    monkeypatch.setattr(microphone, "RETRY_S", 0.0)
    return fake


def record(fake: FakeSounddevice, *scripts: Script, **settings: str) -> list[SourceEvent]:
    """Events of a source whose device plays one script per connection; stops when the last one has played."""
    return record_with(MicrophoneSource(MicrophoneSettings(**settings)), fake, *scripts)


def record_with(source: MicrophoneSource, fake: FakeSounddevice, *scripts: Script) -> list[SourceEvent]:
    events: list[SourceEvent] = []

    def stop_at_the_end(stream: FakeInputStream) -> None:
        source.stop()

    fake.scripts = [*scripts, stop_at_the_end]
    source.run(events.extend)
    assert all(stream.closed for stream in fake.opened)
    return events


def sound(events: list[SourceEvent]) -> list[float]:
    chunks = [event for event in events if isinstance(event, AudioChunk)]
    for before, after in pairwise(chunks):
        assert after.start == before.start + len(before.samples)
    return np.concatenate([chunk.samples for chunk in chunks]).tolist()


def test_opens_one_channel_at_the_native_rate(fake: FakeSounddevice) -> None:
    record(fake)
    arguments = fake.opened[0].arguments
    assert (arguments["device"], arguments["channels"], arguments["samplerate"]) == (0, 1, 48000)
    assert (arguments["blocksize"], arguments["dtype"]) == (960, "float32")


def test_a_connection_is_a_stream(fake: FakeSounddevice) -> None:
    def script(stream: FakeInputStream) -> None:
        stream.bring(0.25, 0.5)
        stream.bring(-0.5)
        stream.finish()

    events = record(fake, script, role="agent", call="desk-7")
    start, *_, end = events
    assert isinstance(start, StreamStart)
    assert (start.call, start.role, start.source) == ("desk-7", "agent", "microphone:Headset (hw:1,0)")
    assert start.stream.startswith("Headset-hw-1-0-2") and start.stream.isascii() and "." not in start.stream
    assert sound(events) == [0.25, 0.5, -0.5]
    assert end == StreamEnd(start.stream, "lost")


def test_device_that_ends_is_opened_again_as_another_stream(fake: FakeSounddevice) -> None:
    def script(stream: FakeInputStream) -> None:
        stream.bring(0.25)
        stream.finish()

    events = record(fake, script, script)
    starts = [event for event in events if isinstance(event, StreamStart)]
    ends = [event for event in events if isinstance(event, StreamEnd)]
    assert len({start.stream for start in starts}) == 2
    assert [start.call for start in starts] == [start.stream for start in starts]
    assert ends == [StreamEnd(start.stream, "lost") for start in starts]
    assert [e.start for e in events if isinstance(e, AudioChunk)] == [0, 0]


def test_device_list_is_renewed_before_opening_again(
    fake: FakeSounddevice, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def unplugged(stream: FakeInputStream) -> None:
        stream.bring(0.25)
        stream.finish()
        fake.names = ()

    def initialize() -> None:
        start()
        if fake.starts == 4:
            fake.names = ("Webcam", "Headset (hw:1,0)")

    start = fake._initialize
    monkeypatch.setattr(fake, "_initialize", initialize)
    with caplog.at_level(logging.WARNING):
        record(fake, unplugged, device="headset")
    assert fake.starts == 4
    assert [stream.arguments["device"] for stream in fake.opened] == [0, 1]
    assert caplog.text.count("no such device") == 1


def test_silent_device_is_opened_again(fake: FakeSounddevice, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    def no_more(self: Recorder, timeout_s: float) -> None:
        waits.append(timeout_s)

    monkeypatch.setattr(Recorder, "take", no_more)
    assert record(fake, lambda stream: None) == []
    assert len(fake.opened) == 2
    assert waits == [microphone.FIRST_BLOCK_S]


def test_silence_counts_from_the_first_block(fake: FakeSounddevice, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    take = Recorder.take

    def watched(self: Recorder, timeout_s: float) -> object:
        waits.append(timeout_s)
        return take(self, 0.0)

    monkeypatch.setattr(Recorder, "take", watched)
    record(fake, lambda stream: stream.bring(0.25))
    assert waits == [microphone.FIRST_BLOCK_S, MicrophoneSettings().reconnect_s]


def test_overflow_is_filled_with_silence_counted_and_told_at_once_and_at_the_end(
    fake: FakeSounddevice, caplog: pytest.LogCaptureFixture
) -> None:
    def script(stream: FakeInputStream) -> None:
        stream.bring(0.25)
        stream.bring(0.5, lost_before=3)
        stream.bring(0.75, lost_before=2)
        stream.finish()

    source = MicrophoneSource(MicrophoneSettings())
    with caplog.at_level(logging.WARNING):
        events = record_with(source, fake, script)
    assert source.lost_s == pytest.approx(5 / 48000)
    assert sound(events) == [0.25, 0, 0, 0, 0.5, 0, 0, 0.75]
    assert [e.lost for e in events if isinstance(e, AudioChunk)] == [0, 3, 2]
    assert caplog.text.count("overflow") == 2


def test_overflows_are_told_ever_more_rarely_and_none_is_left_out(
    fake: FakeSounddevice, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    blocks = iter(Block(np.zeros(960, np.float32), 480, 100.0 + second) for second in range(64))
    monkeypatch.setattr(Recorder, "take", lambda self, timeout_s: next(blocks, None))
    record(fake, lambda stream: None)
    limit = GrowingPauses()
    lines = [each.getMessage() for each in caplog.records if limit.filter(each)]
    told = [line.split("overflow, ")[1].split()[0] for line in lines if "overflow" in line]
    assert told == ["10", "10", "20", "40", "80", "160", "320"]


def test_full_queue_drops_the_newest_and_keeps_the_time() -> None:
    recorder = Recorder(48000)
    stream = SimpleNamespace(input_overflow=False)
    capacity = round(microphone.QUEUE_S / portaudio.BLOCK_S)
    for number in range(capacity + 3):
        times = SimpleNamespace(inputBufferAdcTime=number * 0.02)
        recorder.callback(np.full((960, 1), number, np.float32), 960, times, stream)
    taken = [recorder.take(0) for _ in range(capacity)]
    assert [block.samples[0] for block in taken if block] == list(range(capacity))
    assert recorder.take(0) is None
    recorder.callback(np.zeros((960, 1), np.float32), 960, SimpleNamespace(inputBufferAdcTime=9.0), stream)
    after = recorder.take(0)
    assert after is not None and after.lost == 3 * 960


def test_waking_a_full_queue_is_harmless() -> None:
    recorder = Recorder(48000)
    for _ in range(1000):
        recorder.wake()
    assert recorder.take(0) is None


def test_no_such_microphone_is_refused_before_anything_runs(fake: FakeSounddevice) -> None:
    with pytest.raises(SourceError, match=r"'Jabra': no such device.*Headset"):
        MicrophoneSource(MicrophoneSettings(device="Jabra"))
