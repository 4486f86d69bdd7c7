from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from serstream.config import AlertSettings, QualitySettings, SegmenterSettings, Settings
from serstream.emotion.model import EmotionModel
from serstream.feed.coding import encode
from serstream.feed.messages import (
    NONE,
    STREAMS_NAMED,
    Alert,
    CallEnded,
    Message,
    Mute,
    StreamEnded,
    UtteranceEmotion,
    WindowEmotion,
    WindowUnscored,
)
from serstream.pipeline import Pipeline
from serstream.types import (
    AudioBlock,
    AudioChunk,
    Role,
    Samples,
    Scores,
    SourceEvent,
    SpeechWindow,
    StreamEnd,
    StreamStart,
)

T = TypeVar("T")

CLIPS = sorted((Path(__file__).parent / "fixtures" / "emo-db").glob("*.flac"))
RATE = 16_000


def speech() -> Samples:
    """Real speech with pauses, about ten seconds."""
    pause = np.zeros(RATE // 2, np.float32)
    parts = [part for clip in CLIPS for part in (soundfile.read(clip, dtype="float32")[0], pause)]
    return np.concatenate(parts).astype(np.float32)


SPEECH = speech()


def events(stream: str = "s", role: Role = "customer", chunk: int = 320, lost: int = 0) -> list[SourceEvent]:
    chunks = [
        AudioChunk(stream, SPEECH[begin : begin + chunk], RATE, begin, lost)
        for begin in range(0, len(SPEECH), chunk)
    ]
    return [StreamStart(stream, "c", role, "test", 0.0), *chunks, StreamEnd(stream, "bye")]


def run(source: list[SourceEvent], model: EmotionModel, settings: Settings | None = None) -> list[Message]:
    return Pipeline(settings or Settings(), model).feed(source)


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> EmotionModel:
    return EmotionModel(tiny_model)


def of_type(messages: list[Message], kind: type[T]) -> list[T]:
    return [message for message in messages if isinstance(message, kind)]


def test_a_call_from_its_first_word_to_its_summary(model: EmotionModel) -> None:
    messages = run(events(), model)
    types = [message.type for message in messages]
    assert types[:2] == ["call_start", "stream_start"]
    assert types[-2:] == ["stream_end", "call_end"]
    windows = of_type(messages, WindowEmotion)
    assert len(windows) >= len(CLIPS)
    ended = messages[-2]
    assert isinstance(ended, StreamEnded)
    assert ended.windows == len(windows)
    assert ended.end == pytest.approx(len(SPEECH) / RATE, abs=0.02)
    assert ended.utterances >= len(of_type(messages, UtteranceEmotion)) > 0
    call = messages[-1]
    assert isinstance(call, CallEnded)
    assert call.streams == {"s": "customer"}
    assert call.emotions_s == {"s": ended.emotions_s}
    stream_sequences = [message.sequence for message in messages if message.stream == "s"]
    assert stream_sequences == list(range(len(stream_sequences)))


@hypothesis_settings(max_examples=10, deadline=None)
@given(st.integers(1, 5_000), st.lists(st.integers(1, 40), min_size=1, max_size=50))
def test_neither_chunks_nor_grouping_change_what_is_told(
    model: EmotionModel, chunk: int, groups: list[int]
) -> None:
    whole = run(events(chunk=320), model)
    pipeline = Pipeline(Settings(), model)
    source = events(chunk=chunk)
    pieces: list[Message] = []
    for size in groups:
        pieces += pipeline.feed(source[:size])
        source = source[size:]
    pieces += pipeline.feed(source)
    assert len(pieces) == len(whole)
    for piece, of_whole in zip(pieces, whole, strict=True):
        if isinstance(piece, WindowEmotion) and isinstance(of_whole, WindowEmotion):
            assert piece.probabilities == pytest.approx(of_whole.probabilities, abs=2e-4)
            assert (piece.start, piece.end, piece.emotion) == (of_whole.start, of_whole.end, of_whole.emotion)
            assert piece.speech_s == of_whole.speech_s
        elif not isinstance(piece, UtteranceEmotion):
            assert encode(piece) == encode(of_whole)


def test_streams_do_not_hear_each_other(model: EmotionModel) -> None:
    alone = [m for m in run(events("a"), model) if m.stream == "a"]
    mixed_source = [e for pair in zip(events("a"), events("b", "agent"), strict=True) for e in pair]
    together = run(mixed_source, model)
    for mine, other in zip(alone, [m for m in together if m.stream == "a"], strict=True):
        assert (mine.type, mine.start, mine.end, mine.sequence) == (
            other.type,
            other.start,
            other.end,
            other.sequence,
        )
    assert [m.type for m in together].count("call_end") == 1, "the call ends with its last stream"


def test_the_next_call_of_a_name_counts_on(model: EmotionModel) -> None:
    messages = run([*events("a"), *events("b")], model)
    assert [(m.type, m.sequence) for m in messages if m.stream == NONE] == [
        ("call_start", 0),
        ("call_end", 1),
        ("call_start", 2),
        ("call_end", 3),
    ]


def test_a_call_that_goes_on_names_the_last_streams_to_end_and_counts_all_alerts() -> None:
    n = STREAMS_NAMED + 20
    rule = AlertSettings("heard", ("else",), threshold=0.5, for_s=0.0)
    others: list[SourceEvent] = [
        event
        for i in range(n)
        for event in (StreamStart(f"c{i}", "c", "customer", "test", 60.0 + i), StreamEnd(f"c{i}", "bye"))
    ]
    stays: list[SourceEvent] = [StreamStart("stays", "c", "agent", "test", 600.0), StreamEnd("stays", "bye")]
    messages = Pipeline(Settings(alert=(rule,)), Listener()).feed(
        [stays[0], *events("first"), *others, stays[1]]
    )
    call = messages[-1]
    assert isinstance(call, CallEnded)
    assert [*call.streams] == [f"c{i}" for i in range(n - STREAMS_NAMED + 1, n)] + ["stays"]
    assert call.streams["stays"] == "agent" and call.emotions_s.keys() == call.streams.keys()
    raised = [alert for alert in of_type(messages, Alert) if alert.state == "raised"]
    assert call.alerts == len(raised) > 0


def test_a_window_with_too_much_loss_is_unscored_with_the_reason(model: EmotionModel) -> None:
    messages = run(events(lost=100), model)
    unscored = of_type(messages, WindowUnscored)
    assert unscored and not of_type(messages, WindowEmotion)
    assert {m.reason for m in unscored if isinstance(m, WindowUnscored)} == {"loss"}
    assert not of_type(messages, UtteranceEmotion), "nothing was scored, so nothing is claimed"
    tolerant = Settings(quality=QualitySettings(max_loss=0.5))
    assert of_type(run(events(lost=100), model, tolerant), WindowEmotion)


def test_a_hole_in_the_sound_ends_the_utterance_and_keeps_the_time(model: EmotionModel) -> None:
    source = [e for e in events() if not (isinstance(e, AudioChunk) and RATE <= e.start < 2 * RATE)]
    ended = run(source, model)[-2]
    assert isinstance(ended, StreamEnded)
    assert ended.end == pytest.approx(len(SPEECH) / RATE, abs=0.02)


def test_the_rate_may_change_in_the_middle(model: EmotionModel) -> None:
    half = len(SPEECH) // 2 // 320 * 320
    narrow = SPEECH[half:][::2].copy()
    source: list[SourceEvent] = [StreamStart("s", "c", "customer", "test", 0.0)]
    source.append(AudioChunk("s", SPEECH[:half], RATE, 0))
    source.append(AudioChunk("s", narrow, RATE // 2, half // 2))
    messages = run([*source, StreamEnd("s", "bye")], model)
    assert messages[-2].end == pytest.approx(len(SPEECH) / RATE, abs=0.02)
    windows = of_type(messages, WindowEmotion)
    assert any(w.start > half / RATE for w in windows) and any(w.end < half / RATE for w in windows)


def test_sound_of_a_stream_that_was_never_announced_is_ignored(
    model: EmotionModel, caplog: pytest.LogCaptureFixture
) -> None:
    assert run([AudioChunk("ghost", SPEECH, RATE, 0)], model) == []
    assert "stream ghost was never announced" in caplog.text


def test_a_model_may_be_exchanged_between_two_batches(model: EmotionModel, tmp_path: Path) -> None:
    from tiny_model import write_model

    other = EmotionModel(write_model(tmp_path / "other.onnx", name="other", labels=("calm", "boredom")))
    pipeline = Pipeline(Settings(), model)
    source = events()
    first = pipeline.feed(source[: len(source) // 2])
    pipeline.model = other
    second = pipeline.feed(source[len(source) // 2 :])
    assert {m.model for m in of_type(first, WindowEmotion)} == {"tiny@1"}
    assert {m.model for m in of_type(second, WindowEmotion)} == {"other@1"}
    assert isinstance(second[-1], CallEnded)


def test_a_block_tells_what_chunks_of_its_streams_tell(model: EmotionModel) -> None:
    names = ["one", "two", "three"]
    telephone = np.round(SPEECH[::2] * 32767).astype(np.int16)
    sound = np.stack([np.roll(telephone, 8000 * i) for i in range(len(names))])
    starts: list[SourceEvent] = [StreamStart(name, name, "customer", "test", 0.0) for name in names]
    ends: list[SourceEvent] = [StreamEnd(name, "bye") for name in names]
    blocks: list[SourceEvent] = [
        AudioBlock(names, sound[:, begin : begin + 160], 8000, [begin] * 3, [begin / 8000] * 3)
        for begin in range(0, sound.shape[1], 160)
    ]
    chunks: list[SourceEvent] = [
        chunk for block in blocks if isinstance(block, AudioBlock) for chunk in block.chunks()
    ]
    told = run(starts + blocks + ends, model)
    assert len(of_type(told, WindowEmotion)) > 10
    assert told == run(starts + chunks + ends, model)


class Listener:
    """A scorer that says of every window what its samples are."""

    def begin(self, start: StreamStart) -> str:
        return "listener@1"

    def score(self, windows: Sequence[SpeechWindow]) -> list[Scores]:
        return [
            Scores(("heard", "else"), np.array([level, 1 - level], np.float32), "listener@1")
            for level in (
                float(np.abs(w.samples * np.linspace(1, 2, len(w.samples))).mean()) for w in windows
            )
        ]

    def forget(self, stream: str) -> None:
        pass


TELEPHONE = np.round(SPEECH[::2] * 32767).astype(np.int16)
PACKETS = len(TELEPHONE) // 160


@hypothesis_settings(max_examples=40, deadline=None)
@given(
    irregular=st.dictionaries(
        st.tuples(st.integers(0, 2), st.integers(0, PACKETS - 1)),
        st.sampled_from(["chunk", "missing", "concealed"]),
        max_size=12,
    ),
    shifts=st.lists(st.integers(0, PACKETS), min_size=3, max_size=3),
    window_ms=st.sampled_from([500, 2000]),
    start_speech_ms=st.sampled_from([20, 120, 700]),
)
def test_streams_in_blocks_are_segmented_as_each_alone(
    irregular: dict[tuple[int, int], str], shifts: list[int], window_ms: int, start_speech_ms: int
) -> None:
    names = ["one", "two", "three"]
    sound = [np.roll(TELEPHONE[: PACKETS * 160].reshape(PACKETS, 160), shift, axis=0) for shift in shifts]
    mixed: list[SourceEvent] = []
    alone: list[SourceEvent] = []
    for packet in range(PACKETS):
        here = [i for i in range(3) if irregular.get((i, packet)) != "missing"]
        chunks = []
        for i in here:
            lost = 80 if irregular.get((i, packet)) == "concealed" else 0
            samples = sound[i][packet].astype(np.float32) / 32768
            chunks.append(AudioChunk(names[i], samples, 8000, 160 * packet, lost, arrived=packet))
        alone += chunks
        mixed += [chunk for i, chunk in zip(here, chunks, strict=True) if (i, packet) in irregular]
        if plain := [i for i in here if (i, packet) not in irregular]:
            pcm = np.stack([sound[i][packet] for i in plain])
            n = len(plain)
            mixed.append(
                AudioBlock([names[i] for i in plain], pcm, 8000, [160 * packet] * n, [float(packet)] * n)
            )
    settings = Settings(
        segmenter=SegmenterSettings(window_ms=window_ms, hop_ms=500, start_speech_ms=start_speech_ms)
    )
    starts: list[SourceEvent] = [StreamStart(name, name, "customer", "test", 0.0) for name in names]
    ends: list[SourceEvent] = [StreamEnd(name, "bye") for name in names]
    told, wanted = (Pipeline(settings, Listener()).feed([*starts, *sent, *ends]) for sent in (mixed, alone))
    for name in names:
        assert [m for m in told if m.stream == name] == [m for m in wanted if m.stream == name]
    assert sum(isinstance(message, WindowEmotion) for message in told) > 10


def test_streams_that_come_and_go_leave_the_others_as_they_are() -> None:
    names = [f"s{i}" for i in range(200)]
    starts: list[SourceEvent] = [StreamStart(name, name, "customer", "test", 0.0) for name in names]
    ends: list[SourceEvent] = [StreamEnd(name, "bye") for name in names]
    packets = TELEPHONE[: PACKETS * 160].reshape(PACKETS, 160)

    def block(packet: int, streams: range) -> AudioBlock:
        pcm = np.stack([packets[(packet + 3 * i) % PACKETS] for i in streams])
        n = len(streams)
        return AudioBlock([names[i] for i in streams], pcm, 8000, [160 * packet] * n, [0.0] * n)

    every, last, half = range(200), range(197, 200), PACKETS // 2
    many = [*starts, *(block(k, every) for k in range(half)), *ends[:197]]
    told = Pipeline(Settings(), Listener()).feed(
        [*many, *(block(k, last) for k in range(half, PACKETS)), *ends[197:]]
    )
    few = [*starts[197:], *(block(k, last) for k in range(PACKETS)), *ends[197:]]
    wanted = Pipeline(Settings(), Listener()).feed(few)
    stayed = names[197:]
    assert [m for m in told if m.stream in stayed] == [m for m in wanted if m.stream in stayed]


def test_new_settings_hold_for_streams_that_begin_later() -> None:
    starts, blocks = call_in_blocks(2, SPEECH)
    pipeline = Pipeline(Settings(), Listener())
    first = [AudioBlock(b.streams[:1], b.pcm[:1], 8000, b.starts[:1], b.arrived[:1]) for b in blocks]
    told = pipeline.feed([starts[0], *first[:50]])
    pipeline.settings = Settings(segmenter=SegmenterSettings(window_ms=1000, hop_ms=500))
    told += pipeline.feed([starts[1], *first[50:100], *blocks[100:]])
    lengths = {
        name: {round(w.end - w.start, 3) for w in windows_of(told, name) if not w.final}
        for name in ("s0", "s1")
    }
    assert lengths == {"s0": {2.0}, "s1": {1.0}}


def windows_of(messages: list[Message], stream: str) -> list[WindowEmotion]:
    return [message for message in of_type(messages, WindowEmotion) if message.stream == stream]


def test_a_block_of_streams_that_nobody_announced_is_ignored(model: EmotionModel) -> None:
    assert run([AudioBlock(["ghost"], np.zeros((1, 160), np.int16), 8000, [0], [0.0])], model) == []


def call_in_blocks(n_streams: int, speaking: Samples) -> tuple[list[SourceEvent], list[AudioBlock]]:
    """The starts of streams that say the same, and their sound at 8 kHz in packets of 20 ms."""
    names = [f"s{i}" for i in range(n_streams)]
    pcm = np.tile((speaking[: len(speaking) // 320 * 320 : 2] * 32767).astype(np.int16), (n_streams, 1))
    starts: list[SourceEvent] = [StreamStart(name, name, "customer", "test", 0.0) for name in names]
    blocks = [
        AudioBlock(names, pcm[:, begin : begin + 160], 8000, [begin] * n_streams, [1.0] * n_streams)
        for begin in range(0, pcm.shape[1], 160)
    ]
    return starts, blocks


def test_streams_beyond_the_limit_are_muted_and_the_others_lose_nothing(model: EmotionModel) -> None:
    starts, blocks = call_in_blocks(4, SPEECH)
    ends = [StreamEnd(f"s{i}", "bye") for i in range(4)]
    pipeline = Pipeline(Settings(), model)
    pipeline.stream_limit = 2
    muted = pipeline.feed([*starts, *blocks[:1]])
    muted += pipeline.feed(blocks[1:])
    assert pipeline.n_muted == 2
    muted += pipeline.feed(ends)
    wanted = run([*starts, *blocks, *ends], model)
    for stream in ("s0", "s1"):
        told, whole = ([m for m in messages if m.stream == stream] for messages in (muted, wanted))
        assert [encode(message) for message in told] == [encode(message) for message in whole]
    assert {w.stream for w in of_type(muted, WindowEmotion)} == {"s0", "s1"}
    assert [(m.stream, m.state, m.start) for m in of_type(muted, Mute)] == [
        ("s2", "muted", 0.02),
        ("s3", "muted", 0.02),
    ]
    unheard = {m.stream: m.muted_s for m in of_type(muted, StreamEnded)}
    passed_s = pytest.approx(0.02 * (len(blocks) - 1))
    assert unheard == {"s0": 0, "s1": 0, "s2": passed_s, "s3": passed_s}
    assert pipeline.n_muted == 0
    lengths = {m.stream: m.end for m in of_type(muted, StreamEnded)}
    assert lengths["s3"] == lengths["s0"] == pytest.approx(len(SPEECH) / RATE, abs=0.02)
    # All of them were heard until the limit was looked at again.
    assert pipeline.muted_s == pytest.approx(2 * 0.02 * (len(blocks) - 1))
    assert pipeline.heard_s + pipeline.muted_s == pytest.approx(4 * 0.02 * len(blocks))


def test_a_muted_stream_ends_its_utterance_and_is_heard_again_where_it_is_then(model: EmotionModel) -> None:
    starts, blocks = call_in_blocks(2, SPEECH)
    pipeline = Pipeline(Settings(), model)
    pipeline.feed(starts)
    windows = (of_type(pipeline.feed([block]), WindowEmotion) for block in blocks)
    speaking = 1 + next(i for i, told in enumerate(windows) if any(not w.final for w in told))
    pipeline.stream_limit = 1
    muted = pipeline.feed(blocks[speaking : speaking + 100])
    assert of_type(muted, UtteranceEmotion)[0].stream == "s1"
    (mute,) = of_type(muted, Mute)
    assert (mute.stream, mute.state, mute.start) == ("s1", "muted", mute.end)
    assert mute.start == pytest.approx(0.02 * speaking)
    assert muted.index(mute) > muted.index(of_type(muted, UtteranceEmotion)[0])
    assert not any(w.stream == "s1" for w in of_type(muted, WindowEmotion) if w.end > (speaking + 1) * 0.02)
    pipeline.stream_limit = None
    again = pipeline.feed([*blocks[speaking + 100 :], StreamEnd("s1", "bye")])
    assert pipeline.n_muted == 0
    (heard,) = of_type(again, Mute)
    assert (heard.stream, heard.state, heard.start) == ("s1", "heard", mute.start)
    assert heard.end == pytest.approx(0.02 * (speaking + 100))
    assert min(w.start for w in of_type(again, WindowEmotion) if w.stream == "s1") >= heard.end
    assert of_type(again, StreamEnded)[0].muted_s == pytest.approx(2.0)
    told = [m.sequence for m in (*muted, *again) if m.stream == "s1"]
    assert told == list(range(told[0], told[0] + len(told)))


def test_a_file_is_not_muted_because_it_can_wait(model: EmotionModel) -> None:
    pipeline = Pipeline(Settings(), model)
    pipeline.stream_limit = 0
    start = StreamStart("s", "c", "customer", "file:call.wav", 0.0, patient=True)
    pipeline.feed([start])
    messages = pipeline.feed(events()[1:])
    assert of_type(messages, WindowEmotion)
    assert not of_type(messages, Mute)
    assert pipeline.muted_s == pipeline.n_muted == 0
