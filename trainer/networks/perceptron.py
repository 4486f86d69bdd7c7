"""Opinions on functionals: what a small training set supports, and what is hard to overfit."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from serstream.emotion.features import FeatureSpec
from trainer.networks.functionals import Functionals
from trainer.networks.layers import Ensemble, LogMel


class FunctionalsOpinions(nn.Module):
    """A linear and a two-layer perceptron, each for itself: (batch, 2, n_labels).

    Both have weights for a window without a speaker baseline and weights for one with it, and mix them by how
    far the baseline is trusted: a loud voice says something, a voice louder than usual something else.
    """

    def __init__(self, spec: FeatureSpec, n_labels: int, hidden: int = 64):
        super().__init__()
        self.functionals = Functionals(spec)
        self.trust = spec.n_inputs - spec.n_coeffs
        size = self.functionals.size
        self.normalise = nn.BatchNorm1d(size, affine=False)
        inputs = size * (1 + self.trust)
        self.linear = nn.Sequential(nn.Dropout(0.1), nn.Linear(inputs, n_labels))
        self.layers = nn.Sequential(
            nn.Dropout(0.5),
            nn.Linear(inputs, hidden),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(hidden, n_labels),
        )

    def summary(self, features: Tensor, log_mel: Tensor) -> Tensor:
        """Functionals, and the trust behind them if there is a baseline: (batch, size + 1)."""
        with torch.autocast(features.device.type, enabled=False):  # sums over frames need the precision
            return torch.cat([self.functionals(features, log_mel), *self._trust(features)], dim=1)

    def forward(self, summary: Tensor) -> Tensor:
        with torch.autocast(summary.device.type, enabled=False):
            values = self.normalise(summary[:, : self.functionals.size]).clamp(-5, 5)
            if self.trust:
                trust = summary[:, -1:]
                values = torch.cat([(1 - trust) * values, trust * values], dim=1)
            return torch.stack([self.linear(values), self.layers(values)], dim=1)

    def _trust(self, features: Tensor) -> list[Tensor]:
        return [features[:, -1, :1]] if self.trust else []


class Perceptron(Ensemble):
    """Functionals only: for a few hundred clips of a few speakers, where a CNN learns the speakers."""

    def __init__(self, spec: FeatureSpec, n_labels: int):
        super().__init__()
        self.front = LogMel(spec)
        self.functionals = FunctionalsOpinions(spec, n_labels)

    def summary(self, features: Tensor) -> Tensor:
        return self.functionals.summary(features, self.front.log_mel(features))

    def opinions(self, summary: Tensor) -> Tensor:
        says: Tensor = self.functionals(summary)
        return says
