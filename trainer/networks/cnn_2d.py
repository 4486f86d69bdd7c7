"""CNN only: no memory beyond its receptive field, so it overfits the order of words less than an LSTM."""

from __future__ import annotations

from torch import Tensor, nn

from trainer.networks.layers import AttentiveStatistics, Residual, convolution

WIDTH = 16
"""Channels of the first convolution."""


class Cnn2d(nn.Module):
    """Log-mel bands (batch, 1, n_mels, n_frames) to logits (batch, n_labels)."""

    def __init__(self, n_mels: int, n_labels: int):
        super().__init__()
        self.convolutions = nn.Sequential(
            convolution(1, WIDTH, kernel=(7, 5), stride=(4, 2)),
            convolution(WIDTH, 2 * WIDTH),
            nn.MaxPool2d((2, 2)),
            Residual(2 * WIDTH, 4 * WIDTH),
            nn.MaxPool2d((2, 1)),
            Residual(4 * WIDTH, 6 * WIDTH),
        )
        self.pool = AttentiveStatistics(6 * WIDTH)
        self.dropout = nn.Dropout(0.3)
        self.classify = nn.Linear(12 * WIDTH, n_labels)

    def forward(self, bands: Tensor) -> Tensor:
        maps = self.convolutions(bands)
        logits: Tensor = self.classify(self.dropout(self.pool(maps.mean(dim=2).transpose(1, 2))))
        return logits
