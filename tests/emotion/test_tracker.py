import numpy as np
import pytest

from serstream.config import TrackerSettings
from serstream.emotion.tracker import Tracker
from serstream.speech.segmenter import UtteranceEnd
from serstream.types import SAMPLE_RATE, Quality, Scores, SpeechWindow, StreamStart

LABELS = ("angry", "neutral")
INFO = StreamStart("s", "c", "customer", "test", started_at=1_000_000_000.0)


def tracker(smoothing_s: float = 3.0) -> Tracker:
    return Tracker(INFO, TrackerSettings(smoothing_s=smoothing_s), "m@1")


def window(start_s: float, end_s: float, utterance: int = 0) -> SpeechWindow:
    start, end = round(start_s * SAMPLE_RATE), round(end_s * SAMPLE_RATE)
    return SpeechWindow(
        "s", np.zeros(1, np.float32), start, end, utterance, False, Quality(0.0, 0.0, -26.0, 0.9)
    )


def scores(angry: float, labels: tuple[str, ...] = LABELS, model: str = "m@1") -> Scores:
    rest = [(1 - angry) / (len(labels) - 1)] * (len(labels) - 1)
    return Scores(labels, np.array([angry, *rest], np.float32), model)


def end(start_s: float, end_s: float, utterance: int = 0) -> UtteranceEnd:
    return UtteranceEnd("s", utterance, round(start_s * SAMPLE_RATE), round(end_s * SAMPLE_RATE))


def test_messages_are_numbered_and_timed() -> None:
    track = tracker()
    messages = [
        track.started(),
        track.scored(window(1, 3), scores(0.9)),
        track.ended("bye", 5 * SAMPLE_RATE, 0, 0, 0),
    ]
    assert [m.sequence for m in messages] == [0, 1, 2]
    assert (messages[1].start, messages[1].end) == (1, 3)
    assert messages[1].time == "2001-09-09T01:46:43.000Z"
    assert {m.call for m in messages} == {"c"} and {m.role for m in messages} == {"customer"}


def test_smoothing_has_its_time_constant_in_seconds_of_new_speech() -> None:
    track = tracker(smoothing_s=3.0)
    track.scored(window(0, 2), scores(0.0))
    smoothed = track.scored(window(1, 3), scores(1.0))
    assert smoothed.smoothed["angry"] == pytest.approx(1 - np.exp(-1 / 3), abs=1e-3), "one second was new"
    assert smoothed.emotion == "angry" and smoothed.smoothed_emotion == "neutral"
    late = track.scored(window(100, 102), scores(1.0))
    assert late.smoothed["angry"] == pytest.approx(1 - np.exp(-1), abs=1e-3), (
        "silence is not speech: 2 s were new"
    )


def test_no_smoothing_when_it_is_switched_off() -> None:
    track = tracker(smoothing_s=0)
    track.scored(window(0, 2), scores(0.0))
    assert track.scored(window(1, 3), scores(1.0)).smoothed["angry"] == 1.0


def test_utterance_is_the_mean_of_its_windows_and_is_counted_in_the_summary() -> None:
    track = tracker()
    track.scored(window(0, 2), scores(0.2))
    track.scored(window(1, 3), scores(0.9))
    utterance = track.utterance_ended(end(0, 3.5))
    assert utterance is not None
    assert utterance.probabilities == pytest.approx({"angry": 0.55, "neutral": 0.45})
    assert (utterance.emotion, utterance.windows) == ("angry", 2)
    assert utterance.arousal == pytest.approx(0.55 * 0.59, abs=1e-3)
    summary = track.ended("eof", 10 * SAMPLE_RATE, 3 * SAMPLE_RATE, 160, 0)
    assert summary.emotions_s == {"angry": 3.5}
    assert (summary.windows, summary.utterances, summary.speech_s, summary.lost_s) == (2, 1, 3.0, 0.01)


def test_an_utterance_without_scored_windows_has_no_result_but_is_counted() -> None:
    track = tracker()
    unscored = track.unscored(window(0, 2), "loss")
    assert unscored.reason == "loss"
    assert track.utterance_ended(end(0, 2)) is None
    summary = track.ended("eof", 0, 0, 0, 0)
    assert (summary.utterances, summary.unscored, summary.windows) == (1, 1, 0)


def test_labels_may_change_in_the_middle_of_an_utterance() -> None:
    track = tracker()
    track.scored(window(0, 2), scores(1.0))
    swapped = track.scored(window(1, 3), scores(0.2, ("boredom", "calm", "sad"), "other@2"))
    assert swapped.model == "other@2"
    assert set(swapped.smoothed) == {"boredom", "calm", "sad"}
    utterance = track.utterance_ended(end(0, 3))
    assert utterance is not None and set(utterance.probabilities) == {"boredom", "calm", "sad"}
    assert utterance.windows == 1
