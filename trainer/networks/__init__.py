"""Networks by the name a recipe gives them."""

from __future__ import annotations

from dataclasses import dataclass

from serstream.emotion.features import FeatureSpec
from trainer.networks.cnn_2d import Cnn2d
from trainer.networks.cnn_lstm import CnnLstm
from trainer.networks.ensemble import Ensemble
from trainer.networks.functionals import FunctionalsOpinions
from trainer.networks.ridge import Ridge

__all__ = ["NETWORKS", "Ensemble", "Ridge", "build"]


@dataclass(frozen=True, slots=True)
class Opinions:
    """Whose opinions a network is made of."""

    convolution: type[CnnLstm] | type[Cnn2d] | None = None
    perceptrons: bool = False
    """On functionals, where the features have any."""
    ridge: bool = False
    """On functionals, which the features must have."""


NETWORKS = {
    "cnn_lstm": Opinions(CnnLstm, perceptrons=True),
    "cnn_2d": Opinions(Cnn2d, perceptrons=True),
    "cnn_lstm_ridge": Opinions(CnnLstm, ridge=True),
    "ridge": Opinions(ridge=True),
}


def build(name: str, spec: FeatureSpec, n_labels: int) -> Ensemble:
    """A network with fresh weights: to be learned in steps, a ridge to be solved for."""
    opinions = NETWORKS[name]
    kind = opinions.convolution
    perceptrons = opinions.perceptrons and spec.functionals is not None
    return Ensemble(
        spec,
        convolution=None if kind is None else kind(spec.n_mels, n_labels),
        perceptrons=FunctionalsOpinions(spec, n_labels) if perceptrons else None,
        ridge=Ridge(spec, n_labels) if opinions.ridge else None,
    )
