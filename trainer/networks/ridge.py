"""Linear maps of functionals and of random cosines of them, whose weights are solved for."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from serstream.emotion.features import FeatureSpec
from trainer.networks.layers import StandardisedFunctionals

COMPONENTS = 190
"""Principal components that the cosines hear: with more, and a convolution beside, a network would have over
a million numbers."""
COSINES = 1500
WIDTH = 1.0
"""Variance of the Gaussian kernel that the cosines approximate, relative to that of the components. Chosen as
`trainer.solving.PENALTY` was, and so was its weight."""
WEIGHT = 300.0
"""Of the Gaussian kernel; the linear one is of standardised functionals, about as large as they are many."""


class Ridge(StandardisedFunctionals):
    """``functionals`` (batch, n_functionals), the trust in the baseline behind them, to (batch, n_labels).

    Functionals and random cosines of them together are ridge regression with the sum of a linear and a
    Gaussian kernel (Rahimi and Recht 2007). One map is for a window without a speaker baseline, another for
    one with it, mixed by the trust relative to its limit.
    """

    components: Tensor
    frequencies: Tensor
    phases: Tensor

    def __init__(self, spec: FeatureSpec, n_labels: int):
        super().__init__(spec)
        self.trust_limit = spec.baseline.trust_limit if spec.baseline else 0.0
        self.n_components = min(COMPONENTS, self.size)
        self.register_buffer("components", torch.zeros(self.size, self.n_components))
        self.register_buffer("frequencies", torch.zeros(self.n_components, COSINES))
        self.register_buffer("phases", torch.zeros(COSINES))
        self.cold = nn.Linear(self.size + COSINES, n_labels)
        self.warm = nn.Linear(self.size + COSINES, n_labels) if spec.baseline else None
        for parameter in self.parameters():
            nn.init.zeros_(parameter)  # it has no opinion until it is solved for

    def fit(self, functionals: Tensor, seed: int) -> None:
        """Learn from training functionals (n_windows, n_functionals) how to standardise; draw the cosines."""
        self.standardise(functionals)
        variances, components = torch.linalg.eigh(torch.cov(self.standardised(functionals).T))
        variances, components = variances[-self.n_components :], components[:, -self.n_components :]
        self.components.copy_(components)
        generator = torch.Generator().manual_seed(seed)
        self.frequencies.normal_(generator=generator).div_((WIDTH * variances.sum()).sqrt())
        self.phases.uniform_(0, 2 * torch.pi, generator=generator)

    def values(self, functionals: Tensor) -> Tensor:
        """What the maps are applied to, shape (batch, n_functionals + COSINES)."""
        plain = self.standardised(functionals)
        cosines = torch.cos(plain @ self.components @ self.frequencies + self.phases)
        return torch.cat([plain, cosines * (2 * WEIGHT / COSINES) ** 0.5], dim=1)

    def forward(self, functionals: Tensor) -> Tensor:
        values = self.values(functionals)
        says: Tensor = self.cold(values)
        if self.warm is None:
            return says
        trust = functionals[:, -1:] / self.trust_limit
        return torch.lerp(says, self.warm(values), trust)
