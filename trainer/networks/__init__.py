"""Networks by the name a recipe gives them."""

from __future__ import annotations

from serstream.emotion.features import FeatureSpec
from trainer.networks.cnn_2d import Cnn2d
from trainer.networks.cnn_lstm import CnnLstm
from trainer.networks.perceptron import Perceptron

__all__ = ["NETWORKS", "Network", "build"]

Network = CnnLstm | Cnn2d | Perceptron

NETWORKS: dict[str, type[CnnLstm] | type[Cnn2d] | type[Perceptron]] = {
    "cnn_lstm": CnnLstm,
    "cnn_2d": Cnn2d,
    "perceptron": Perceptron,
}


def build(name: str, spec: FeatureSpec, n_labels: int) -> Network:
    """A network with fresh weights."""
    return NETWORKS[name](spec, n_labels)
