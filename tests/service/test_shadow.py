"""The shadow's queue, with a model that takes as long as the test wants."""

import threading
from collections.abc import Sequence

import numpy as np
from waiting import until

from serstream.service.shadow import CAPACITY, Shadow
from serstream.types import Quality, Scores, SpeechWindow

LABELS = ("angry", "neutral", "sad")


class HeldModel:
    """Scores nothing before it is let go."""

    reference = "tiny@2"

    def __init__(self) -> None:
        self.metadata = self
        self.labels = LABELS
        self.go = threading.Event()
        self.heard: list[str] = []
        self.forgotten: list[str] = []

    def score(self, windows: Sequence[SpeechWindow]) -> list[Scores]:
        assert self.go.wait(10)
        self.heard += [window.stream for window in windows]
        return scores(len(windows))

    def forget(self, stream: str) -> None:
        assert stream in self.heard, "before its windows were heard"
        self.forgotten.append(stream)


def scores(n: int) -> list[Scores]:
    return [Scores(LABELS, np.array([0.8, 0.1, 0.1], np.float32), "tiny@1")] * n


def window(stream: str) -> SpeechWindow:
    return SpeechWindow(stream, np.zeros(10, np.float32), 0, 10, 0, False, Quality(0, 0, -26, 1))


def test_however_long_it_takes_little_waits_and_every_stream_that_it_heard_is_forgotten() -> None:
    model = HeldModel()
    shadow = Shadow(model)
    for i in range(10_000):
        shadow.begin(f"stream-{i}")
        shadow.offer([window(f"stream-{i}")], scores(1))
        shadow.forget(f"stream-{i}")
    skipped = shadow.status().skipped
    assert shadow._batches.qsize() <= 2 * CAPACITY
    model.go.set()
    assert until(shadow._batches.empty)
    shadow.close()
    assert shadow.status().windows == len(model.heard) == 10_000 - skipped
    assert model.forgotten == model.heard
    assert not shadow._streams and not shadow._heard


def test_a_stream_outside_its_share_does_not_wake_it() -> None:
    shadow = Shadow(HeldModel(), share=0.0)
    shadow.begin("stream")
    shadow.offer([window("stream")], scores(1))
    shadow.forget("stream")
    assert shadow._batches.qsize() == 0
    shadow.close()
