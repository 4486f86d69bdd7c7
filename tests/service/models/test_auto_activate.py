"""Whoever copies a new version in has activated it."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from published_model import publish
from served_models import full_disk, serving, settle

from serstream.emotion.store import ModelStore, Reference
from serstream.feed.messages import ModelChanged, ModelRefused
from serstream.service.new_versions import LOOK_INTERVAL_S


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


def test_what_a_person_decided_about_is_no_news(store: ModelStore) -> None:
    with serving(store, auto_activate=True) as models:
        settle(models)
        publish(store.root, 3, seed=3)
        models.activate("tiny@3")
        settle(models)
        models.rollback()
        settle(models)
        assert settle(models, 10 * LOOK_INTERVAL_S) == []
        assert models.reference == "tiny@2"
        publish(store.root, 4, seed=4)
        models.set_shadow("tiny@4")
        for now in range(60, 100, 10):
            settle(models, now)
        assert (models.reference, models.status().swaps) == ("tiny@2", 3)
        models.set_shadow("")
    with serving(store, auto_activate=True) as models:
        settle(models, 0.0)
        settle(models, 10 * LOOK_INTERVAL_S)
        assert models.reference == "tiny@2", "the next start knows it, too"


def test_a_canary_that_ended_the_daemon_is_no_news_to_the_next_one(store: ModelStore) -> None:
    store.activate(Reference("tiny", 2))
    publish(store.root, 3, seed=3)
    with serving(store, auto_activate=True) as models:
        models.set_canary("tiny@3")
    with serving(store, auto_activate=True) as models:
        for now in (0.0, 10 * LOOK_INTERVAL_S):
            assert settle(models, now) == []
        assert models.reference == "tiny@2"


def test_what_cannot_be_written_down_is_tried_all_the_same(
    store: ModelStore, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(store, auto_activate=True) as models, full_disk():
        settle(models, 0.0)
        settle(models, 10 * LOOK_INTERVAL_S)
        assert models.status().refusals == 1
    assert "the next start with auto_activate may try tiny@2" in caplog.text


def test_versions_of_another_model_have_numbers_of_their_own(store: ModelStore) -> None:
    with serving(store, auto_activate=True) as models:
        settle(models)
        publish(store.root, 1, name="small", seed=5)
        models.activate("small@1")
        settle(models)
        publish(store.root, 2, name="small", seed=6)
        settle(models, 10 * LOOK_INTERVAL_S)
        assert models.reference == "small@2"


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
        assert settle(models) == []


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


def no_sums(folder: Path) -> None:
    (folder / "SHA256SUMS").unlink()


def no_model(folder: Path) -> None:
    (folder / "model.onnx").unlink()


def pipe(folder: Path) -> None:
    (folder / "SHA256SUMS").unlink()
    os.mkfifo(folder / "SHA256SUMS")


@pytest.mark.parametrize(
    ("damage", "lacking"),
    [
        (no_sums, "SHA256SUMS: no such file"),
        (no_model, "SHA256SUMS lists model.onnx, which is not there"),
        (pipe, "SHA256SUMS: no regular file"),
    ],
)
def test_a_version_that_nobody_finishes_is_told_once_and_holds_up_no_other(
    store: ModelStore, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None], lacking: str
) -> None:
    def told() -> list[str]:
        return [record.message for record in caplog.records if "before it is complete" in record.message]

    with serving(store, auto_activate=True) as models:
        settle(models)
        damage(publish(store.root, 4, seed=4))
        settle(models, now=10)
        assert not told(), "it may still be copied"
        publish(store.root, 3, seed=3)
        for now in range(20, 200, 10):
            settle(models, now)
        assert (models.reference, models.status().refusals) == ("tiny@3", 0)
        (message,) = told()
        assert message.startswith("model tiny@4 is not tried before it is complete: ")
        assert lacking in message
