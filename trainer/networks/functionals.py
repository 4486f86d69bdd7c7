"""Opinions on functionals: what a small training set supports, and what is hard to overfit."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from serstream.emotion.features import FeatureSpec
from trainer.networks.layers import StandardisedFunctionals

HIDDEN = 64
"""Units of the two-layer perceptron."""


class FunctionalsOpinions(StandardisedFunctionals):
    """A linear and a two-layer perceptron, each for itself.

    ``functionals`` (batch, n_functionals), the trust in the baseline behind them if there is one, to
    (batch, 2, n_labels). Both have weights for a window without a speaker baseline and weights for one with
    it, and mix them by the trust: a high voice says something, a voice higher than usual something else.
    """

    def __init__(self, spec: FeatureSpec, n_labels: int):
        super().__init__(spec)
        self.trust = spec.baseline is not None and spec.baseline.trust_row
        inputs = self.size * (1 + self.trust)
        self.linear = nn.Sequential(nn.Dropout(0.1), nn.Linear(inputs, n_labels))
        self.layers = nn.Sequential(
            nn.Dropout(0.5),
            nn.Linear(inputs, HIDDEN),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(HIDDEN, n_labels),
        )

    def forward(self, functionals: Tensor) -> Tensor:
        with torch.autocast(functionals.device.type, enabled=False):  # a thousand summands need the precision
            values = self.standardised(functionals)
            if self.trust:
                trust = functionals[:, -1:]
                values = torch.cat([(1 - trust) * values, trust * values], dim=1)
            return torch.stack([self.linear(values), self.layers(values)], dim=1)
