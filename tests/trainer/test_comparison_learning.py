"""How the comparison trains: interrupted, stopped early, for more epochs, at every point of a grid."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the trainer extra")

from trainer.comparison import system
from trainer.comparison.cells import Cell, Plan
from trainer.comparison.examples import Examples, gather
from trainer.comparison.learning import Epoch, NetworkLearner
from trainer.comparison.splits import split
from trainer.corpora import Clip
from trainer.device import CPU

pytestmark = pytest.mark.trainer

D1 = system.load("d1")


@pytest.fixture(scope="module")
def examples(clips: list[Clip], tmp_path_factory: pytest.TempPathFactory) -> Examples:
    """What D1 hears of the clips."""
    return gather(D1, clips, (), 0, tmp_path_factory.mktemp("features"))


def test_an_interrupted_training_ends_the_same(clips: list[Clip], examples: Examples, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    label = np.array([["angry", "neutral", "sad"].index(clip.emotion) for clip in clips])
    parts = split("random", 0, clips, examples, 0.25, 0.1)

    def trained(checkpoint: str, stop_after: int) -> tuple[list[Epoch], torch.Tensor]:
        torch.manual_seed(0)
        network = D1.build(examples.features.shape[1:], 3)

        def stop(number: int, epoch: Epoch) -> None:
            if number == stop_after:
                raise KeyboardInterrupt

        learner = NetworkLearner(network, D1.training, 3, seed=0)
        history = learner.fit(examples.features, label, parts, tmp_path / checkpoint, stop)
        return history, torch.cat([weight.detach().ravel() for weight in network.parameters()])

    whole, weights = trained("whole.pt", 0)
    with pytest.raises(KeyboardInterrupt):
        trained("cut.pt", 1)
    resumed, same = trained("cut.pt", 0)
    assert resumed == whole
    assert torch.equal(same, weights)


def test_early_stopping_keeps_the_best_epoch(clips: list[Clip], examples: Examples, tmp_path: Path) -> None:
    settings = system.Learning(epochs=50, batch=8, learning_rate=10.0, early_stopping=2)
    label = np.arange(len(clips)) % 3
    parts = split("random", 0, clips, examples, 0.25, 0.2)
    network = D1.build(examples.features.shape[1:], 3)
    learner = NetworkLearner(network, settings, 50, seed=0)
    history = learner.fit(examples.features, label, parts, tmp_path / "x.pt", lambda *_: None)
    losses = [epoch.valid_loss for epoch in history]
    assert losses.index(min(losses)) == len(losses) - 3
    best = torch.load(tmp_path / "x.pt", weights_only=True)["parts"]["best"]
    for name, value in network.state_dict().items():
        assert torch.equal(value, best[name])


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.99])
def test_a_damaged_checkpoint_is_not_gone_on_with(
    share: float, clips: list[Clip], examples: Examples, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, told = tmp_path / "x.pt", list[int]()
    label, parts = np.arange(len(clips)) % 3, split("random", 0, clips, examples, 0.25, 0.1)
    for _ in range(2):
        learner = NetworkLearner(D1.build(examples.features.shape[1:], 3), D1.training, 1, seed=0)
        learner.fit(examples.features, label, parts, path, lambda number, _: told.append(number))
        path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert told == [1, 1]
    assert f"{path}: cannot read it: " in caplog.text


def d1_cell(clips: list[Clip], folder: Path, epochs: int = 1, **changes: object) -> Cell:
    recipe = msgspec.structs.replace(D1, short=system.Short(heard=epochs * len(clips)), **changes)
    return Cell("d1", recipe, "tiny", clips, "random", Plan(full=False, seed=0), folder)


def epochs_of(cell: Cell, stop_at: int = 0) -> list[int]:
    """Run it; numbers of the epochs that were trained."""
    told: list[int] = []

    def tell(title: str, number: int, epoch: Epoch) -> None:
        told.append(number)
        if len(told) == stop_at:
            raise KeyboardInterrupt

    torch.set_num_threads(1)
    cell.run(CPU, tell)
    return told


def test_more_epochs_go_on_from_fewer_and_the_same_seed_gives_the_same(
    clips: list[Clip], tmp_path: Path
) -> None:
    few, more = (d1_cell(clips, tmp_path / "a", epochs) for epochs in (1, 3))
    assert epochs_of(few) == [1]
    assert epochs_of(more) == [2, 3]
    assert epochs_of(more) == epochs_of(few) == []
    again = d1_cell(clips, tmp_path / "b", 3)
    assert epochs_of(again) == [1, 2, 3]
    assert again.results() == more.results()
    anew = d1_cell(clips, tmp_path / "b", 1)  # never from more to fewer
    assert epochs_of(anew) == [1]
    assert anew.results() == few.results()


def test_a_grid_search_is_decided_by_validation_and_goes_on_where_it_stopped(
    clips: list[Clip], tmp_path: Path
) -> None:
    grid = {"learning_rate": (1e-6, 3e-3, 1e-7)}
    whole = d1_cell(clips, tmp_path / "whole", grid=grid)
    assert epochs_of(whole) == [1, 1, 1]
    (result,) = whole.results()
    alone = []
    for point in whole.system.points():
        cell = d1_cell(clips, tmp_path / f"{point.learning_rate}", training=point)
        epochs_of(cell)
        alone += cell.results()
    assert [one.training for one in alone] == whole.system.points()
    assert result == min(alone, key=lambda one: one.history[-1].valid_loss)
    assert result == alone[1]
    cut = d1_cell(clips, tmp_path / "cut", grid=grid)
    with pytest.raises(KeyboardInterrupt):
        epochs_of(cut, stop_at=2)
    assert epochs_of(cut) == [1]
    assert cut.results() == [result]


def test_a_grid_of_unknown_keys_or_values_is_refused() -> None:
    for grid, said in (({"batches": (8,)}, "unknown field `batches`"), ({"batch": (0,)}, "`int` >= 1")):
        with pytest.raises(msgspec.ValidationError, match=said):
            msgspec.structs.replace(D1, grid=grid).points()
