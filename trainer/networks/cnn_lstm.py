"""CNN-LSTM: convolutions see local shapes, an LSTM their order, attention picks what counts."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainer.networks.layers import AttentiveStatistics, convolution

WIDTH = 16
"""Channels of the first convolution."""
HIDDEN = 64
"""Of the LSTM, in each direction."""


class CnnLstm(nn.Module):
    """Log-mel bands (batch, 1, n_mels, n_frames) to logits (batch, n_labels).

    The LSTM runs in both directions over the fixed window.
    """

    def __init__(self, n_mels: int, n_labels: int):
        super().__init__()
        self.convolutions = nn.Sequential(
            convolution(1, WIDTH, kernel=(7, 5), stride=(4, 2)),
            convolution(WIDTH, 2 * WIDTH),
            nn.MaxPool2d((2, 2)),
            convolution(2 * WIDTH, 3 * WIDTH),
            nn.MaxPool2d((2, 1)),
            convolution(3 * WIDTH, 4 * WIDTH),
        )
        rows = -(-n_mels // 4) // 4
        self.project = nn.Linear(4 * WIDTH * rows, 2 * HIDDEN)
        self.lstm = nn.LSTM(2 * HIDDEN, HIDDEN, batch_first=True, bidirectional=True)
        self.pool = AttentiveStatistics(2 * HIDDEN)
        self.dropout = nn.Dropout(0.3)
        self.classify = nn.Linear(4 * HIDDEN, n_labels)

    def forward(self, bands: Tensor) -> Tensor:
        maps = self.convolutions(bands)
        frames = self.dropout(torch.relu(self.project(maps.permute(0, 3, 1, 2).flatten(2))))
        ordered, _ = self.lstm(frames)
        logits: Tensor = self.classify(self.dropout(self.pool(frames + ordered)))
        return logits
