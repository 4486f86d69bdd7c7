from pathlib import Path

import numpy as np
import pytest
from published_model import publish as publish_tiny
from published_model import reseal
from tiny_model import LABELS, write_model

pytest.importorskip("torch", reason="needs the trainer extra")

from serstream.emotion.inspection import inspect
from serstream.emotion.model import EmotionModel
from serstream.emotion.store import ModelStore, Reference
from serstream.errors import ModelError
from trainer.corpora import Clip
from trainer.publish import golden_windows, judge, publish, seal

CLIPS = sorted((Path(__file__).parents[1] / "fixtures" / "emo-db").glob("*.flac"))

pytestmark = pytest.mark.trainer


def predicted(model: EmotionModel, path: Path) -> str:
    """What the model says about a clip when asked which of its own labels fits best."""
    for label in LABELS:
        if judge(model, None, [clip(path, label)]).uar == 1.0:
            return label
    raise AssertionError(path)


def clip(path: Path, emotion: str) -> Clip:
    return Clip(path, "emo-db", path.stem[:2], "unknown", emotion, "de")


@pytest.fixture
def draft(tmp_path: Path) -> Path:
    return write_model(tmp_path / "draft.onnx", version=2, seed=2)


@pytest.fixture
def held_out(draft: Path) -> list[Clip]:
    """Labelled as the draft would have it: it is always right."""
    model = EmotionModel(draft)
    return [clip(path, predicted(model, path)) for path in CLIPS]


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "models")


def test_a_draft_that_passes_is_published_with_golden_clips_and_not_activated(
    draft: Path, held_out: list[Clip], store: ModelStore
) -> None:
    publish_tiny(store.root, 1, seed=1)
    store.activate(Reference("tiny", 1))
    folder, judgement = publish(draft, "# tiny", held_out, store, floor=0.9)
    assert inspect(folder).reference == "tiny@2"
    assert judgement.uar == 1.0
    assert judgement.active == "tiny@1"
    assert (judgement.speakers, judgement.clips) == (5, 5)
    assert store.pointer().active == "tiny@1"
    assert (folder / "card.md").read_text() == "# tiny"


def test_a_draft_below_the_floor_is_refused(draft: Path, held_out: list[Clip], store: ModelStore) -> None:
    wrong = [clip(c.path, next(label for label in LABELS if label != c.emotion)) for c in held_out]
    with pytest.raises(ModelError, match=r"UAR 0\.0% on 5 held-out speakers, wanted 50\.0%"):
        publish(draft, "", wrong, store, floor=0.5)
    assert store.references() == []


def test_a_draft_worse_than_the_active_model_is_refused(
    tmp_path: Path, draft: Path, held_out: list[Clip], store: ModelStore
) -> None:
    """What was the draft is active, and another model is compared with it on its own labels."""
    publish_tiny(store.root, 2, seed=2)
    store.activate(Reference("tiny", 2))
    other = write_model(tmp_path / "other.onnx", version=3, seed=5)
    assert judge(EmotionModel(other), None, held_out).uar < 0.5
    with pytest.raises(ModelError, match=r"significantly worse than tiny@2 on the same 5 speakers: UAR -"):
        publish(other, "", held_out, store, floor=0.0)
    assert store.references() == [Reference("tiny", 2)]


def test_a_model_is_not_worse_than_itself(draft: Path, held_out: list[Clip]) -> None:
    model = EmotionModel(draft)
    assert judge(model, model, held_out).difference == (0.0, 0.0)


def test_models_are_compared_over_the_labels_both_have(
    tmp_path: Path, draft: Path, held_out: list[Clip]
) -> None:
    two = EmotionModel(write_model(tmp_path / "two.onnx", labels=("angry", "zen")))
    clips = [clip(CLIPS[0], "angry"), clip(CLIPS[1], "zen"), clip(CLIPS[2], "sad")]
    assert judge(EmotionModel(draft), two, clips).clips == 1
    with pytest.raises(ModelError, match="no held-out clip has one of the labels angry"):
        judge(EmotionModel(draft), two, clips[1:])


def test_a_broken_draft_is_refused_before_it_is_measured(tmp_path: Path, store: ModelStore) -> None:
    (tmp_path / "draft.onnx").write_text("no model")
    with pytest.raises(ModelError, match="not ONNX"):
        publish(tmp_path / "draft.onnx", "", [], store, floor=0.0)


def test_golden_windows_are_speech_and_always_the_same() -> None:
    windows = golden_windows(32_000)
    assert windows.shape == (8, 32_000)
    assert np.array_equal(windows, golden_windows(32_000))
    assert (np.sqrt(np.square(windows.astype(float)).mean(axis=1)) > 300).all()


def test_a_sealed_folder_is_a_version(tmp_path: Path) -> None:
    folder = tmp_path / "tiny" / "4"
    folder.mkdir(parents=True)
    write_model(folder / "model.onnx", version=4)
    (folder / "card.md").write_text("# tiny")
    seal(folder)
    assert inspect(folder).reference == "tiny@4"


def test_a_published_folder_holds_what_its_sums_say(
    draft: Path, held_out: list[Clip], store: ModelStore
) -> None:
    folder, _ = publish(draft, "", held_out, store, floor=0.0)
    sums = (folder / "SHA256SUMS").read_text()
    reseal(folder)
    assert sorted(sums.splitlines()) == sorted((folder / "SHA256SUMS").read_text().splitlines())
