"""Study C: 1-D networks on 162 acoustic values."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from trainer.networks.studies.layers import Stack, Standardise, convolution_1d, max_pool_1d, pooled


class C1(Stack):
    """Features (batch, length) to logits (batch, n_labels); C2 is the same with augmentation."""

    def __init__(self, shape: tuple[int], n_labels: int):
        super().__init__(
            Standardise(*shape), _stack(shape[0], (256, 256, 128, 64), n_labels, normalise=False, dropout=0.0)
        )


class C3(Stack):
    """Deeper, with batch normalisation and more dropout; the study gives no widths."""

    def __init__(self, shape: tuple[int], n_labels: int):
        super().__init__(
            Standardise(*shape),
            _stack(shape[0], (256, 256, 128, 128, 64), n_labels, normalise=True, dropout=0.2),
        )


def _stack(
    length: int, widths: Sequence[int], n_labels: int, *, normalise: bool, dropout: float
) -> nn.Sequential:
    layers: list[nn.Module] = []
    for n_in, n_out in zip((1, *widths), widths, strict=False):
        layers += [convolution_1d(n_in, n_out, 5), nn.ReLU()]
        layers += [nn.BatchNorm2d(n_out)] if normalise else []
        layers += [max_pool_1d(5)]
        layers += [nn.Dropout(dropout)] if dropout else []
    return nn.Sequential(
        *layers,
        nn.Flatten(),
        nn.Linear(widths[-1] * pooled(length, len(widths)), 32),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Linear(32, n_labels),
    )
