"""CNN only: no memory beyond its receptive field, so it overfits the order of words less than an LSTM."""

from __future__ import annotations

from torch import Tensor, nn

from serstream.emotion.features import FeatureSpec
from trainer.networks.layers import (
    AttentiveStatistics,
    FunctionalsClassifier,
    LogMel,
    Residual,
    SpecAugment,
    convolution,
)


class Cnn2d(nn.Module):
    """``features`` (batch, n_mfcc, n_frames) to ``logits`` (batch, n_labels).

    As in the CNN-LSTM, a perceptron's opinion on functionals is added. Nothing outside the fixed window is
    seen.
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
        self.functionals = FunctionalsClassifier(spec, n_labels)

    def forward(self, features: Tensor) -> Tensor:
        bands = self.front(features)
        maps = self.convolutions(self.mask(bands))
        opinion: Tensor = self.functionals(features, bands)
        logits: Tensor = opinion + self.classify(self.dropout(self.pool(maps.mean(dim=2).transpose(1, 2))))
        return logits
