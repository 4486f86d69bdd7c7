from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
import soundfile
from published_model import publish as publish_tiny
from published_model import reseal
from tiny_model import LABELS, SPEC, write_model

torch = pytest.importorskip("torch", reason="needs the trainer extra")

from serstream.emotion.golden import FILE_NAME, GoldenClips
from serstream.emotion.inspection import inspect
from serstream.emotion.metadata import ModelMetadata
from serstream.emotion.model import EmotionModel
from serstream.emotion.store import ModelStore, Reference
from serstream.errors import ModelError
from serstream.shipped import models_dir
from trainer import export
from trainer.corpora import Clip
from trainer.export import TOLERANCE, golden_windows, write_draft
from trainer.networks import build
from trainer.publish import Comparison, compare, judge, learned, publish

CLIPS = sorted((Path(__file__).parents[1] / "fixtures" / "emo-db").glob("*.flac"))

pytestmark = pytest.mark.trainer


def predicted(model: EmotionModel, path: Path) -> str:
    """What the model says about a clip when asked which of its own labels fits best."""
    for label in LABELS:
        if judge(model, [clip(path, label)]).uar == 1.0:
            return label
    raise AssertionError(path)


def clip(path: Path, emotion: str) -> Clip:
    return Clip(path, "emo-db", path.stem[:2], "unknown", emotion, "de")


@pytest.fixture
def draft(tmp_path: Path) -> Path:
    return publish_tiny(tmp_path / "drafts", 2, seed=2)


@pytest.fixture
def held_out(draft: Path) -> list[Clip]:
    """Labelled as the draft would have it: it is always right."""
    model = EmotionModel(draft / "model.onnx")
    return [clip(path, predicted(model, path)) for path in CLIPS]


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "models")


def test_a_draft_that_passes_is_published_with_golden_clips_and_not_activated(
    draft: Path, held_out: list[Clip], store: ModelStore
) -> None:
    publish_tiny(store.root, 1, seed=1)
    store.activate(Reference("tiny", 1))
    folder, judgement, comparison = publish(draft, held_out, store, floor=0.9)
    assert inspect(folder).reference == "tiny@2"
    assert judgement.uar == 1.0
    assert isinstance(comparison, Comparison)
    assert (comparison.active, comparison.speakers) == ("tiny@1", 5)
    assert (judgement.speakers, judgement.clips) == (5, 5)
    assert store.pointer().active == "tiny@1"
    assert (folder / "card.md").read_text() == (draft / "card.md").read_text()


def test_words_of_the_label_map_are_judged_too(
    tmp_path: Path, draft: Path, held_out: list[Clip], store: ModelStore
) -> None:
    model = onnx.load(draft / "model.onnx")
    metadata = EmotionModel(draft / "model.onnx").metadata
    mapped = msgspec.structs.replace(metadata, label_map={f"{label}-ish": label for label in LABELS})
    onnx.helper.set_model_props(model, mapped.to_props())
    onnx.save(model, draft / "model.onnx")
    reseal(draft)
    others = [replace(c, emotion=f"{c.emotion}-ish") for c in held_out]
    _, judgement, _ = publish(draft, others, store, floor=0.9)
    assert (judgement.uar, judgement.clips) == (1.0, len(held_out))


def test_a_draft_below_the_floor_is_refused(draft: Path, held_out: list[Clip], store: ModelStore) -> None:
    wrong = [clip(c.path, next(label for label in LABELS if label != c.emotion)) for c in held_out]
    with pytest.raises(ModelError, match=r"UAR 0\.0% on 5 held-out speakers, wanted 50\.0%"):
        publish(draft, wrong, store, floor=0.5)
    assert store.references() == []


def test_a_draft_worse_than_the_active_model_is_refused(
    tmp_path: Path, draft: Path, held_out: list[Clip], store: ModelStore
) -> None:
    """What was the draft is active, and another model is compared with it on its own labels."""
    publish_tiny(store.root, 2, seed=2)
    store.activate(Reference("tiny", 2))
    other = publish_tiny(tmp_path / "drafts", 3, seed=5)
    assert judge(EmotionModel(other / "model.onnx"), held_out).uar < 0.5
    with pytest.raises(ModelError, match=r"significantly worse than tiny@2 on the same 5 speakers: UAR -"):
        publish(other, held_out, store, floor=0.0)
    assert store.references() == [Reference("tiny", 2)]
    four = [replace(c, speaker="x") if c in held_out[:2] else c for c in held_out]
    _, _, comparison = publish(other, four, store, floor=0.0)
    assert isinstance(comparison, Comparison)
    assert comparison.difference[1] < 0 and comparison.speakers == 4, "worse, but nobody can tell"


def test_a_model_is_not_worse_than_itself(draft: Path, held_out: list[Clip]) -> None:
    model = EmotionModel(draft / "model.onnx")
    assert compare(model, model, held_out) == Comparison("tiny@2", (0.0, 0.0), 5)


def test_models_are_not_compared_by_speakers_who_share_no_label(draft: Path) -> None:
    model = EmotionModel(draft / "model.onnx")
    clips = [clip(path, label) for path, label in zip(CLIPS[:5], LABELS[:5], strict=True)]
    assert len({c.speaker for c in clips}) == 5
    assert str(compare(model, model, clips)).startswith("too few of the 5 speakers have every label")


def test_models_are_compared_over_the_labels_both_have(
    tmp_path: Path, draft: Path, held_out: list[Clip], caplog: pytest.LogCaptureFixture
) -> None:
    """With one label alone a model cannot be wrong."""
    model = EmotionModel(draft / "model.onnx")
    two = EmotionModel(write_model(tmp_path / "two.onnx", labels=("angry", "sad", "zen")))
    clips = [
        clip(path, label) for path, label in zip(CLIPS[:4], ("angry", "zen", "sad", "happy"), strict=True)
    ]
    assert judge(model, clips).clips == 3, "the draft's own labels"
    (said,) = caplog.messages
    assert said.startswith("model tiny@2 is not judged on ")
    assert said.endswith("no held-out clip has this emotion; of other emotions they have 1 zen")
    comparison = compare(model, two, clips)
    assert isinstance(comparison, Comparison)
    assert comparison.speakers == 2
    one = EmotionModel(write_model(tmp_path / "one.onnx", labels=("angry", "zen")))
    assert str(compare(model, one, clips)).startswith("it shares angry with ")
    with pytest.raises(ModelError, match="no held-out clip has one of the labels angry"):
        judge(model, clips[1:2])


@pytest.mark.parametrize(
    ("name", "known"),
    [("banglaser", True), ("BanglaSER", True), ("emo-db", True), ("emo", False), ("data", False)],
)
def test_what_a_model_learned_is_known_by_name(name: str, known: bool) -> None:
    shipped = EmotionModel(models_dir() / "cnn-lstm/11/model.onnx")
    assert (name.casefold() in learned(shipped)) is known


def test_a_model_is_not_compared_on_what_the_active_one_learned(draft: Path, held_out: list[Clip]) -> None:
    shipped = EmotionModel(models_dir() / "cnn-lstm/11/model.onnx")
    said = compare(EmotionModel(draft / "model.onnx"), shipped, held_out)
    assert said == "cnn-lstm@11 was trained on emo-db"


def test_a_broken_draft_is_refused_before_it_is_measured(draft: Path, store: ModelStore) -> None:
    (draft / "model.onnx").write_text("no model")
    reseal(draft)
    with pytest.raises(ModelError, match="not ONNX"):
        publish(draft, [], store, floor=0.0)


def test_a_draft_that_computes_other_than_torch_did_is_refused(
    draft: Path, held_out: list[Clip], store: ModelStore
) -> None:
    """By more than rounding, but less than the daemon would notice on another device."""
    golden = GoldenClips.read(draft / FILE_NAME)
    shifted = GoldenClips(golden.samples, golden.probabilities + np.float32(5e-4))
    (draft / FILE_NAME).write_bytes(shifted.to_bytes())
    reseal(draft)
    assert inspect(draft).reference == "tiny@2"
    with pytest.raises(ModelError, match=r"golden clip \d scores .*, recorded were"):
        publish(draft, held_out, store, floor=0.0)


def test_golden_windows_are_speech_and_always_the_same() -> None:
    windows = golden_windows(32_000)
    assert windows.shape == (8, 32_000)
    assert np.array_equal(windows, golden_windows(32_000))
    assert (np.sqrt(np.square(windows.astype(float)).mean(axis=1)) > 300).all()


def test_golden_windows_are_in_16_bits_what_the_daemon_makes_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = np.full(160_000, 100.6 / 32_768, np.float32)
    sound[::1000] = 1.0
    soundfile.write(path := tmp_path / "call.wav", sound, 16_000, "FLOAT")
    monkeypatch.setattr(export, "SAMPLE_CALL", path)
    assert set(np.unique(golden_windows(32_000))) == {101, 32_767}


def test_a_draft_carries_what_torch_said(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = build("cnn_2d", SPEC, len(LABELS)).eval()
    metadata = ModelMetadata(
        name="tiny", version=4, labels=LABELS, feature_spec=SPEC, temperature=2.0, licence="CC0-1.0"
    )
    rows = np.random.default_rng(0).normal(0, 5, (9, SPEC.n_coeffs, SPEC.n_frames)).astype(np.float32)
    folder = tmp_path / "tiny/4"
    write_draft(network, metadata, folder, {"features": rows}, "# tiny")
    assert inspect(folder).reference == "tiny@4"
    GoldenClips.read(folder / FILE_NAME).check(EmotionModel(folder / "model.onnx"), TOLERANCE)
    assert sorted(path.name for path in folder.iterdir()) == [
        "SHA256SUMS",
        "card.md",
        "golden.npz",
        "model.onnx",
    ]


def test_a_published_folder_holds_what_its_sums_say(
    draft: Path, held_out: list[Clip], store: ModelStore
) -> None:
    folder, *_ = publish(draft, held_out, store, floor=0.0)
    sums = (folder / "SHA256SUMS").read_text()
    reseal(folder)
    assert sorted(sums.splitlines()) == sorted((folder / "SHA256SUMS").read_text().splitlines())
