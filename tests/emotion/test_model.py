from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from onnx import helper
from tiny_model import LABELS, SPEC, write_model

from serstream.config import ModelSettings
from serstream.emotion.baseline import BaselineSpec
from serstream.emotion.features import FeatureSpec
from serstream.emotion.functionals import FunctionalsSpec
from serstream.emotion.loading import load_model
from serstream.emotion.metadata import ModelMetadata
from serstream.emotion.model import EmotionModel
from serstream.emotion.pitch import PitchSpec
from serstream.errors import ModelError
from serstream.types import Quality, SpeechWindow


def window(samples: np.ndarray[tuple[int], np.dtype[np.float32]]) -> SpeechWindow:
    return SpeechWindow("s", samples, 0, len(samples), 0, False, Quality(0, 0, -26, 1))


def noise(n: int, seed: int = 0) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return np.random.default_rng(seed).normal(0, 0.1, n).astype(np.float32)


def good_props() -> dict[str, str]:
    return ModelMetadata(
        name="tiny", version=1, labels=LABELS, feature_spec=SPEC, temperature=1.0, licence="CC0-1.0"
    ).to_props()


def test_scores_are_probabilities_over_the_labels(tiny_model: Path) -> None:
    model = EmotionModel(tiny_model)
    (scores,) = model.score([window(noise(32_000))])
    assert scores.labels == LABELS
    assert scores.model == "tiny@1"
    assert scores.probabilities.shape == (6,)
    assert scores.probabilities.sum() == pytest.approx(1)


def test_a_score_does_not_depend_on_its_batch(tiny_model: Path) -> None:
    model = EmotionModel(tiny_model)
    windows = [window(noise(n, seed)) for seed, n in enumerate([32_000] * 40 + [12_000, 20_000])]
    together = model.score(windows)
    alone = [model.score([w])[0] for w in windows]
    for a, b in zip(together, alone, strict=True):
        assert np.allclose(a.probabilities, b.probabilities, atol=1e-5)


def test_no_windows_no_scores(tiny_model: Path) -> None:
    assert EmotionModel(tiny_model).score([]) == []


def test_a_hotter_model_is_less_sure(tmp_path: Path) -> None:
    hot = good_props() | {"temperature": "4.0"}
    sure = EmotionModel(write_model(tmp_path / "sure.onnx")).score([window(noise(32_000))])[0]
    unsure = EmotionModel(write_model(tmp_path / "hot.onnx", props=hot)).score([window(noise(32_000))])[0]
    assert sure.probabilities.argmax() == unsure.probabilities.argmax()
    assert sure.probabilities.max() > unsure.probabilities.max()


@pytest.mark.parametrize(
    ("props", "message"),
    [
        ({}, "no metadata entry name, version, labels, feature_spec, temperature, licence"),
        (good_props() | {"labels": "angry"}, "metadata entry labels is 'angry', wanted JSON"),
        (good_props() | {"labels": '"angry"'}, "Expected `array`, got `str` - at `$.labels`"),
        (
            good_props() | {"labels": '["angry", "sad"]'},
            "its 2 labels (angry, sad) want 'logits', tensor(float) of shape (batch, 2)",
        ),
        (good_props() | {"temperature": "0"}, "Expected `float` > 0.0 - at `$.temperature`"),
        (good_props() | {"feature_spec": '{"n_mfc": 40}'}, "unknown field `n_mfc`"),
        (
            good_props() | {"feature_spec": '{"n_mfcc": 13}'},
            "wants 'features', tensor(float) of shape (batch, 13, 197)",
        ),
        (good_props() | {"feature_spec": '{"f_max": 9000}'}, "f_min < f_max <= sample_rate / 2"),
        (good_props() | {"feature_spec": '{"sample_rate": 8000, "f_max": 4000}'}, "wants 8000 Hz"),
    ],
)
def test_a_model_that_contradicts_itself_is_refused(
    tmp_path: Path, props: dict[str, str], message: str
) -> None:
    path = write_model(tmp_path / "model.onnx", props=props)
    with pytest.raises(ModelError) as error:
        EmotionModel(path)
    assert str(path) in str(error.value)
    assert message in str(error.value)


def test_labels_and_output_size_must_agree(tmp_path: Path) -> None:
    path = write_model(tmp_path / "model.onnx", n_outputs=7)
    with pytest.raises(
        ModelError, match=r"its 6 labels .* want 'logits', tensor\(float\) of shape \(batch, 6\)"
    ):
        EmotionModel(path)


def with_functionals() -> FeatureSpec:
    spec = FeatureSpec(win_length=1024, n_fft=1024, pitch=PitchSpec(), functionals=FunctionalsSpec())
    average = BaselineSpec(mean=(0.0,) * spec.n_functionals, prior=1.0, trust_row=True)
    return msgspec.structs.replace(spec, baseline=average)


def test_functionals_are_a_second_input_and_follow_the_speaker(tmp_path: Path) -> None:
    model = EmotionModel(write_model(tmp_path / "model.onnx", spec=with_functionals(), scale=0.02))
    first, again = model.score([window(noise(32_000)), window(noise(32_000))])
    assert not np.allclose(first.probabilities, again.probabilities, atol=1e-3)
    model.forget("s")
    (anew,) = model.score([window(noise(32_000))])
    np.testing.assert_allclose(anew.probabilities, first.probabilities, atol=1e-5)
    alone = model.score_samples(noise(32_000)[None])[0]
    np.testing.assert_allclose(alone, first.probabilities, atol=1e-5)


def test_functionals_of_another_recipe_are_refused(tmp_path: Path) -> None:
    spec = with_functionals()
    fewer = msgspec.structs.replace(spec, baseline=None)
    props = good_props() | {"feature_spec": fewer.to_json()}
    path = write_model(tmp_path / "model.onnx", spec=spec, props=props)
    with pytest.raises(ModelError) as error:
        EmotionModel(path)
    assert f"and 'functionals', tensor(float) of shape (batch, {spec.n_functionals})" in str(error.value)


def test_other_files_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file"):
        EmotionModel(tmp_path / "none.onnx")
    text = tmp_path / "text.onnx"
    text.write_text("not a model")
    with pytest.raises(ModelError, match=r"text\.onnx: ONNX Runtime cannot load it"):
        EmotionModel(text)


def test_metadata_of_a_newer_version_is_read(tmp_path: Path) -> None:
    path = write_model(tmp_path / "model.onnx", props=good_props() | {"of_the_future": "1"})
    assert EmotionModel(path).metadata.reference == "tiny@1"


def test_metadata_survives_the_file(tmp_path: Path) -> None:
    metadata = ModelMetadata(
        name="m",
        version=3,
        labels=("angry", "sad"),
        feature_spec=FeatureSpec(deltas=1),
        temperature=1.5,
        licence="CC-BY-4.0",
        training_data=("EMO-DB (CC0-1.0)",),
        metrics={"uar": 0.7},
    )
    model = helper.make_model(helper.make_graph([], "g", [], []))
    helper.set_model_props(model, metadata.to_props())
    onnx.save(model, tmp_path / "m.onnx")
    props = {entry.key: entry.value for entry in onnx.load(tmp_path / "m.onnx").metadata_props}
    assert ModelMetadata.from_props(props, "m.onnx") == metadata


def test_require_gpu_is_kept(tiny_model: Path) -> None:
    settings = ModelSettings(path=str(tiny_model), device="cpu", require_gpu=True)
    with pytest.raises(ModelError, match="runs on CPUExecutionProvider, but require_gpu wants CUDA"):
        load_model(settings)


def test_a_relative_path_starts_at_the_configuration(tiny_model: Path) -> None:
    settings = ModelSettings(path=tiny_model.name, device="cpu")
    assert load_model(settings, tiny_model.parent).path == tiny_model
