from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the trainer extra")

import trainer
from serstream.emotion.features import FloatArray
from serstream.emotion.metadata import ModelMetadata
from serstream.errors import ConfigError
from trainer import history, recipe
from trainer.calls import as_heard
from trainer.dataset import WindowSet
from trainer.experiment import Workplace
from trainer.export import TOLERANCE, export
from trainer.networks.ridge import WEIGHT, WIDTH, Ridge
from trainer.recipe import Training
from trainer.solving import _Equations, _Part, solve
from trainer.training import Targets, load, logits_of, save

pytestmark = pytest.mark.trainer


@pytest.fixture(scope="module")
def ridge(tiny_recipe: Path) -> recipe.Recipe:
    tiny = recipe.load(tiny_recipe)
    return msgspec.structs.replace(tiny, network="ridge", training=Training(epochs=2))


@pytest.fixture(scope="module")
def windows(ridge: recipe.Recipe, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> WindowSet:
    return Workplace(tiny_data, tiny_data, tmp_path_factory.mktemp("runs")).windows(ridge)


def test_weights_are_solved_for_once_and_for_all(
    ridge: recipe.Recipe, windows: WindowSet, tmp_path: Path
) -> None:
    told = []
    one, other = (solve(ridge, windows, tmp_path / "log.csv", told.append) for _ in range(2))
    for mine, its in zip(one.network.parameters(), other.network.parameters(), strict=True):
        assert torch.equal(mine, its)
    assert [epoch.epoch for epoch in history.read(tmp_path / "log.csv")] == [2]
    assert told[0].valid_uar > 0.9  # three pitches, four speakers: each left out is told by the others
    assert told[0].loss < np.log(3) / 2
    label = np.array([ridge.labels.index(clip.emotion) for clip in windows.clips])[windows.clip]
    for heard_s in (0.0, 5.0):
        assert np.mean(logits_of(one, windows, heard_s).argmax(axis=1) == label) > 0.9
    assert not np.allclose(logits_of(one, windows, 5.0), logits_of(one, windows))
    save(one, tmp_path / "weights.pt")
    back = load(ridge, tmp_path / "weights.pt")
    np.testing.assert_array_equal(logits_of(back, windows), logits_of(one, windows))


def test_what_was_solved_for_runs_in_the_daemon(
    ridge: recipe.Recipe, windows: WindowSet, tmp_path: Path
) -> None:
    solved = solve(ridge, windows, tmp_path / "log.csv", lambda epoch: None)
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
    network = Ridge(committed.features, len(committed.labels))
    numbers = sum(part.numel() for part in network.state_dict().values())
    assert numbers + sum(part.numel() for part in network.cold.parameters()) <= 1_000_000  # the other map


def test_one_speaker_cannot_calibrate(ridge: recipe.Recipe, windows: WindowSet, tmp_path: Path) -> None:
    alone = windows.of_clips([i for i, clip in enumerate(windows.clips) if clip.speaker == "s0"])
    with pytest.raises(ConfigError, match="one speaker, s0; wanted two or more to calibrate by"):
        solve(ridge, alone, tmp_path / "log.csv", lambda epoch: None)


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
