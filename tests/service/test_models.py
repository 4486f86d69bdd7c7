import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from published_model import publish, repository
from waiting import until

from serstream.config import ModelSettings
from serstream.emotion.loading import load_model, load_or_fall_back
from serstream.emotion.store import ModelStore, Pointer, Reference, check_sums
from serstream.errors import ControlError, ModelError
from serstream.feed.messages import CanaryReport, Message, ModelChanged, ModelRefused, ShadowReport
from serstream.service import candidate
from serstream.service.models import LOOK_INTERVAL_S, REPORT_INTERVAL_S, Models
from serstream.types import Quality, SpeechWindow, StreamStart


@pytest.fixture(autouse=True)
def inspected_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, which is quicker; tests/emotion/test_inspection.py has the other one."""
    monkeypatch.setattr(candidate, "inspect_apart", check_sums)


@contextmanager
def serving(store: ModelStore, **settings: Any) -> Iterator[Models]:
    options = ModelSettings(repository=store.root.name, device="cpu", **settings)
    first, refusal = load_or_fall_back(options, store.root.parent)
    models = Models(options, store.root.parent, first, 0.0, refusal)
    yield models
    models.close()


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return repository(tmp_path / "models")


def settle(models: Models, now: float = 1.0) -> list[Message]:
    """Poll until nothing is being loaded."""
    messages: list[Message] = []

    def is_settled() -> bool:
        messages.extend(models.poll(now, 0.0))
        return not models.status().loading

    assert until(is_settled)
    return messages


def windows(n: int, stream: str = "s") -> list[SpeechWindow]:
    rng = np.random.default_rng(n)
    return [
        SpeechWindow(
            stream,
            rng.normal(0, 0.1, 32_000).astype(np.float32),
            0,
            32_000,
            0,
            False,
            Quality(0, 0, -26, 1),
        )
        for _ in range(n)
    ]


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


def test_a_refused_model_changes_nothing_and_is_not_tried_again(store: ModelStore) -> None:
    store.file(Reference("tiny", 2)).write_bytes(b"damaged")
    with serving(store, auto_activate=True) as models:
        (message,) = settle(models)
        assert isinstance(message, ModelRefused)
        assert message.candidate == "tiny@2"
        assert "it was damaged or changed after publishing" in message.reason
        assert message.model == models.reference == store.pointer().active == "tiny@1"
        assert models.status().refusal is not None
        for now in range(0, 100, 10):
            assert settle(models, now) == []
        assert models.status().refusals == 1


def test_a_new_version_that_is_a_link_is_refused_once(store: ModelStore) -> None:
    with serving(store, auto_activate=True) as models:
        settle(models)
        publish(store.root.parent / "other", 3, seed=3)
        (store.root.parent / "other" / "tiny" / "3").rename(store.root / "tiny" / "elsewhere")
        (store.root / "tiny" / "3").symlink_to(store.root / "tiny" / "elsewhere")
        (message,) = settle(models, now=10)
        assert isinstance(message, ModelRefused)
        assert (message.candidate, message.model) == ("tiny@3", "tiny@2")
        assert "a version is no link, copy it here" in message.reason
        for now in range(20, 100, 10):
            assert settle(models, now) == []
    with serving(store, auto_activate=True) as models:  # and the next start
        assert models.reference == "tiny@2"
        assert [type(message) for message in settle(models)] == [ModelRefused]


def test_a_model_folder_that_is_taken_away_ends_nothing(store: ModelStore) -> None:
    with serving(store, auto_activate=True) as models:
        settle(models)
        (store.root / "tiny").rename(store.root / "away")
        assert settle(models, now=10) == []
        assert models.reference == "tiny@2"
        (store.root / "away").rename(store.root / "tiny")
        publish(store.root, 3, seed=3)
        settle(models, now=20)
        assert models.reference == "tiny@3"


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


def test_a_new_version_is_ignored_unless_auto_activate(store: ModelStore) -> None:
    with serving(store) as models:
        publish(store.root, 3, seed=3)
        assert settle(models, 100.0) == []
    with serving(store, auto_activate=True) as models:
        assert isinstance(settle(models, 0.0)[0], ModelChanged)
        assert models.reference == "tiny@3"
        models.rollback()
        settle(models)
        assert settle(models, 10 * LOOK_INTERVAL_S) == []
        assert models.reference == "tiny@1"
        publish(store.root, 4, seed=4)
        settle(models, 20 * LOOK_INTERVAL_S)
        assert models.reference == "tiny@4"


def test_a_version_that_is_still_being_copied_is_not_yet_tried(store: ModelStore) -> None:
    source = publish(store.root.parent / "elsewhere", 4, seed=4)
    with serving(store, auto_activate=True) as models:
        settle(models)
        publish(store.root, 3, seed=3)
        (store.root / "tiny" / "4").mkdir()
        (store.root / "tiny" / "4" / "SHA256SUMS").touch()
        for name in ("model.onnx", "card.md", "SHA256SUMS", "golden.npz"):
            assert models.reference != "tiny@4"
            shutil.copy(source / name, store.root / "tiny" / "4")
            settle(models, now=10 * len(list((store.root / "tiny" / "4").iterdir())))
        assert (models.reference, models.status().previous) == ("tiny@4", "tiny@3")
        assert models.status().refusals == 0


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
        monkeypatch.setattr(
            models.active._session, "run", lambda inputs: np.full((len(inputs["features"]), 6), np.nan)
        )
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
        monkeypatch.setattr(
            models.active._session, "run", lambda inputs: np.full((len(inputs["features"]), 6), np.nan)
        )
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
        patch.setattr(failed._session, "run", lambda inputs: np.full((len(inputs["features"]), 6), np.nan))
        with pytest.raises(ModelError):
            failed.score(heard[6:])
    standby.continue_from(failed)
    for one, other in zip(standby.score(heard[6:]), untouched.score(heard[6:]), strict=True):
        np.testing.assert_array_equal(one.probabilities, other.probabilities)


def test_without_a_model_before_a_failure_is_fatal(
    store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(store) as models:
        monkeypatch.setattr(
            models.active._session, "run", lambda inputs: np.full((len(inputs["features"]), 6), np.nan)
        )
        with pytest.raises(ModelError, match="scores are not finite"):
            models.score(windows(1))


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


def begin(models: Models, stream: str, call: str) -> str:
    return models.begin(StreamStart(stream, call, "customer", "rtp:5004", 0.0))


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
        monkeypatch.setattr(
            canary.model._session, "run", lambda inputs: np.full((len(inputs["features"]), 6), np.nan)
        )
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
