"""What a stream feels like over time: from scores to the messages of the feed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serstream.config import AlertSettings, TrackerSettings
from serstream.emotion.affect import arousal_valence
from serstream.emotion.alerts import StreamAlerts
from serstream.feed.messages import (
    Alert,
    Header,
    Mute,
    QualityReport,
    StreamEnded,
    StreamStarted,
    UnscoredReason,
    UtteranceEmotion,
    WindowEmotion,
    WindowUnscored,
    rfc3339,
)
from serstream.speech.segmenter import UtteranceEnd
from serstream.types import SAMPLE_RATE, EndReason, Quality, Scores, SpeechWindow, StreamStart


class Tracker:
    """One stream: numbers its messages, smooths its scores, sums up its utterances and itself."""

    def __init__(
        self, info: StreamStart, settings: TrackerSettings, model: str, rules: Sequence[AlertSettings] = ()
    ):
        self.info = info
        self.alerts = StreamAlerts(rules, info.role)
        self.model = model
        self.emotions_s: dict[str, float] = {}
        """Seconds of speech per emotion, by utterance."""
        self._smoothing_s = settings.smoothing_s
        self._sequence = 0
        self._labels: tuple[str, ...] = ()
        self._smoothed: NDArray[np.float64] = np.empty(0)
        self._smoothed_to = 0
        self._utterance: list[Scores] = []
        self._utterances = 0
        self._scored = 0
        self._unscored = 0

    def started(self) -> StreamStarted:
        """The stream's first message."""
        return StreamStarted(**self._header(0, 0))

    def scored(self, window: SpeechWindow, scores: Scores) -> WindowEmotion:
        """A window has its scores."""
        self.model = scores.model
        self._scored += 1
        self._smooth(window, scores)
        self._utterance.append(scores)
        probabilities, smoothed = _by_label(scores.labels, scores.probabilities), self._smoothed_by_label()
        arousal, valence = arousal_valence(smoothed)
        emotion = max(probabilities, key=probabilities.__getitem__)
        return WindowEmotion(
            **self._header(window.start, window.end),
            utterance=window.utterance,
            final=window.final,
            probabilities=probabilities,
            emotion=emotion,
            confidence=probabilities[emotion],
            smoothed=smoothed,
            smoothed_emotion=max(smoothed, key=smoothed.__getitem__),
            arousal=arousal,
            valence=valence,
            quality=_report(window.quality),
            speech_s=_seconds(window.speech_so_far),
            lost_s=_seconds(window.lost_so_far),
        )

    def alarmed(self, window: WindowEmotion) -> list[Alert]:
        """The alerts that a scored window raises and clears."""
        changes = self.alerts.update(window.start, window.end, window.speech_s, window.smoothed)
        return [
            Alert(
                **self._header(round(change.since * SAMPLE_RATE), round(window.end * SAMPLE_RATE)),
                rule=change.rule.name,
                state="raised" if change.raised else "cleared",
                severity=change.rule.severity,
                emotions=change.emotions,
                probability=change.probability,
                threshold=change.rule.threshold,
            )
            for change in changes
        ]

    def unscored(self, window: SpeechWindow, reason: UnscoredReason) -> WindowUnscored:
        """A window must not be scored."""
        self._unscored += 1
        return WindowUnscored(
            **self._header(window.start, window.end),
            utterance=window.utterance,
            final=window.final,
            reason=reason,
            quality=_report(window.quality),
            speech_s=_seconds(window.speech_so_far),
            lost_s=_seconds(window.lost_so_far),
        )

    def utterance_ended(self, end: UtteranceEnd) -> UtteranceEmotion | None:
        """The utterance's result; None if none of its windows was scored."""
        self._utterances += 1
        # A model swapped in during the utterance may know other labels: its last model decides.
        scores = [s for s in self._utterance if s.labels == self._labels]
        self._utterance = []
        if not scores:
            return None
        probabilities = _by_label(self._labels, np.mean([s.probabilities for s in scores], axis=0))
        emotion = max(probabilities, key=probabilities.__getitem__)
        arousal, valence = arousal_valence(probabilities)
        seconds = _seconds(end.end - end.start)
        self.emotions_s[emotion] = round(self.emotions_s.get(emotion, 0.0) + seconds, 3)
        return UtteranceEmotion(
            **self._header(end.start, end.end),
            utterance=end.utterance,
            windows=len(scores),
            probabilities=probabilities,
            emotion=emotion,
            confidence=probabilities[emotion],
            arousal=arousal,
            valence=valence,
        )

    def muted(self, position: int) -> Mute:
        """From here on there is no time to hear the stream."""
        return Mute(**self._header(position, position), state="muted")

    def heard(self, muted_at: int, position: int) -> Mute:
        """There is time again to hear it."""
        return Mute(**self._header(muted_at, position), state="heard")

    def ended(self, reason: EndReason, position: int, speech: int, lost: float, muted: int) -> StreamEnded:
        """The stream's last message, its summary. Counts are samples."""
        return StreamEnded(
            **self._header(0, position),
            reason=reason,
            utterances=self._utterances,
            windows=self._scored,
            unscored=self._unscored,
            speech_s=_seconds(speech),
            lost_s=_seconds(lost),
            muted_s=_seconds(muted),
            emotions_s=dict(self.emotions_s),
        )

    def _smooth(self, window: SpeechWindow, scores: Scores) -> None:
        """Exponential smoothing whose clock is the speech heard, so that silence does not wash it out."""
        if scores.labels != self._labels or not self._smoothing_s:
            self._labels, self._smoothed = scores.labels, scores.probabilities.astype(np.float64)
        else:
            new_s = (window.end - max(window.start, self._smoothed_to)) / SAMPLE_RATE
            weight = 1.0 - math.exp(-new_s / self._smoothing_s)
            self._smoothed = self._smoothed + weight * (scores.probabilities - self._smoothed)
        self._smoothed_to = window.end

    def _smoothed_by_label(self) -> dict[str, float]:
        return _by_label(self._labels, self._smoothed)

    def _header(self, start: int, end: int) -> Header:
        """The fields that every message about this stream carries; each call uses up a sequence number."""
        sequence = self._sequence
        self._sequence += 1
        return {
            "source": self.info.source,
            "call": self.info.call,
            "stream": self.info.stream,
            "role": self.info.role,
            "sequence": sequence,
            "start": start / SAMPLE_RATE,
            "end": end / SAMPLE_RATE,
            "time": rfc3339(self.info.started_at + end / SAMPLE_RATE),
            "model": self.model,
        }


def _seconds(samples: float) -> float:
    return round(samples / SAMPLE_RATE, 3)


def _by_label(labels: tuple[str, ...], values: NDArray[Any]) -> dict[str, float]:
    return dict(zip(labels, np.round(values.astype(float), 4).tolist(), strict=True))


def _report(quality: Quality) -> QualityReport:
    return QualityReport(
        loss=round(quality.loss, 4),
        clipping=round(quality.clipping, 4),
        level_dbfs=round(quality.level_dbfs, 1),
        speech=round(quality.speech, 4),
    )
