"""A linear map of functionals, whose weights are solved for instead of learned in steps."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from serstream.emotion.features import FeatureSpec


class Linear(nn.Module):
    """The inputs of `serstream.emotion.inputs` to ``logits`` (batch, n_labels).

    One map for a window without a speaker baseline, another for one with it, mixed by the trust relative to
    its limit. ``features`` are not looked at.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, spec: FeatureSpec, n_labels: int):
        super().__init__()
        self.size = spec.n_functionals
        self.trust_limit = spec.baseline.trust_limit if spec.baseline else 0.0
        self.register_buffer("mean", torch.zeros(self.size))
        self.register_buffer("deviation", torch.ones(self.size))
        self.cold = nn.Linear(self.size, n_labels)
        self.warm = nn.Linear(self.size, n_labels) if spec.baseline else None

    def standardise(self, functionals: Tensor) -> None:
        """Take mean and deviation from training functionals (n_windows, n_functionals)."""
        self.mean.copy_(functionals.mean(dim=0))
        self.deviation.copy_(functionals.std(dim=0).clamp_min(1e-4))

    def values(self, functionals: Tensor) -> Tensor:
        """What the maps are applied to: standardised and bounded, shape (batch, n_functionals)."""
        return ((functionals[:, : self.size] - self.mean) / self.deviation).clamp(-5, 5)

    def forward(self, features: Tensor, functionals: Tensor) -> Tensor:
        values = self.values(functionals)
        says: Tensor = self.cold(values)
        if self.warm is None:
            return says
        trust = functionals[:, -1:] / self.trust_limit
        return torch.lerp(says, self.warm(values), trust)
