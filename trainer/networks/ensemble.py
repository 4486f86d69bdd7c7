"""Opinions of several networks, each trained as if it were alone; their weighted mean is what is said."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from serstream.emotion.features import FeatureSpec
from trainer.networks.functionals import FunctionalsOpinions
from trainer.networks.layers import LogMel, SpecAugment

CONVOLUTION_COUNTS = 0.5
"""Weight of the convolutional opinion where there are others, which count 1 each: it knows the voices of its
corpora well, travels badly to others, and hears no speaker baseline."""


class Ensemble(nn.Module):
    """The inputs of `serstream.emotion.inputs` to ``logits`` (batch, n_labels).

    Nothing outside the fixed window is seen.

    Args:
        spec: the recipe; with functionals, perceptrons have opinions on them.
        n_labels: of the task.
        convolutional: has its opinion on the standardised log-mel bands (batch, 1, n_mels, n_frames); None
            leaves functionals alone, for a few hundred clips of which a CNN would learn the speakers.
    """

    shares: Tensor

    def __init__(self, spec: FeatureSpec, n_labels: int, convolutional: nn.Module | None):
        super().__init__()
        self.spec = spec
        self.front = LogMel(spec)
        self.mask = SpecAugment()
        self.convolutional = convolutional
        self.on_functionals = None if spec.functionals is None else FunctionalsOpinions(spec, n_labels)
        counts = [] if convolutional is None else [CONVOLUTION_COUNTS]
        counts += [] if spec.functionals is None else [1.0, 1.0]
        self.register_buffer("shares", torch.tensor(counts) / sum(counts), persistent=False)

    def standardise(self, features: Tensor, functionals: Tensor) -> None:
        """Take mean and deviation of every band and functional from the training windows.

        Args:
            features: shape (n_windows, n_coeffs, n_frames).
            functionals: shape (n_windows, n_functionals).
        """
        self.front.standardise(features)
        if self.on_functionals is not None:
            self.on_functionals.standardise(functionals)

    def opinions(self, features: Tensor, functionals: Tensor | None = None) -> Tensor:
        """Logits of every opinion, shape (batch, n_opinions, n_labels)."""
        says = []
        if self.convolutional is not None:
            says.append(self.convolutional(self.mask(self.front(features))).unsqueeze(1))
        if self.on_functionals is not None:
            says.append(self.on_functionals(functionals))
        return torch.cat(says, dim=1)

    def forward(self, features: Tensor, functionals: Tensor | None = None) -> Tensor:
        """Weighted mean of the opinions."""
        return (self.shares[:, None] * self.opinions(features, functionals)).sum(dim=1)
