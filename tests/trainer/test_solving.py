from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from scipy.special import log_softmax

torch = pytest.importorskip("torch", reason="needs the trainer extra")

import trainer
from serstream.emotion.baseline import BaselineSpec
from serstream.emotion.features import FloatArray
from serstream.emotion.metadata import ModelMetadata
from serstream.errors import ConfigError
from trainer import recipe
from trainer.batches import Targets
from trainer.calls import as_heard
from trainer.dataset import WindowSet
from trainer.experiment import Workplace, train_all
from trainer.export import TOLERANCE, export
from trainer.history import Epoch
from trainer.networks import build
from trainer.networks.ridge import WEIGHT, WIDTH, Ridge
from trainer.recipe import Training
from trainer.solving import _Equations, _Part, solve
from trainer.trained import Trained, load, logits_of, save

pytestmark = pytest.mark.trainer


@pytest.fixture(scope="module")
def ridge(tiny_recipe: Path) -> recipe.Recipe:
    tiny = recipe.load(tiny_recipe)
    return msgspec.structs.replace(tiny, network="ridge", training=Training())


@pytest.fixture(scope="module")
def windows(ridge: recipe.Recipe, workplace: Workplace) -> WindowSet:
    return workplace.windows(ridge)


@pytest.fixture(scope="module")
def solved(ridge: recipe.Recipe, workplace: Workplace) -> Trained:
    return train_all(ridge, workplace, lambda *_: pytest.fail("nothing is learned in steps"))


def test_weights_are_solved_for_once_and_for_all(
    ridge: recipe.Recipe, windows: WindowSet, solved: Trained, workplace: Workplace, tmp_path: Path
) -> None:
    other = train_all(ridge, workplace, lambda *_: None)
    for mine, its in zip(solved.network.parameters(), other.network.parameters(), strict=True):
        assert torch.equal(mine, its)
    label = np.array([ridge.labels.index(clip.emotion) for clip in windows.clips])[windows.clip]
    for heard_s in (0.0, 5.0):
        assert np.mean(logits_of(solved, windows, heard_s).argmax(axis=1) == label) > 0.9
    assert not np.allclose(logits_of(solved, windows, 5.0), logits_of(solved, windows))
    save(ridge, solved, tmp_path / "weights.pt")
    back = load(ridge, tmp_path / "weights.pt")
    np.testing.assert_array_equal(logits_of(back, windows), logits_of(solved, windows))


def test_speakers_that_are_left_out_calibrate(
    ridge: recipe.Recipe, windows: WindowSet, solved: Trained
) -> None:
    own = Ridge(solved.spec, len(ridge.labels))
    assert solve(own, ridge, windows, solved.spec) > 0.9  # three pitches, four speakers: others tell each
    label = np.array([ridge.labels.index(clip.emotion) for clip in windows.clips])[windows.clip]
    chances = log_softmax(logits_of(solved, windows), axis=-1)
    assert -chances[np.arange(len(label)), label].mean() < np.log(3) / 2


def test_beside_a_convolution_it_is_the_same_ridge(
    ridge: recipe.Recipe, windows: WindowSet, solved: Trained, workplace: Workplace
) -> None:
    both = msgspec.structs.replace(ridge, network="cnn_lstm_ridge", training=Training(epochs=2))
    epochs: list[Epoch] = []
    trained = train_all(both, workplace, lambda _, epoch: epochs.append(epoch))
    assert [epoch.epoch for epoch in epochs] == [1, 2]
    assert trained.network.ridge is not None and solved.network.ridge is not None
    for mine, its in zip(trained.network.ridge.parameters(), solved.network.ridge.parameters(), strict=True):
        assert torch.equal(mine, its)
    inputs = {name: torch.from_numpy(part) for name, part in as_heard(windows, trained.spec, 5.0).items()}
    with torch.inference_mode():
        convolution = trained.network.opinions(**inputs)[:, 0]
        said = trained.network.ridge(inputs["functionals"])
        torch.testing.assert_close(trained.network(**inputs), convolution / 3 + said * 2 / 3)
    # Interrupted while it was solved for: the epochs are not repeated, the result is the same.
    again = train_all(both, workplace, lambda *_: pytest.fail("the checkpoint holds every epoch"))
    np.testing.assert_array_equal(logits_of(again, windows, 5.0), logits_of(trained, windows, 5.0))


def test_what_was_solved_for_runs_in_the_daemon(
    ridge: recipe.Recipe, windows: WindowSet, solved: Trained, tmp_path: Path
) -> None:
    metadata = ModelMetadata(
        name="tiny",
        version=1,
        labels=ridge.labels,
        feature_spec=solved.spec,
        temperature=1.0,
        licence="CC0-1.0",
    )
    examples = as_heard(windows.of_line(0), solved.spec, 5.0)
    assert export(solved.network, metadata, tmp_path / "model.onnx", examples) <= TOLERANCE


def test_equations_leave_out_groups_and_labels_that_a_corpus_lacks() -> None:
    """As solving for every label alone, over the rows that know it, would."""
    rng = np.random.default_rng(0)
    n, size = 60, 4
    values = rng.normal(size=(n, size)).astype(np.float32)
    known = np.repeat([[True, True, True], [True, True, False]], n // 2, axis=0)
    label = np.where(known[:, 2], rng.integers(3, size=n), rng.integers(2, size=n))
    group, weight = rng.integers(3, size=n), rng.uniform(0.5, 1.5, n).astype(np.float32)
    targets = Targets(label, known, np.ones(n))

    def with_constant(rows: FloatArray) -> FloatArray:
        return np.column_stack([rows, np.ones(len(rows), np.float32)])

    part = _Part(targets, np.arange(n, dtype=np.int32), group, weight, np.ones(n, np.bool_))
    solved = _Equations([values], with_constant, part).solve(0.1, without=1)
    x = with_constant(values)
    for k in range(3):
        rows = (group != 1) & known[:, k]
        left = (x[rows].T * weight[rows]) @ x[rows] + np.diag([0.1 * n] * size + [0])
        right = (x[rows].T * weight[rows]) @ (label[rows] == k)
        np.testing.assert_allclose(solved[:, k], np.linalg.solve(left, right), rtol=1e-4, atol=1e-6)


def test_cosines_are_a_gaussian_kernel_of_the_components(ridge: recipe.Recipe, windows: WindowSet) -> None:
    network = Ridge(ridge.features, len(ridge.labels))
    functionals = torch.from_numpy(windows.functionals)
    network.fit(functionals, seed=0)
    values = network.values(functionals)[:, network.size :]
    components = network.standardised(functionals) @ network.components
    variance = WIDTH * torch.cov(components.T).trace()
    gaussian = WEIGHT * torch.exp(-(torch.cdist(components, components) ** 2) / (2 * variance))
    errors = values @ values.T - gaussian
    assert errors.abs().max() < 0.2 * WEIGHT  # of the mean of 1,500 cosines: six standard deviations
    assert gaussian.min() < 0.5 * WEIGHT


@pytest.mark.parametrize("name", ["emo-db", "ravdess"])
def test_the_protocols_networks_have_at_most_a_million_numbers(name: str) -> None:
    committed = recipe.load(Path(trainer.__file__).parent / "recipes" / f"{name}.toml")
    spec = msgspec.structs.replace(
        committed.features, baseline=BaselineSpec(mean=(0.0,) * committed.features.n_functionals)
    )
    network = build(committed.network, spec, len(committed.labels))
    assert sum(part.numel() for part in network.state_dict().values()) <= 1_000_000


def test_one_speaker_cannot_calibrate(ridge: recipe.Recipe, windows: WindowSet, solved: Trained) -> None:
    alone = windows.of_clips([i for i, clip in enumerate(windows.clips) if clip.speaker == "tiny/s0"])
    with pytest.raises(ConfigError, match="one speaker, tiny/s0; wanted two or more to calibrate by"):
        solve(Ridge(solved.spec, len(ridge.labels)), ridge, alone, solved.spec)


def test_keys_of_the_loop_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text(
        """
name = "x"
network = "ridge"
corpora = ["tiny"]
labels = ["angry", "sad"]
[features]
n_fft = 1024
win_length = 1024
[features.pitch]
[features.functionals]
[training]
batch = 8
"""
    )
    with pytest.raises(ConfigError, match=r"training\.batch is 8, wanted no such key: network ridge"):
        recipe.load(path)
