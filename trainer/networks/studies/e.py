"""Study E: the same tower of four convolutions over frames (E1) and over a spectrogram (E2).

ReLU stands behind the pooling instead of before it: the same result from a quarter of the values.
"""

from __future__ import annotations

from torch import nn

from trainer.networks.studies.layers import Stack, Standardise, convolution_1d, max_pool_1d

WIDTHS = (64, 128, 256, 512)


class E1(Stack):
    """Features (batch, length) to logits (batch, n_labels); 587,526 parameters with 6 labels.

    One input channel: with zero crossings and energy as two it would be 192 more.
    """

    def __init__(self, shape: tuple[int], n_labels: int):
        blocks: list[nn.Module] = []
        for n_in, n_out in zip((1, *WIDTHS), WIDTHS, strict=False):
            convolution = convolution_1d(n_in, n_out, 3)
            blocks += [convolution, nn.BatchNorm2d(n_out), max_pool_1d(2), nn.ReLU()]
        super().__init__(
            Standardise(*shape), nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), *_classifier(n_labels))
        )


class E2(Stack):
    """Features (batch, n_mels, n_frames) to logits (batch, n_labels); 1,620,102 parameters with 6 labels."""

    def __init__(self, shape: tuple[int, int], n_labels: int):
        blocks: list[nn.Module] = []
        for n_in, n_out in zip((1, *WIDTHS), WIDTHS, strict=False):
            convolution = nn.Conv2d(n_in, n_out, 3, padding="same")
            blocks += [convolution, nn.BatchNorm2d(n_out), nn.MaxPool2d(2), nn.ReLU()]
        super().__init__(
            Standardise(shape[0], 1),
            nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), *_classifier(n_labels)),
        )


def _classifier(n_labels: int) -> list[nn.Module]:
    return [
        nn.Flatten(),
        nn.Linear(WIDTHS[-1], 128),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(128, n_labels),
    ]
