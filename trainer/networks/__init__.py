"""Networks by the name a recipe gives them."""

from __future__ import annotations

from typing import TypeAlias

from serstream.emotion.features import FeatureSpec
from trainer.networks.cnn_2d import Cnn2d
from trainer.networks.cnn_lstm import CnnLstm
from trainer.networks.ensemble import Ensemble
from trainer.networks.ridge import Ridge

__all__ = ["NETWORKS", "Ensemble", "Network", "Ridge", "build"]

Network: TypeAlias = Ensemble | Ridge
"""What a recipe makes: learned in steps, or solved for."""

NETWORKS: dict[str, type[CnnLstm] | type[Cnn2d] | None] = {
    "cnn_lstm": CnnLstm,
    "cnn_2d": Cnn2d,
    "perceptron": None,
}
"""What has an opinion beside the perceptrons on functionals."""


def build(name: str, spec: FeatureSpec, n_labels: int) -> Ensemble:
    """A network with fresh weights, to be learned in steps."""
    kind = NETWORKS[name]
    return Ensemble(spec, n_labels, None if kind is None else kind(spec.n_mels, n_labels))
