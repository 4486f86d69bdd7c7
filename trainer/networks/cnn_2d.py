"""CNN only: no memory beyond its receptive field, so it overfits the order of words less than an LSTM."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from serstream.emotion.features import FeatureSpec
from trainer.networks.layers import (
    AttentiveStatistics,
    Ensemble,
    LogMel,
    Residual,
    SpecAugment,
    convolution,
)
from trainer.networks.perceptron import FunctionalsOpinions


class Cnn2d(Ensemble):
    """``features`` (batch, n_inputs, n_frames) to ``logits`` (batch, n_labels).

    Beside the CNN's there are perceptrons' opinions on functionals, as in the CNN-LSTM. Nothing outside the
    fixed window is seen.
    """

    def __init__(self, spec: FeatureSpec, n_labels: int, *, width: int = 16):
        super().__init__()
        self.front = LogMel(spec)
        self.mask = SpecAugment()
        self.convolutions = nn.Sequential(
            convolution(1, width, kernel=(7, 5), stride=(4, 2)),
            convolution(width, 2 * width),
            nn.MaxPool2d((2, 2)),
            Residual(2 * width, 4 * width),
            nn.MaxPool2d((2, 1)),
            Residual(4 * width, 6 * width),
        )
        self.pool = AttentiveStatistics(6 * width)
        self.dropout = nn.Dropout(0.3)
        self.classify = nn.Linear(12 * width, n_labels)
        self.functionals = FunctionalsOpinions(spec, n_labels)

    def opinions(self, summary: Tensor) -> Tensor:
        maps = self.convolutions(self.mask(self.front(summary)))
        shapes = self.classify(self.dropout(self.pool(maps.mean(dim=2).transpose(1, 2))))
        says: Tensor = self.functionals(self.functionals.summary(summary, self.front.log_mel(summary)))
        return torch.cat([shapes.unsqueeze(1), says], dim=1)
