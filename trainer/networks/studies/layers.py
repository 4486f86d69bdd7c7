"""What the studies' networks share: their scaler, "same" pooling, and how their parameters are counted.

One-dimensional maps are (batch, channels, 1, length) and their layers two-dimensional ones of height 1: the
same mathematics from the same parameters, but only these can keep channels last, which makes convolution
and pooling nearly twice as fast on a CPU.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Standardise(nn.Module):
    """The studies' StandardScaler as the first layer, so that it travels with the weights.

    Args:
        shape: of mean and deviation; a 1 shares them along that axis of the features.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, *shape: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("deviation", torch.ones(shape))

    def standardise(self, features: Tensor) -> None:
        """Take mean and deviation from training features (n, ...)."""
        shared = [0, *(axis + 1 for axis, size in enumerate(self.mean.shape) if size == 1)]
        self.mean.copy_(features.mean(dim=shared).view_as(self.mean))
        self.deviation.copy_(features.std(dim=shared).clamp_min(1e-6).view_as(self.mean))

    def forward(self, features: Tensor) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):
            standardised: Tensor = (features - self.mean) / self.deviation
        return standardised


class StudyNetwork(nn.Module):
    """A network of a study: ``features`` (batch, *shape) to ``logits`` (batch, n_labels)."""

    def __init__(self, front: Standardise):
        super().__init__()
        self.front = front

    def standardise(self, features: Tensor) -> None:
        """Take mean and deviation from training features (n, *shape)."""
        self.front.standardise(features)


class Stack(StudyNetwork):
    """One layer after the other, on (batch, 1, rows, columns); a vector is one row."""

    def __init__(self, front: Standardise, layers: nn.Module):
        super().__init__(front)
        self.layers = layers

    def forward(self, features: Tensor) -> Tensor:
        rows = self.front(features)
        if rows.dim() == 2:
            rows = rows.unsqueeze(1)
        logits: Tensor = self.layers(rows.unsqueeze(1))
        return logits


def convolution_1d(n_in: int, n_out: int, kernel: int) -> nn.Conv2d:
    """Along the length of (batch, n_in, 1, length), with "same" padding."""
    return nn.Conv2d(n_in, n_out, (1, kernel), padding="same")


def max_pool_1d(kernel: int) -> nn.MaxPool2d:
    """Along the length, with stride 2; an odd kernel leaves half of it, rounded up."""
    return nn.MaxPool2d((1, kernel), (1, 2), padding=(0, (kernel - 1) // 2))


def pooled(size: int, times: int) -> int:
    """What ``times`` poolings of stride 2 with "same" padding leave of an axis."""
    for _ in range(times):
        size = -(-size // 2)
    return size


def keras_parameters(network: nn.Module) -> int:
    """Parameters as Keras's summary totals them, which the studies print.

    The moving mean and variance of batch normalisation are among them; the scaler's are not, since the
    studies kept it outside their networks.
    """
    moving = [
        statistic.numel()
        for name, statistic in network.named_buffers()
        if name.endswith(("running_mean", "running_var"))
    ]
    return sum(weight.numel() for weight in network.parameters()) + sum(moving)
