"""One model after another, as somebody asks for it."""

from pathlib import Path

import numpy as np
import pytest
from published_model import publish
from served_models import serving, settle, windows

from serstream.config import ModelSettings
from serstream.emotion.loading import load_model
from serstream.emotion.store import ModelStore, Pointer, Reference
from serstream.errors import ControlError, ModelError
from serstream.feed.messages import ModelChanged, ModelRefused
from serstream.service import candidate
from serstream.service.models import Models


def test_a_swap_names_both_models_and_what_the_new_one_runs_on(store: ModelStore) -> None:
    with serving(store) as models:
        assert models.activate("tiny") == "tiny@2"
        (message,) = settle(models)
        assert isinstance(message, ModelChanged)
        assert (message.previous, message.model, message.providers) == (
            "tiny@1",
            "tiny@2",
            ("CPUExecutionProvider",),
        )
        assert {scores.model for scores in models.score(windows(3))} == {"tiny@2"}
        assert store.pointer().active == "tiny@2"
        assert (models.status().swaps, models.status().previous) == (1, "tiny@1")


def test_rollback_goes_back_and_forth(store: ModelStore) -> None:
    with serving(store) as models:
        with pytest.raises(ControlError, match="no model was active before this one"):
            models.rollback()
        models.activate("tiny@2")
        settle(models)
        for wanted in ("tiny@1", "tiny@2"):
            assert models.rollback() == wanted
            settle(models)
            assert models.reference == store.pointer().active == wanted


def test_the_previous_model_is_one_that_scored_whatever_another_process_wrote(store: ModelStore) -> None:
    publish(store.root, 3, seed=3)
    with serving(store) as models:
        models.activate("tiny@2")
        settle(models)
        (store.root / "active.json").write_text('{"active":"tiny@77"}')
        models.rollback()
        settle(models)
        assert store.pointer() == Pointer(active="tiny@1", previous="tiny@2")
        (store.root / "active.json").write_text('{"active":"tiny@3"}')
        models.activate("tiny@1")
        settle(models)
        assert store.pointer() == Pointer(active="tiny@1", previous="tiny@2"), "3 never scored"


def test_what_a_candidate_breaks_is_a_refusal_too(store: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(_path: Path) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(candidate, "inspect_apart", explode)
    with serving(store) as models:
        models.activate("tiny@2")
        (message,) = settle(models)
        assert isinstance(message, ModelRefused)
        assert message.reason == "model tiny@2: ZeroDivisionError()"


def test_one_candidate_at_a_time(store: ModelStore) -> None:
    with serving(store) as models:
        models.activate("tiny@2")
        with pytest.raises(ControlError, match="tiny@2 is being loaded; ask again"):
            models.activate("tiny@1")
        with pytest.raises(ControlError, match="tiny@2 is being loaded"):
            models.set_shadow("tiny@2")
        settle(models)


def test_who_asks_for_what_is_not_there_hears_it_at_once(store: ModelStore) -> None:
    with serving(store) as models, pytest.raises(ModelError, match="there is tiny@1, tiny@2"):
        models.activate("tiny@3")


def test_a_single_file_cannot_be_changed(tiny_model: Path) -> None:
    settings = ModelSettings(path=str(tiny_model), device="cpu")
    models = Models(settings, Path(), load_model(settings), 0.0)
    with pytest.raises(ControlError, match=r"model\.path names one file"):
        models.activate("tiny@1")
    models.reread_pointer()
    assert models.poll(0.0, 0.0) == []


def test_a_pointer_written_by_another_process_is_followed_on_reload(store: ModelStore) -> None:
    with serving(store) as models:
        store.activate(Reference("tiny", 2))
        assert models.reread_pointer() == ""
        assert models.reread_pointer() == "", "it is being loaded already"
        settle(models)
        assert models.reference == "tiny@2"
        assert models.reread_pointer() == ""
        assert not models.status().loading


def test_a_pointer_that_cannot_be_followed_is_told(store: ModelStore) -> None:
    with serving(store) as models:
        models.set_shadow("tiny@2")
        store.activate(Reference("tiny", 2))
        assert "tiny@2 is being loaded; ask again when it is done; tiny@1 stays" in models.reread_pointer()
        settle(models)
        (store.root / "active.json").write_text('{"active": "tiny@9"}')
        assert "model tiny@9: not in" in models.reread_pointer()
        (store.root / "active.json").write_text('{"active":')
        assert "cannot read it" in models.reread_pointer()
        assert models.reference == "tiny@1"


def test_labels_may_change_in_the_middle_of_a_call(store: ModelStore) -> None:
    publish(
        store.root, 1, name="seven", labels=("angry", "boredom", "disgust", "fear", "happy", "neutral", "sad")
    )
    with serving(store) as models:
        assert len(models.score(windows(1))[0].labels) == 6
        models.activate("seven@1")
        (message,) = settle(models)
        assert isinstance(message, ModelChanged)
        assert len(message.labels) == len(models.score(windows(1))[0].labels) == 7


def test_speakers_stay_known_over_a_swap(store: ModelStore) -> None:
    """A model with the same features takes over what was heard of the living streams."""
    from serstream.shipped import models_dir

    shipped = load_model(ModelSettings(device="cpu"))
    again = load_model(ModelSettings(device="cpu"))
    if shipped.metadata.feature_spec.baseline is None:
        pytest.skip(f"the shipped model in {models_dir()} has no speaker baseline")
    heard = windows(30)
    for window in heard[:20]:
        shipped.score([window])
    again.continue_from(shipped)
    for window in heard[20:]:
        assert np.array_equal(
            again.score([window])[0].probabilities, shipped.score([window])[0].probabilities
        )


def test_a_model_that_moves_to_another_device_is_told_once(
    store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(store) as models:
        assert models.poll(0.0, 0.0) == []
        monkeypatch.setattr(type(models.active), "providers", property(lambda _: ["ElsewhereProvider"]))
        (message,) = models.poll(1.0, 0.0)
        assert isinstance(message, ModelChanged)
        assert (message.previous, message.model) == ("tiny@1", "tiny@1")
        assert message.providers == models.status().providers == ("ElsewhereProvider",)
        assert models.poll(2.0, 0.0) == []
