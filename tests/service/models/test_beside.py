"""A shadow and a canary beside the active model."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import pytest
from published_model import publish
from served_models import begin, break_model, full_disk, serving, settle, windows
from waiting import until

from serstream.emotion.store import ModelStore, Pointer, Reference
from serstream.errors import ControlError, ModelError
from serstream.feed.messages import CanaryReport, ModelRefused, ShadowReport
from serstream.service.models import REPORT_INTERVAL_S


def test_a_shadow_is_compared_and_nothing_else(store: ModelStore) -> None:
    with serving(store) as models:
        alone = models.score(windows(20))
        models.set_shadow("tiny@2")
        (first,) = settle(models)
        assert isinstance(first, ShadowReport)
        assert first.windows == 0
        begin(models, "s", "call")
        beside = models.score(windows(20))
        assert all(
            np.array_equal(a.probabilities, b.probabilities) for a, b in zip(alone, beside, strict=True)
        )
        models.forget("s")
        assert until(lambda: models.status().shadow.windows == 20)
        (report,) = models.poll(1.0 + REPORT_INTERVAL_S, 0.0)
        assert isinstance(report, ShadowReport)
        assert (report.model, report.candidate, report.windows, report.skipped) == ("tiny@1", "tiny@2", 20, 0)
        assert 0 <= report.agreement < 1
        assert report.latency_ms > 0
        assert sum(report.emotions.values()) == 20
        assert store.pointer().shadow == "tiny@2"
        assert models.set_shadow("") == "tiny@2"
        assert models.status().shadow is store.pointer().shadow is None


def test_the_same_model_agrees_whatever_goes_on_when_it_begins(store: ModelStore) -> None:
    """What the active model knows of the speakers of older streams, it knows then, too."""
    publish(store.root, 3, seed=1)
    with serving(store) as models:
        begin(models, "old", "old call")
        models.score(windows(8, "old"))
        models.set_shadow("tiny@3")
        settle(models)
        begin(models, "s", "call")
        models.score(windows(8, "old") + windows(8))
        models.forget("s")
        assert until(lambda: models.status().shadow.windows >= 16)
        assert models.status().shadow.agreement == 1.0
        assert models.status().shadow.confidence_shift == 0.0


def test_a_share_of_the_streams_is_a_share(store: ModelStore) -> None:
    with serving(store, shadow_share=0.25) as models:
        models.set_shadow("tiny@2")
        settle(models)
        shadow = models._shadow
        assert shadow is not None
        for i in range(1000):
            begin(models, f"stream-{i}", "call")
        assert 150 < len(shadow._streams) < 350


def test_a_shadow_survives_a_restart(store: ModelStore) -> None:
    store.set_shadow(Reference("tiny", 2))
    with serving(store) as models:
        settle(models)
        assert models.status().shadow.name == "tiny@2"
        models.activate("tiny@2")
        settle(models)
        assert models.status().shadow is None


def test_a_shadow_needs_no_room_on_the_disk_to_survive_or_to_end(store: ModelStore) -> None:
    store.set_shadow(Reference("tiny", 2))
    with serving(store) as models, full_disk():
        settle(models)
        assert models.status().shadow.name == "tiny@2"
        with pytest.raises(ModelError, match="no shadow is compared any more, until the next start"):
            models.set_shadow("")
        assert models.status().shadow is None


@pytest.mark.parametrize("disk", [nullcontext, full_disk])
def test_a_shadow_that_fails_does_not_come_back(
    store: ModelStore, monkeypatch: pytest.MonkeyPatch, disk: Callable[[], AbstractContextManager[None]]
) -> None:
    """Where that cannot be written down the calls go on all the same."""
    with serving(store) as models:
        models.set_shadow("tiny@2")
        settle(models)
        begin(models, "a", "call")
        shadow = models._shadow
        assert shadow is not None
        break_model(shadow._model, monkeypatch)
        models.score(windows(3, "a"))
        assert until(lambda: bool(shadow.failure))
        with disk():
            (message,) = settle(models)
        assert isinstance(message, ModelRefused)
        assert models.status().shadow is None
        assert store.pointer().shadow == (None if disk is nullcontext else "tiny@2")


def test_a_shadow_that_is_damaged_is_refused_at_one_start_only(store: ModelStore) -> None:
    store.set_shadow(Reference("tiny", 2))
    store.file(Reference("tiny", 2)).write_bytes(b"damaged")
    with serving(store) as models:
        assert [type(message) for message in settle(models)] == [ModelRefused]
    with serving(store) as models:
        assert settle(models) == []


def test_a_shadow_that_runs_outlives_a_refusal_to_activate_it(store: ModelStore) -> None:
    with serving(store) as models:
        models.set_shadow("tiny@2")
        settle(models)
        store.file(Reference("tiny", 2)).write_bytes(b"damaged")
        models.activate("tiny@2")
        assert any(isinstance(message, ModelRefused) for message in settle(models))
        assert models.status().shadow.name == store.pointer().shadow == "tiny@2"


def test_a_canary_scores_the_calls_that_begin_and_no_other(store: ModelStore) -> None:
    with serving(store, canary_share=0.5) as models:
        assert begin(models, "old", "old call") == "tiny@1"
        assert models.set_canary("tiny@2") == "tiny@2"
        (first,) = settle(models)
        assert isinstance(first, CanaryReport)
        assert (first.candidate, first.model, first.share, first.calls) == ("tiny@2", "tiny@1", 0.5, 0)
        assert begin(models, "a", "call") == begin(models, "b", "call") == "tiny@2"
        assert begin(models, "old too", "old call") == begin(models, "c", "next call") == "tiny@1"
        batch = [windows(1, stream)[0] for stream in ("old", "a", "b", "old too", "c")]
        assert [s.model[-1] for s in models.score(batch)] == ["1", "2", "2", "1", "1"]
        (report,) = models.poll(1.0 + REPORT_INTERVAL_S, 0.0)
        assert isinstance(report, CanaryReport)
        assert (report.windows, report.calls, report.errors) == (2, 1, 0)
        assert store.pointer() == Pointer(active="tiny@1"), "it does not survive a restart"
        assert models.set_canary("") == "tiny@2"
        assert {s.model for s in models.score(batch)} == {"tiny@1"}
        assert models.status().canary is None
        for stream in ("old", "a", "b", "old too", "c"):
            models.forget(stream)
        assert models._calls == {}


def test_a_canary_becomes_active_in_the_middle_of_its_calls(store: ModelStore) -> None:
    publish(store.root, 3, seed=3)
    with serving(store) as models:
        models.set_canary("tiny@3", 1.0)
        settle(models)
        assert begin(models, "a", "call") == "tiny@3"
        models.activate("tiny@2")
        settle(models)
        assert {s.model for s in models.score(windows(2, "a"))} == {"tiny@3"}, "pinned"
        models.activate("tiny@3")
        settle(models)
        assert {s.model for s in models.score(windows(2, "a"))} == {"tiny@3"}
        assert (models.reference, models.status().canary) == ("tiny@3", None)
        with pytest.raises(ControlError, match="tiny@3 is active: it scores every call already"):
            models.set_canary("tiny@3")


def test_a_bad_canary_is_refused_and_not_tried_again(
    store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(store, auto_activate=True) as models:
        models.set_canary("tiny@2", 1.0)
        settle(models)
        begin(models, "a", "call")
        canary = models._canary
        assert canary is not None
        break_model(canary.model, monkeypatch)
        assert {s.model for s in models.score(windows(3, "a"))} == {"tiny@1"}
        (message,) = models.poll(2.0, 0.0)
        assert isinstance(message, ModelRefused)
        assert (message.candidate, message.model) == ("tiny@2", "tiny@1")
        assert message.reason.startswith("failed on 3 of its last 3 windows")
        refusal = models.status().refusal
        assert refusal and refusal.reason == message.reason
        for now in range(10, 100, 10):
            assert settle(models, now) == []
        assert (models.reference, models.status().canary, models.status().refusals) == ("tiny@1", None, 1)


def test_the_active_model_is_no_candidate_beside_itself(store: ModelStore) -> None:
    store.activate(Reference("tiny", 2))
    store.set_shadow(Reference("tiny", 1))
    store.file(Reference("tiny", 2)).write_bytes(b"damaged")
    with serving(store) as models:
        for begin_candidate in (models.set_shadow, models.set_canary):
            with pytest.raises(ControlError, match="tiny@1 is active: it scores every call already"):
                begin_candidate("tiny@1")
        settle(models)
        assert models.status().shadow is None, "it took over from the damaged one"


def test_a_comparison_begins_anew_with_another_active_model(store: ModelStore) -> None:
    publish(store.root, 3, seed=3)
    with serving(store) as models:
        for begin_candidate in (models.set_shadow, models.set_canary):
            begin_candidate("tiny@3")
            settle(models)
        begin(models, "a", "call")
        models.score(windows(4, "a"))
        assert until(lambda: models.status().shadow.windows == 4)
        assert models.status().canary.windows == 4
        models.activate("tiny@2")
        settle(models)
        assert models.status().canary.windows == models.status().shadow.windows == 0
        models.activate("tiny@3")
        settle(models)
        assert models.status().canary is models.status().shadow is None
