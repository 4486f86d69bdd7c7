"""The model before takes over from one that fails."""

import threading

import numpy as np
import pytest
from published_model import publish
from served_models import break_model, serving, settle, windows

from serstream.config import ModelSettings
from serstream.emotion.loading import load_model
from serstream.emotion.store import ModelStore, Pointer, Reference, check_sums
from serstream.errors import ModelError
from serstream.feed.messages import ModelChanged, ModelRefused
from serstream.service import candidate


def test_a_model_that_takes_over_at_the_start_is_told_until_another_is_activated(store: ModelStore) -> None:
    with serving(store) as models:
        assert not models.status().fallback
    store.activate(Reference("tiny", 2))
    file = store.file(Reference("tiny", 2))
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    with serving(store) as models:
        refused, changed = settle(models)
        assert isinstance(refused, ModelRefused) and refused.candidate == "tiny@2"
        assert isinstance(changed, ModelChanged)
        assert (changed.previous, changed.model) == ("tiny@2", "tiny@1")
        status = models.status()
        assert (status.name, status.previous, status.refusals) == ("tiny@1", "tiny@2", 1)
        assert status.fallback
        assert status.refusal and "it was damaged or changed after publishing" in status.refusal.reason
        file.write_bytes(whole)
        assert models.rollback() == "tiny@2"
        settle(models)
        assert (models.reference, models.status().fallback) == ("tiny@2", False)


def test_a_model_that_fails_on_a_window_is_replaced_by_the_one_before(
    store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The very windows that it failed on are scored."""
    with serving(store) as models:
        models.activate("tiny@2")
        settle(models)
        break_model(models.active, monkeypatch)
        scores = models.score(windows(3))
        assert [s.model for s in scores] == ["tiny@1"] * 3
        refused, changed = models.poll(2.0, 0.0)
        assert isinstance(refused, ModelRefused)
        assert (refused.candidate, refused.model) == ("tiny@2", "tiny@1")
        assert "scores are not finite" in refused.reason
        assert isinstance(changed, ModelChanged)
        assert (changed.previous, changed.model) == ("tiny@2", "tiny@1")
        assert store.pointer().active == "tiny@1"
        assert models.poll(3.0, 0.0) == []


@pytest.mark.parametrize("purpose", ["activate", "shadow"])
def test_a_model_that_fails_while_another_is_being_loaded_is_not_the_one_to_go_back_to(
    store: ModelStore, monkeypatch: pytest.MonkeyPatch, purpose: str
) -> None:
    publish(store.root, 3, seed=3)
    with serving(store) as models:
        models.activate("tiny@2")
        settle(models)
        failed = threading.Event()
        monkeypatch.setattr(candidate, "inspect_apart", lambda folder: failed.wait() and check_sums(folder))
        models._inspected.clear()
        models.activate("tiny@3") if purpose == "activate" else models.set_shadow("tiny@1")
        break_model(models.active, monkeypatch)
        models.score(windows(1))
        assert models.reference == "tiny@1"
        failed.set()
        settle(models)
        there = ("tiny@3", "tiny@1") if purpose == "activate" else ("tiny@1", "tiny@2")
        assert store.pointer() == Pointer(active=there[0], previous=there[1])
        assert (models.reference, models.status().previous) == there
        assert models.status().shadow is None


def test_windows_that_were_scored_twice_count_once_in_their_speakers_baseline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A model failed on them, and the one before took over."""
    failed, standby, untouched = (load_model(ModelSettings(device="cpu")) for _ in range(3))
    heard = windows(12)
    for model in (failed, untouched):
        model.score(heard[:6])
    with monkeypatch.context() as patch:
        break_model(failed, patch)
        with pytest.raises(ModelError):
            failed.score(heard[6:])
    standby.continue_from(failed)
    for one, other in zip(standby.score(heard[6:]), untouched.score(heard[6:]), strict=True):
        np.testing.assert_array_equal(one.probabilities, other.probabilities)


def test_without_a_model_before_a_failure_is_fatal(
    store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(store) as models:
        break_model(models.active, monkeypatch)
        with pytest.raises(ModelError, match="scores are not finite"):
            models.score(windows(1))
