"""Messages of made-up calls, for tests of the feed and of all that subscribes to it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import chain, zip_longest
from typing import Any

from serstream.emotion.affect import arousal_valence
from serstream.feed.messages import (
    NONE,
    Alert,
    CallEnded,
    CallStarted,
    Message,
    ModelChanged,
    Mute,
    QualityReport,
    StreamEnded,
    StreamStarted,
    UtteranceEmotion,
    WindowEmotion,
    WindowUnscored,
    rfc3339,
)
from serstream.types import Role

LABELS = ("angry", "disgust", "fear", "happy", "neutral", "sad")
MODEL = "cnn-lstm@1"
EPOCH = 1_767_225_600.0
"""2026-01-01T00:00:00Z."""


class Script:
    """One stream of a call, ``began`` seconds after `EPOCH`; every method is its next message."""

    def __init__(
        self,
        call: str,
        stream: str,
        role: Role = "customer",
        *,
        source: str = "rtp:5004",
        began: float = 0.0,
    ):
        self.header: dict[str, Any] = {
            "source": source,
            "call": call,
            "stream": stream,
            "role": role,
            "model": MODEL,
        }
        self.began = began
        self.sequence = 0

    def _common(self, start: float, end: float) -> dict[str, Any]:
        sequence = self.sequence
        self.sequence += 1
        times = {"start": start, "end": end, "time": rfc3339(EPOCH + self.began + end)}
        return self.header | times | {"sequence": sequence}

    def call_started(self) -> CallStarted:
        return CallStarted(**self._common(0, 0))

    def started(self) -> StreamStarted:
        return StreamStarted(**self._common(0, 0))

    def window(self, end: float, emotion: str, confidence: float = 0.75) -> WindowEmotion:
        scores = distribution(emotion, confidence)
        arousal, valence = arousal_valence(scores)
        return WindowEmotion(
            **self._common(max(0.0, end - 2), end),
            utterance=0,
            final=False,
            probabilities=scores,
            emotion=emotion,
            confidence=confidence,
            smoothed=scores,
            smoothed_emotion=emotion,
            arousal=arousal,
            valence=valence,
            quality=QualityReport(loss=0.0, clipping=0.0, level_dbfs=-22.5, speech=0.9),
            speech_s=end / 2,
            lost_s=end / 100,
        )

    def unscored(self, end: float, reason: Any = "role") -> WindowUnscored:
        return WindowUnscored(
            **self._common(max(0.0, end - 2), end),
            utterance=0,
            final=False,
            reason=reason,
            quality=QualityReport(loss=0.0, clipping=0.0, level_dbfs=-22.5, speech=0.9),
            speech_s=end / 4,
            lost_s=0.0,
        )

    def utterance(self, start: float, end: float, emotion: str, confidence: float = 0.75) -> UtteranceEmotion:
        scores = distribution(emotion, confidence)
        arousal, valence = arousal_valence(scores)
        return UtteranceEmotion(
            **self._common(start, end),
            utterance=0,
            windows=3,
            probabilities=scores,
            emotion=emotion,
            confidence=confidence,
            arousal=arousal,
            valence=valence,
        )

    def alert(
        self, end: float, state: Any = "raised", rule: str = "anger", severity: Any = "warning"
    ) -> Alert:
        return Alert(
            **self._common(max(0.0, end - 4), end),
            rule=rule,
            state=state,
            severity=severity,
            emotions=("angry",),
            probability=0.75,
            threshold=0.6,
        )

    def mute(self, start: float, end: float | None = None) -> Mute:
        """Muted at ``start``, or heard again at ``end``."""
        state: Any = "muted" if end is None else "heard"
        return Mute(**self._common(start, start if end is None else end), state=state)

    def ended(self, end: float, reason: Any = "bye") -> StreamEnded:
        return StreamEnded(
            **self._common(0, end),
            reason=reason,
            utterances=2,
            windows=7,
            unscored=1,
            speech_s=end / 2,
            lost_s=end / 100,
            emotions_s={"angry": end / 4, "neutral": end / 4},
        )

    def call_ended(self, end: float, streams: dict[str, Role]) -> CallEnded:
        return CallEnded(
            **self._common(0, end),
            streams=streams,
            emotions_s={name: {"neutral": end / 4} for name in streams},
            alerts=1,
        )


def distribution(emotion: str, confidence: float) -> dict[str, float]:
    rest = (1 - confidence) / (len(LABELS) - 1)
    return {label: round(confidence if label == emotion else rest, 4) for label in LABELS}


def model_change() -> ModelChanged:
    script = Script(NONE, NONE, "unknown", source="serstream")
    return ModelChanged(**script._common(0, 0), previous="")


def call(name: str, windows: int = 10, seed: int = 0) -> list[Message]:
    """A call: the customer is scored, alarms somebody and is muted a while; the agent is not analysed."""
    dice = random.Random(f"{name}/{seed}")
    own = Script(name, NONE, "unknown")
    customer, agent = Script(name, f"{name}-c"), Script(name, f"{name}-a", "agent")
    messages: list[Message] = [own.call_started(), customer.started(), agent.started()]
    for i in range(1, windows + 1):
        end = 2.0 * i
        messages.append(customer.window(end, dice.choice(LABELS)))
        if i % 2:
            messages.append(agent.unscored(end))
        if i % 3 == 0:
            messages.append(customer.alert(end, "raised" if i % 2 else "cleared"))
        if i % 4 == 0:
            messages.append(customer.utterance(end - 8, end, dice.choice(LABELS)))
        if i % 5 == 0:
            messages.append(customer.mute(end) if i % 2 else customer.mute(end - 1, end))
    end = 2.0 * windows + 1
    messages += [agent.ended(end), customer.ended(end)]
    messages.append(own.call_ended(end, {f"{name}-c": "customer", f"{name}-a": "agent"}))
    return messages


def calls(n: int, windows: int = 10) -> Iterator[Message]:
    """Calls that go on at the same time, their messages interleaved, none over."""
    each = [call(f"call-{i:03}", windows)[:-3] for i in range(n)]
    return (message for message in chain.from_iterable(zip_longest(*each)) if message is not None)
