from __future__ import annotations

from dataclasses import astuple, replace
from pathlib import Path
from typing import get_args, get_type_hints

import msgspec
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the trainer extra")

from serstream.emotion.baseline import Baselines, BaselineSpec
from serstream.emotion.features import FeatureSpec
from serstream.emotion.functionals import FunctionalsSpec
from serstream.emotion.inputs import shapes
from serstream.emotion.metadata import ModelMetadata
from serstream.emotion.model import EmotionModel
from serstream.emotion.pitch import PitchSpec
from serstream.errors import ConfigError
from trainer import history, recipe
from trainer.calls import BaselineTraining, Calls, as_heard, average_speaker, heard_at_most
from trainer.dataset import WindowSet
from trainer.experiment import Workplace
from trainer.export import TOLERANCE, export
from trainer.history import Epoch
from trainer.networks import NETWORKS, build
from trainer.trained import load, logits_of, save
from trainer.training import train

pytestmark = pytest.mark.trainer

TINY = {
    "n_mels": 32,
    "n_mfcc": 32,
    "n_fft": 1024,
    "win_length": 1024,
    "hop_length": 320,
    "pitch": PitchSpec(),
    "functionals": FunctionalsSpec(),
}
"""Features of the tiny recipe."""


def test_features_are_cached_and_come_back_the_same(
    tiny: recipe.Recipe, workplace: Workplace, windows: WindowSet
) -> None:
    shards = sorted((workplace.runs / "cache").iterdir())
    written = [shard.stat().st_mtime_ns for shard in shards]
    again = workplace.windows(tiny)
    np.testing.assert_array_equal(again.features, windows.features)
    assert [shard.stat().st_mtime_ns for shard in shards] == written


@pytest.mark.parametrize("kept", [0, 3, 2000])
def test_features_that_cannot_be_read_are_computed_anew(
    kept: int, tiny: recipe.Recipe, workplace: Workplace, windows: WindowSet, caplog: pytest.LogCaptureFixture
) -> None:
    broken = min((workplace.runs / "cache").iterdir())
    broken.write_bytes(broken.read_bytes()[:kept])
    again = workplace.windows(tiny)
    np.testing.assert_array_equal(again.features, windows.features)
    assert [line.partition(": ")[0] for line in caplog.messages if "computed anew" in line] == [str(broken)]


def test_clips_without_a_label_are_counted(
    tiny: recipe.Recipe, workplace: Workplace, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    workplace.windows(tiny)
    workplace.windows(msgspec.structs.replace(tiny, labels=("angry", "sad")))
    (said,) = [line for line in caplog.messages if "left out" in line]
    assert said == "clips left out, not among the labels of recipe tiny: 12 neutral"


@pytest.mark.parametrize("network", NETWORKS)
def test_networks_are_small_and_exported_as_they_are(network: str, tmp_path: Path) -> None:
    features = FeatureSpec(
        n_mels=64,
        n_mfcc=64,
        n_fft=1024,
        win_length=1024,
        hop_length=256,
        pitch=PitchSpec(),
        functionals=FunctionalsSpec(),
    )
    average = BaselineSpec(mean=(0.0,) * features.n_functionals, trust_row=True)
    spec = msgspec.structs.replace(features, baseline=average)
    torch.manual_seed(0)
    built = build(network, spec, 6).eval()
    assert sum(weights.numel() for weights in built.parameters()) < 1_000_000
    metadata = ModelMetadata(
        name="tiny", version=1, labels=tuple("abcdef"), feature_spec=spec, temperature=2.0, licence="CC0-1.0"
    )
    rng = np.random.default_rng(0)
    examples = {
        name: rng.normal(0, 1, (11, *shape)).astype(np.float32) for name, shape in shapes(spec).items()
    }
    path = tmp_path / "model.onnx"
    assert export(built, metadata, path, examples) <= TOLERANCE
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    assert path.stat().st_size < 5_000_000
    assert EmotionModel(path).metadata == metadata


def test_an_interrupted_training_ends_at_the_same_weights(
    tiny: recipe.Recipe, windows: WindowSet, tmp_path: Path
) -> None:
    torch.set_num_threads(1)
    whole = train(tiny, windows, None, tmp_path / "whole.pt", lambda epoch: None)

    def interrupt(epoch: Epoch) -> None:
        if epoch.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tiny, windows, None, tmp_path / "cut.pt", interrupt)
    resumed = train(tiny, windows, None, tmp_path / "cut.pt", lambda epoch: None)
    assert [epoch.loss for epoch in resumed.history] == [epoch.loss for epoch in whole.history]
    for mine, other in zip(resumed.network.parameters(), whole.network.parameters(), strict=True):
        assert torch.equal(mine, other)
    log = history.read(tmp_path / "cut.csv")
    assert [epoch.epoch for epoch in log] == [1, 2, 3]
    np.testing.assert_equal([astuple(epoch) for epoch in log], [astuple(epoch) for epoch in resumed.history])
    assert all(epoch.seconds > 0 and 0 < epoch.loading < 1 for epoch in log)
    assert log[-1].learning_rate < log[0].learning_rate
    assert all(0 < epoch.train_uar <= 1 for epoch in log)
    save(tiny, resumed, tmp_path / "weights.pt")
    back = load(tiny, tmp_path / "weights.pt")
    np.testing.assert_allclose(logits_of(back, windows), logits_of(resumed, windows), atol=1e-5)


def test_a_log_without_the_uar_of_the_training_is_read(tmp_path: Path) -> None:
    (tmp_path / "old.csv").write_text(
        "epoch,loss,valid_uar,learning_rate,seconds,loading\n1,1.5,nan,0.001,3.0,0.1\n"
    )
    (epoch,) = history.read(tmp_path / "old.csv")
    assert (epoch.loss, epoch.loading) == (1.5, 0.1) and np.isnan(epoch.train_uar)


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.99])
def test_a_checkpoint_that_cannot_be_read_is_not_gone_on_with(
    share: float, tiny: recipe.Recipe, windows: WindowSet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, epochs = tmp_path / "c.pt", list[int]()
    for _ in range(2):
        train(tiny, windows, None, path, lambda epoch: epochs.append(epoch.epoch))
        path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert epochs == [1, 2, 3] * 2
    assert f"{path}: cannot read it: " in caplog.text


def test_a_checkpoint_of_other_recordings_is_not_gone_on_with(
    tiny: recipe.Recipe, windows: WindowSet, tmp_path: Path
) -> None:
    epochs: list[int] = []
    for data in (windows, windows, replace(windows, source="other"), windows.of_clips(range(9))):
        train(tiny, data, None, tmp_path / "c.pt", lambda epoch: epochs.append(epoch.epoch))
    assert epochs == [1, 2, 3] * 3, "only the second call finds a training of its own"


def test_a_loss_that_is_not_a_number_ends_the_training(
    tiny: recipe.Recipe, windows: WindowSet, tmp_path: Path
) -> None:
    broken = windows.features.copy()
    broken[0] = np.nan
    with pytest.raises(ConfigError, match="the loss of epoch 1 is nan, wanted a finite one; lower training"):
        train(tiny, replace(windows, features=broken), None, tmp_path / "c.pt", lambda epoch: None)
    assert not (tmp_path / "c.pt").exists()


def test_five_steps_are_a_training_too(tiny: recipe.Recipe, windows: WindowSet, tmp_path: Path) -> None:
    """OneCycleLR rises over a fifth of the steps, and divides by one less than these."""
    settings = msgspec.structs.replace(tiny.training, epochs=5, batch=72)
    short = msgspec.structs.replace(tiny, training=settings)
    rates = [e.learning_rate for e in train(short, windows, None, tmp_path / "c.pt", lambda _: None).history]
    assert len(rates) == 5
    assert 0 < rates[-1] < max(rates) <= settings.learning_rate


def test_training_stops_when_the_validation_speakers_gain_no_more(
    tiny: recipe.Recipe, windows: WindowSet, tmp_path: Path
) -> None:
    """Also when it is given again."""
    settings = msgspec.structs.replace(tiny.training, epochs=30, patience=2, choose_epoch=True)
    patient = msgspec.structs.replace(tiny, training=settings)
    ways = (
        [i for i, clip in enumerate(windows.clips) if (clip.speaker == "tiny/s0") is own]
        for own in (True, False)
    )
    valid, rest = (windows.of_clips(way) for way in ways)
    histories = [
        train(patient, rest, valid.of_line(0), tmp_path / "patient.pt", lambda epoch: None).history
        for _ in range(2)
    ]
    reached = [epoch.valid_uar for epoch in histories[0]]
    assert len(reached) == reached.index(max(reached)) + 3 < 30
    assert histories[1] == histories[0]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_a_network_trained_on_cuda_works_on_the_cpu(
    tiny: recipe.Recipe, windows: WindowSet, tmp_path: Path
) -> None:
    trained = train(tiny, windows, None, tmp_path / "cuda.pt", lambda epoch: None, torch.device("cuda"))
    save(tiny, trained, tmp_path / "weights.pt")
    back = load(tiny, tmp_path / "weights.pt")
    np.testing.assert_allclose(logits_of(back, windows), logits_of(trained, windows), atol=1e-2)


@pytest.mark.parametrize("deviation", [True, False])
def test_training_hears_calls_as_the_daemon_does(windows: WindowSet, deviation: bool) -> None:
    """Functionals are normalised by the same code, after the same windows."""
    features = FeatureSpec(**TINY)
    baseline = average_speaker(windows, features, BaselineTraining(deviation=deviation))
    spec = msgspec.structs.replace(features, baseline=baseline)
    calls = Calls(windows, spec)
    nothing = calls.after(0.0, seed=0)
    np.testing.assert_allclose(nothing["functionals"][:, :-1], windows.functionals, atol=1e-4)
    assert not nothing["functionals"][:, -1].any()
    for name, values in as_heard(windows, spec, 0).items():
        np.testing.assert_array_equal(nothing[name], values)
    # One window after all others of its speaker and line: feed those to the daemon's code first.
    row = 0
    speaker = windows.clips[windows.clip[row]].speaker
    before = [
        i
        for i in range(len(windows.clip))
        if windows.clips[windows.clip[i]].speaker == speaker
        and windows.line[i] == windows.line[row]
        and windows.clip[i] != windows.clip[row]
    ]
    order = [*before, row]
    values = windows.functionals[order][:, :, None]
    normalised, _ = Baselines(baseline).normalise(["x"] * len(order), values, windows.levels[order])
    heard = calls.after(1e9, seed=0)
    np.testing.assert_allclose(heard["functionals"][row], normalised[-1, :, 0], rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(heard["features"][row], windows.features[row].astype(np.float32))


def test_speakers_who_said_little_are_heard_less(windows: WindowSet) -> None:
    clean = windows.of_line(0)
    assert heard_at_most(clean, 5.0) == pytest.approx(np.full(len(clean.clip), 5.0))
    row = 0
    speaker = clean.clips[clean.clip[row]].speaker
    own = np.array([clean.clips[i].speaker == speaker for i in clean.clip])
    others = clean.seconds[own & (clean.clip != clean.clip[row])]
    assert heard_at_most(clean, 60.0)[row] == pytest.approx(others.sum())


def test_without_functionals_the_rows_are_normalised(windows: WindowSet) -> None:
    features = FeatureSpec(**{**TINY, "functionals": None})
    baseline = average_speaker(windows, features, BaselineTraining())
    spec = msgspec.structs.replace(features, baseline=baseline)
    heard = as_heard(windows, spec, 1e9)
    assert list(heard) == ["features"]
    assert not np.allclose(heard["features"], as_heard(windows, spec, 0)["features"], atol=0.1)


def test_recipes_name_every_network() -> None:
    assert set(get_args(get_type_hints(recipe.Recipe)["network"])) == set(NETWORKS)


@pytest.mark.parametrize("network", ["cnn_lstm", "cnn_2d"])
def test_a_convolution_takes_the_fewest_bands_that_a_recipe_may_have(network: str, tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    text = f'name = "x"\nnetwork = "{network}"\ncorpora = ["tiny"]\nlabels = ["angry", "sad"]\n[features]\n'
    path.write_text(text + f"n_mels = {recipe.MIN_BANDS}\nn_mfcc = 8\n")
    spec = recipe.load(path).features
    features = torch.zeros(2, spec.n_coeffs, spec.n_frames)
    assert build(network, spec, 2).eval()(features).shape == (2, 2)
    path.write_text(text + f"n_mels = {recipe.MIN_BANDS - 1}\nn_mfcc = 8\n")
    with pytest.raises(ConfigError, match=r"features\.n_mels is 12, wanted 13 or more"):
        recipe.load(path)


def test_a_recipe_hears_what_the_daemon_hears(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    text = 'name = "x"\nnetwork = "cnn_2d"\ncorpora = ["tiny"]\nlabels = ["angry", "sad"]\n[features]\n'
    path.write_text(text + "sample_rate = 8000\nf_max = 4000.0\n")
    with pytest.raises(ConfigError, match=r"features\.sample_rate is 8000, wanted 16000"):
        recipe.load(path)


def test_a_ridge_wants_functionals(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text('name = "x"\nnetwork = "ridge"\ncorpora = ["tiny"]\nlabels = ["angry", "sad"]\n')
    with pytest.raises(ConfigError, match="network ridge hears functionals, wanted"):
        recipe.load(path)
