import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serstream.config import SegmenterSettings
from serstream.speech.segmenter import FRAME, Segment, Segmenter, UtteranceEnd
from serstream.types import SAMPLE_RATE, Samples, SpeechWindow


def voice(seconds: float, seed: int = 0) -> Samples:
    """A buzz with formants that WebRTC VAD takes for speech."""
    t = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    pitch = 120 + 20 * np.sin(2 * np.pi * 3 * t + seed)
    phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE
    buzz = sum(np.sin(k * phase) / (1 + abs(k - 5)) for k in range(1, 30))
    return (0.2 * buzz * (1 + 0.5 * np.sin(2 * np.pi * 4 * t))).astype(np.float32)


def silence(seconds: float) -> Samples:
    return np.zeros(round(seconds * SAMPLE_RATE), np.float32)


def segments(samples: Samples, **settings_: int) -> list[Segment]:
    segmenter = Segmenter("s", SegmenterSettings(**settings_))
    return segmenter.push(samples) + segmenter.flush()


def seconds(segment: Segment) -> tuple[float, float]:
    return segment.start / SAMPLE_RATE, segment.end / SAMPLE_RATE


def windows(parts: list[Segment]) -> list[SpeechWindow]:
    return [part for part in parts if isinstance(part, SpeechWindow)]


def test_silence_makes_no_segments() -> None:
    assert segments(silence(5)) == []


def test_windows_of_two_seconds_start_every_second_while_speech_lasts() -> None:
    cut = windows(segments(np.concatenate([silence(1), voice(5), silence(1)])))
    full = [w for w in cut if not w.final]
    starts = [seconds(w)[0] for w in full]
    assert len(full) == 4
    assert starts[0] == pytest.approx(1 - 0.1, abs=0.06), "speech begins at 1 s, with 100 ms of pre-roll"
    assert np.allclose(np.diff(starts), 1.0)
    assert all(len(w.samples) == 2 * SAMPLE_RATE == w.end - w.start for w in full)


def test_speech_that_remains_makes_a_final_shorter_window() -> None:
    cut = segments(np.concatenate([silence(0.5), voice(3.5), silence(1)]), end_silence_ms=100)
    last, end = cut[-2:]
    assert isinstance(last, SpeechWindow) and last.final
    assert isinstance(end, UtteranceEnd)
    assert last.end == end.end, "the silence that ended the utterance is part of it"
    assert len(last.samples) < 2 * SAMPLE_RATE


def test_a_short_rest_makes_no_window() -> None:
    cut = segments(np.concatenate([silence(0.5), voice(2.3), silence(1)]))
    assert [type(s) for s in cut] == [SpeechWindow, UtteranceEnd]
    assert not windows(cut)[0].final


def test_a_short_word_ends_an_utterance_without_windows() -> None:
    cut = segments(np.concatenate([silence(0.5), voice(0.4), silence(1)]))
    assert [type(s) for s in cut] == [UtteranceEnd]


def test_a_click_is_not_speech() -> None:
    assert segments(np.concatenate([silence(0.5), voice(0.02), silence(1)])) == []


def test_short_silence_does_not_split_an_utterance_and_a_long_one_does() -> None:
    speech = voice(1.5)
    joined = segments(np.concatenate([speech, silence(0.2), speech, silence(1)]))
    split = segments(np.concatenate([speech, silence(0.8), speech, silence(1)]))
    assert {s.utterance for s in joined} == {0}
    assert {s.utterance for s in split} == {0, 1}


def test_utterances_do_not_overlap() -> None:
    cut = segments(np.concatenate([voice(1), silence(0.5), voice(1), silence(1)]), pre_roll_ms=400)
    ends = [s for s in cut if isinstance(s, UtteranceEnd)]
    assert len(ends) == 2
    assert ends[1].start >= ends[0].end


def test_flush_ends_what_is_going_on() -> None:
    segmenter = Segmenter("s", SegmenterSettings())
    assert segmenter.push(voice(1)) == []
    final, end = segmenter.flush()
    assert isinstance(final, SpeechWindow) and final.final
    assert isinstance(end, UtteranceEnd) and end.end == SAMPLE_RATE
    assert segmenter.flush() == []


def test_concealed_samples_are_counted_in_the_window_they_fall_into() -> None:
    segmenter = Segmenter("s", SegmenterSettings())
    speech = voice(2.5)
    cut = segmenter.push(speech[:SAMPLE_RATE])
    cut += segmenter.push(speech[SAMPLE_RATE : SAMPLE_RATE + 2 * FRAME], lost=2 * FRAME)
    cut += segmenter.push(speech[SAMPLE_RATE + 2 * FRAME :])
    (window,) = windows(cut)
    assert window.quality.loss == pytest.approx(0.02)
    assert window.quality.speech > 0.9


def test_loss_that_is_still_in_the_resampler_counts_when_it_comes_out() -> None:
    segmenter = Segmenter("s", SegmenterSettings())
    segmenter.push(silence(0.03))
    segmenter.push(silence(0), lost=0.5)
    segmenter.push(silence(0.01), lost=1.0)
    assert segmenter.lost == pytest.approx(1.5)


def test_reset_forgets_the_sound_and_moves_on() -> None:
    segmenter = Segmenter("s", SegmenterSettings())
    segmenter.push(voice(1))
    segmenter.reset(100 * SAMPLE_RATE)
    assert segmenter.flush() == []
    cut = segmenter.push(np.concatenate([silence(1), voice(2.5)]))
    assert seconds(cut[0])[0] == pytest.approx(100.9, abs=0.06)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 9_000), min_size=1, max_size=60), st.integers(0, 3))
def test_pieces_equal_whole(sizes: list[int], seed: int) -> None:
    sound = np.concatenate([silence(0.3), voice(3.3, seed), silence(0.6), voice(0.9, seed), silence(0.5)])
    whole = segments(sound)
    segmenter = Segmenter("s", SegmenterSettings())
    pieces: list[Segment] = []
    position = 0
    for size in sizes:
        pieces += segmenter.push(sound[position : position + size])
        position += size
    pieces += segmenter.push(sound[position:])
    pieces += segmenter.flush()
    assert [(type(s), s.start, s.end, s.utterance) for s in pieces] == [
        (type(s), s.start, s.end, s.utterance) for s in whole
    ]
    for piece, of_whole in zip(windows(pieces), windows(whole), strict=True):
        assert np.array_equal(piece.samples, of_whole.samples)
        assert piece.quality == of_whole.quality
