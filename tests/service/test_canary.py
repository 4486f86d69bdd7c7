"""A share of the calls goes to a candidate, and comes back by itself."""

from collections.abc import Sequence

import numpy as np
import pytest

from serstream.errors import ModelError
from serstream.service.canary import MAX_ERRORS, TRIAL_WINDOWS, Canary
from serstream.types import Quality, Scores, SpeechWindow, StreamStart

LABELS = ("angry", "neutral", "sad")
FAST = 1e-9
"""Seconds for a batch that no candidate keeps up with."""


class ScriptedModel:
    """Stands for a model that is bad in a given way, which no trained one is on demand."""

    reference = "tiny@2"

    def __init__(self, says: Sequence[str] = LABELS):
        self.metadata = self
        self.labels = LABELS
        self.says = says
        self.broken = False
        self.forgotten: list[str] = []

    def score(self, windows: Sequence[SpeechWindow]) -> list[Scores]:
        if self.broken:
            raise ModelError("model tiny@2: a window's scores are not finite")
        return spoken([self.says[window.start % len(self.says)] for window in windows], "tiny@2")

    def forget(self, stream: str) -> None:
        self.forgotten.append(stream)


def spoken(winners: Sequence[str], model: str = "tiny@1") -> list[Scores]:
    rows = [np.array([0.8 if label == winner else 0.1 for label in LABELS], np.float32) for winner in winners]
    return [Scores(LABELS, row, model) for row in rows]


def begin(canary: Canary, call: str, stream: str = "", new: bool = True) -> bool:
    return canary.begin(StreamStart(stream or call, call, "customer", "rtp:5004", 0.0), new)


def window(stream: str, number: int = 0) -> SpeechWindow:
    return SpeechWindow(
        stream, np.zeros(10, np.float32), number, number + 10, 0, False, Quality(0, 0, -26, 1)
    )


def hear(canary: Canary, n: int, active: Sequence[str] = LABELS, active_seconds: float = 1.0) -> None:
    """Windows of one stream of its own, one a batch."""
    for number in range(n):
        canary.score([window("own", number)], spoken([active[number % len(active)]]), active_seconds)


@pytest.fixture
def model() -> ScriptedModel:
    return ScriptedModel()


@pytest.fixture
def canary(model: ScriptedModel) -> Canary:
    canary = Canary(model, share=1.0)
    begin(canary, "own")
    return canary


@pytest.mark.parametrize(("share", "own"), [(0.1, 10), (0.25, 25), (0.7, 70), (1.0, 100)])
def test_a_share_of_the_calls_is_exactly_that_and_begins_with_the_first(share: float, own: int) -> None:
    canary = Canary(ScriptedModel(), share)
    drawn = [begin(canary, f"call-{i}") for i in range(100)]
    assert (sum(drawn), drawn[0], canary.status().calls) == (own, True, own)


def test_a_call_is_pinned_with_all_its_streams() -> None:
    canary = Canary(ScriptedModel(), share=0.5)
    assert [begin(canary, call, f"{call}-customer") for call in "abc"] == [True, False, True]
    assert [begin(canary, call, f"{call}-agent", new=False) for call in "abc"] == [True, False, True]
    windows = [window("a-agent"), window("b-agent"), window("c-customer"), window("other")]
    scores = canary.score(windows, spoken(["neutral"] * 4), 1.0)
    assert [s.model for s in scores] == ["tiny@2", "tiny@1", "tiny@2", "tiny@1"]


def test_a_call_that_goes_on_already_is_none_of_its_own(canary: Canary) -> None:
    assert not begin(canary, "older", "its second stream", new=False)


def test_what_is_over_is_forgotten(canary: Canary, model: ScriptedModel) -> None:
    canary.forget("own")
    assert model.forgotten == ["own"]
    assert canary._streams == {}
    assert [s.model for s in canary.score([window("own")], spoken(["sad"]), 1.0)] == ["tiny@1"]


def test_it_is_compared_on_its_own_windows(canary: Canary) -> None:
    hear(canary, 30, active=("angry", "neutral", "angry"))
    status = canary.status()
    assert (status.windows, status.agreement, status.errors) == (30, pytest.approx(2 / 3, abs=1e-3), 0)
    assert status.emotions == {"angry": 10, "neutral": 10, "sad": 10}
    canary.compare_anew()
    assert (canary.status().windows, canary.status().calls) == (0, 1)


def test_a_good_one_stays(canary: Canary) -> None:
    hear(canary, 5 * TRIAL_WINDOWS)
    assert canary.failure == ""


def test_a_batch_that_it_fails_on_keeps_the_active_models_scores(
    canary: Canary, model: ScriptedModel
) -> None:
    model.broken = True
    for _ in range(MAX_ERRORS):
        assert [s.model for s in canary.score([window("own")], spoken(["sad"]), 1.0)] == ["tiny@1"]
    assert canary.failure == ""
    hear(canary, 1)
    assert canary.failure.startswith("failed on 3 of its last 3 windows")
    assert canary.failure.endswith("scores are not finite")
    assert canary.status().errors == 3
    model.broken = False
    assert [s.model for s in canary.score([window("own")], spoken(["sad"]), 1.0)] == ["tiny@1"]


def test_few_errors_are_forgiven_with_the_trial(canary: Canary, model: ScriptedModel) -> None:
    for _ in range(5):
        model.broken = True
        hear(canary, MAX_ERRORS)
        model.broken = False
        hear(canary, TRIAL_WINDOWS)
    assert canary.failure == ""


def test_one_that_is_slow_goes_when_its_trial_is_over(canary: Canary) -> None:
    hear(canary, TRIAL_WINDOWS - 1, active_seconds=FAST)
    assert canary.failure == ""
    hear(canary, 1, active_seconds=FAST)
    assert "wanted at most 3 times that" in canary.failure


def test_one_that_stalls_the_calls_goes_at_once(
    canary: Canary, model: ScriptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 2.0])
    monkeypatch.setattr("serstream.service.canary.time.perf_counter", lambda: next(clock))
    hear(canary, 1, active_seconds=0.002)
    assert canary.failure == (
        "takes 2000.0 ms for a window, the active model 2.0 ms; wanted at most 3 times that"
    )


def test_one_that_says_always_the_same_goes(canary: Canary, model: ScriptedModel) -> None:
    model.says = ("neutral",) * 40 + ("sad",)
    hear(canary, TRIAL_WINDOWS)
    assert canary.failure.startswith("has collapsed to one class: neutral in 98 of its last 100 windows")


def test_calls_in_which_everyone_is_neutral_are_no_collapse(canary: Canary, model: ScriptedModel) -> None:
    model.says = ("neutral",)
    hear(canary, TRIAL_WINDOWS, active=("neutral",) * 9 + ("sad",))
    assert canary.failure == ""
