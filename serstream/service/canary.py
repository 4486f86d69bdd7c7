"""A candidate that scores a share of the calls for real, and is sent back by itself when it does badly."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Sequence
from statistics import median

from serstream.emotion.model import EmotionModel
from serstream.errors import ModelError
from serstream.service.comparison import Comparison
from serstream.service.status import CanaryStatus
from serstream.types import Scores, SpeechWindow, StreamStart

TRIAL_WINDOWS = 100
"""It is judged by so many windows at a time."""
MAX_ERRORS = 2
"""Of them it may fail on so many."""
SLOWEST = 3.0
"""It may take so many times as long for a window as the active model does."""
PATIENCE_S = 1.0
"""Its batches may exceed that by so much together before the trial is over."""
COLLAPSED, VARIED = 0.95, 0.8
"""It has collapsed when one label wins the first share of a trial, and none wins the second one with the
active model."""


class Canary:
    """Belongs to the daemon's main thread.

    The active model hears the canary's windows too: by that the canary is judged, and the active model can
    take its calls back in the middle, with what it has heard of their speakers and without losing a window.

    Args:
        model: the candidate, loaded and warm.
        share: of the calls that begin from now on, above 0 to 1; a call is its own for as long as it lasts.
    """

    def __init__(self, model: EmotionModel, share: float):
        self.model = model
        self.failure = ""
        """Why its calls go back to the active model; empty while they do not."""
        self._share = share
        self._begun = self._calls = self._errors = 0
        self._streams: dict[str, str] = {}
        """Call of every living stream that is its own."""
        self.compare_anew()

    @property
    def reference(self) -> str:
        """``name@version`` of the candidate."""
        return self.model.reference

    def compare_anew(self) -> None:
        """Forget the comparison: another model is active."""
        self._compared = Comparison(self.model.metadata.labels)
        self._trial = _Trial()

    def begin(self, start: StreamStart, new_call: bool) -> bool:
        """A stream begins, the first of its call or not; whether it is the canary's own."""
        if new_call:
            # By count and not by chance: of ten calls a tenth is one.
            before, self._begun = self._begun, self._begun + 1
            own = math.ceil(self._begun * self._share) > math.ceil(before * self._share)
            self._calls += own
        else:
            own = start.call in self._streams.values()
        if own:
            self._streams[start.stream] = start.call
        return own

    def forget(self, stream: str) -> None:
        """The stream is over."""
        self._streams.pop(stream, None)
        self.model.forget(stream)

    def score(
        self, windows: Sequence[SpeechWindow], scores: list[Scores], active_seconds: float
    ) -> list[Scores]:
        """Scores of each window: the canary's of its own streams, the others as they are.

        Args:
            windows: in order.
            scores: what the active model says about them.
            active_seconds: how long it took.
        """
        own = [i for i, window in enumerate(windows) if window.stream in self._streams]
        if not own or self.failure:
            return scores
        active = [scores[i] for i in own]
        began = time.perf_counter()
        try:
            said = self.model.score([windows[i] for i in own])
        except ModelError as error:
            self._errors += len(own)
            self.failure = self._trial.failed(len(own), str(error))
            return scores
        seconds = time.perf_counter() - began
        self._compared.add(said, active, seconds)
        self.failure = self._trial.add(said, active, seconds, active_seconds * len(own) / len(windows))
        if self._trial.windows >= TRIAL_WINDOWS:
            self._trial = _Trial()
        mixed = list(scores)
        for i, own_scores in zip(own, said, strict=True):
            mixed[i] = own_scores
        return mixed

    def status(self) -> CanaryStatus:
        """How it does."""
        return CanaryStatus(
            name=self.reference,
            share=self._share,
            calls=self._calls,
            errors=self._errors,
            **self._compared.figures(),
        )


class _Trial:
    """What the canary did lately, beside what the active model did with the same windows."""

    def __init__(self) -> None:
        self.windows = 0
        self._errors = 0
        self._seconds: list[tuple[float, float]] = []
        """For a window, by batch: the canary's and the active model's."""
        self._excess_s = 0.0
        self._winners: Counter[str] = Counter()
        self._active_winners: Counter[str] = Counter()

    def failed(self, n: int, error: str) -> str:
        """It failed on a batch of n; why it must go, or nothing."""
        self.windows += n
        self._errors += n
        if self._errors <= MAX_ERRORS:
            return ""
        return f"failed on {self._errors} of its last {self.windows} windows, the last time because: {error}"

    def add(self, said: list[Scores], active: list[Scores], seconds: float, active_seconds: float) -> str:
        """A batch; why it must go, or nothing."""
        n = len(said)
        self.windows += n
        self._seconds.append((seconds / n, active_seconds / n))
        self._excess_s += seconds - SLOWEST * active_seconds
        self._winners.update(scores.winner for scores in said)
        self._active_winners.update(scores.winner for scores in active)
        over = self.windows >= TRIAL_WINDOWS
        return self._slow(over) or (self._collapsed() if over else "")

    def _slow(self, over: bool) -> str:
        own, active = (median(column) for column in zip(*self._seconds, strict=True))
        if self._excess_s <= PATIENCE_S and not (over and own > SLOWEST * active):
            return ""
        return (
            f"takes {1000 * own:.1f} ms for a window, the active model {1000 * active:.1f} ms; "
            f"wanted at most {SLOWEST:g} times that"
        )

    def _collapsed(self) -> str:
        (label, count), (_, most) = self._winners.most_common(1)[0], self._active_winners.most_common(1)[0]
        n = self._winners.total()
        if count < COLLAPSED * n or most > VARIED * n:
            return ""
        return (
            f"has collapsed to one class: {label} in {count} of its last {n} windows, where the active model "
            f"says nothing in more than {most}"
        )
