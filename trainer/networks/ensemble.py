"""Opinions of several networks, each trained as if it were alone; their weighted mean is what is said."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from serstream.emotion.features import FeatureSpec
from trainer.networks.functionals import FunctionalsOpinions
from trainer.networks.layers import LogMel, SpecAugment
from trainer.networks.ridge import Ridge

CONVOLUTION_COUNTS = 0.5
"""Weight of the convolutional opinion where there are others, which count 1 each: it knows the voices of its
corpora well, travels badly to others, and hears no speaker baseline. Beside a ridge training speakers left
out chose the same weight."""


class Ensemble(nn.Module):
    """The inputs of `serstream.emotion.inputs` to ``logits`` (batch, n_labels).

    Nothing outside the fixed window is seen.

    Args:
        spec: the recipe of the features.
        convolution: has its opinion on the standardised log-mel bands (batch, 1, n_mels, n_frames).
        perceptrons: have two opinions on functionals.
        ridge: has one on functionals too, which is solved for when the others have been learned.
    """

    shares: Tensor

    def __init__(
        self,
        spec: FeatureSpec,
        *,
        convolution: nn.Module | None,
        perceptrons: FunctionalsOpinions | None,
        ridge: Ridge | None,
    ):
        super().__init__()
        self.spec = spec
        self.front = LogMel(spec)
        self.mask = SpecAugment()
        self.convolution, self.perceptrons, self.ridge = convolution, perceptrons, ridge
        self.learned = convolution is not None or perceptrons is not None
        # The baseline is of functionals; of the rows, which a convolution hears, only where there are none.
        self.learned_with_baseline = perceptrons is not None or spec.functionals is None
        counts = [CONVOLUTION_COUNTS] * (convolution is not None)
        counts += [1.0, 1.0] * (perceptrons is not None) + [1.0] * (ridge is not None)
        self.register_buffer("shares", torch.tensor(counts) / sum(counts), persistent=False)

    def standardise(self, features: Tensor, functionals: Tensor) -> None:
        """Take mean and deviation of every band and functional from the training windows.

        Args:
            features: shape (n_windows, n_coeffs, n_frames).
            functionals: shape (n_windows, n_functionals).
        """
        self.front.standardise(features)
        if self.perceptrons is not None:
            self.perceptrons.standardise(functionals)

    def begin_with(self, other: Ensemble) -> None:
        """Take over what another's convolution has learned, but for its last layer: its labels are others."""
        own = self.state_dict()
        for name, weights in other.state_dict().items():
            if name.startswith("convolution.") and not name.startswith("convolution.classify."):
                own[name].copy_(weights)

    def opinions(self, features: Tensor, functionals: Tensor | None = None) -> Tensor:
        """Logits of every opinion that is learned in steps, shape (batch, n_opinions, n_labels)."""
        return torch.cat(self._learned(features, functionals), dim=1)

    def forward(self, features: Tensor, functionals: Tensor | None = None) -> Tensor:
        """Weighted mean of all opinions."""
        says = self._learned(features, functionals)
        if self.ridge is not None:
            says.append(self.ridge(functionals).unsqueeze(1))
        return (self.shares[:, None] * torch.cat(says, dim=1)).sum(dim=1)

    def _learned(self, features: Tensor, functionals: Tensor | None) -> list[Tensor]:
        says = []
        if self.convolution is not None:
            says.append(self.convolution(self.mask(self.front(features))).unsqueeze(1))
        if self.perceptrons is not None:
            says.append(self.perceptrons(functionals))
        return says
