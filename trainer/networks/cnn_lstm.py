"""CNN-LSTM: convolutions see local shapes, an LSTM their order, attention picks what counts."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from serstream.emotion.features import FeatureSpec
from trainer.networks.layers import (
    AttentiveStatistics,
    Ensemble,
    LogMel,
    SpecAugment,
    convolution,
)
from trainer.networks.perceptron import FunctionalsOpinions


class CnnLstm(Ensemble):
    """``features`` (batch, n_inputs, n_frames) to ``logits`` (batch, n_labels).

    Opinions of a CNN-LSTM on what happens when, and of perceptrons on functionals of the whole window. The
    LSTM runs in both directions over the fixed window; nothing outside the window is seen.
    """

    def __init__(self, spec: FeatureSpec, n_labels: int, *, width: int = 16, hidden: int = 64):
        super().__init__()
        self.front = LogMel(spec)
        self.mask = SpecAugment()
        self.convolutions = nn.Sequential(
            convolution(1, width, kernel=(7, 5), stride=(4, 2)),
            convolution(width, 2 * width),
            nn.MaxPool2d((2, 2)),
            convolution(2 * width, 3 * width),
            nn.MaxPool2d((2, 1)),
            convolution(3 * width, 4 * width),
        )
        rows = -(-spec.n_mels // 4) // 4
        self.project = nn.Linear(4 * width * rows, 2 * hidden)
        self.lstm = nn.LSTM(2 * hidden, hidden, batch_first=True, bidirectional=True)
        self.pool = AttentiveStatistics(2 * hidden)
        self.dropout = nn.Dropout(0.3)
        self.classify = nn.Linear(4 * hidden, n_labels)
        self.functionals = FunctionalsOpinions(spec, n_labels)

    def opinions(self, summary: Tensor) -> Tensor:
        maps = self.convolutions(self.mask(self.front(summary)))
        frames = self.dropout(torch.relu(self.project(maps.permute(0, 3, 1, 2).flatten(2))))
        ordered, _ = self.lstm(frames)
        sequence = self.classify(self.dropout(self.pool(frames + ordered)))
        says: Tensor = self.functionals(self.functionals.summary(summary, self.front.log_mel(summary)))
        return torch.cat([sequence.unsqueeze(1), says], dim=1)
