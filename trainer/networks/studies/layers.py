"""What the studies' networks share: their scaler, "same" pooling, and how their parameters are counted."""

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


class Stack(StudyNetwork):
    """One layer after the other, on (batch, 1, *shape)."""

    def __init__(self, front: Standardise, layers: nn.Module):
        super().__init__(front)
        self.layers = layers

    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = self.layers(self.front(features).unsqueeze(1))
        return logits


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
