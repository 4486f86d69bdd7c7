from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the trainer extra")

from torch import nn

from trainer.export import TOLERANCE, export
from trainer.networks.studies import STUDIES, StudyNetwork, b, keras_parameters
from trainer.networks.studies.layers import convolution_1d, max_pool_1d

pytestmark = pytest.mark.trainer

SHAPES = {
    "a1": (80,),
    "a2": (20, 40),
    "a3": (20, 40),
    "b1_deep": (162,),
    "b1_mlp": (171,),
    "b1_lstm": (171,),
    "b1_bilstm": (171,),
    "c1": (162,),
    "c3": (162,),
    "d1": (20, 40),
    "d2": (20, 40),
    "e1": (80,),
    "e2": (32, 40),
}
"""Smaller than the studies' where size is time only."""


def fresh(name: str, seed: int = 0) -> StudyNetwork:
    torch.manual_seed(seed)
    return STUDIES[name](SHAPES[name], 6)


def examples(name: str, n: int) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 1, (n, *SHAPES[name])).astype(np.float32)


@pytest.mark.parametrize(
    ("network", "published"),
    [
        (STUDIES["e1"]((800,), 6), 587_526),
        (STUDIES["e2"]((128, 400), 6), 1_620_102),
        (STUDIES["b1_deep"]((162,), 6), 665_850),
        (b.perceptron(b.N_DEEP + b.N_BESIDE, 6), 700),
    ],
    ids=["E1", "E2", "B1 deep features", "B1 perceptron"],
)
def test_networks_have_as_many_parameters_as_published(network: nn.Module, published: int) -> None:
    assert keras_parameters(network) == published


def test_every_network_is_tried_here() -> None:
    assert SHAPES.keys() == STUDIES.keys()


@pytest.mark.parametrize("kernel", [3, 5])
def test_one_dimensional_layers_compute_what_torch_does_in_one_dimension(kernel: int) -> None:
    ours, torchs = convolution_1d(4, 6, kernel), nn.Conv1d(4, 6, kernel, padding="same")
    torchs.load_state_dict({"weight": ours.weight[:, :, 0], "bias": ours.bias})
    maps = torch.randn(2, 4, 1, 21, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ours(maps)[:, :, 0], torchs(maps[:, :, 0]))
    for size in (2, 5):
        pooled = nn.functional.max_pool1d(maps[:, :, 0], size, 2, padding=(size - 1) // 2)
        torch.testing.assert_close(max_pool_1d(size)(maps)[:, :, 0], pooled)


@pytest.mark.parametrize("name", STUDIES)
def test_a_step_lowers_the_loss_and_the_same_seed_does_the_same(name: str) -> None:
    torch.set_num_threads(1)
    features, label = torch.from_numpy(examples(name, 12)), torch.arange(12) % 6
    weights = []
    for _ in range(2):
        network = fresh(name).train()
        losses = []
        optimiser = torch.optim.SGD(network.parameters(), lr=1e-2)
        for _ in range(2):
            torch.manual_seed(1)  # the same dropout for both losses
            logits = network(features)
            assert logits.shape == (12, 6)
            loss = nn.functional.cross_entropy(logits, label)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
        assert losses[1] < losses[0]
        weights.append(torch.cat([parameter.detach().ravel() for parameter in network.parameters()]))
    assert torch.equal(*weights)


@pytest.mark.parametrize("name", STUDIES)
def test_networks_compute_the_same_in_onnx_runtime(name: str, tmp_path: Path) -> None:
    rows = examples(name, 9)
    network = fresh(name)
    network.front.standardise(torch.from_numpy(3 * rows + 1))
    assert export(network, None, tmp_path / "model.onnx", {"features": 3 * rows + 1}) <= TOLERANCE


@pytest.mark.parametrize("name", STUDIES)
def test_features_are_standardised_first(name: str) -> None:
    rows = torch.from_numpy(5 * examples(name, 50) - 7)
    front = fresh(name).front
    front.standardise(rows)
    assert front(rows).mean().item() == pytest.approx(0, abs=1e-4)
    assert front(rows).std().item() == pytest.approx(1, abs=0.02)
