"""Study A: a 1-D network on flattened features, two 2-D networks on the MFCC matrix."""

from __future__ import annotations

from torch import nn

from trainer.networks.studies.layers import Stack, Standardise, convolution_1d, max_pool_1d, pooled


class A1(Stack):
    """Features (batch, length) to logits (batch, n_labels)."""

    def __init__(self, shape: tuple[int], n_labels: int):
        (length,) = shape
        super().__init__(
            Standardise(length),
            nn.Sequential(
                *_block_1d(1, 256, 5),
                *_block_1d(256, 256, 5),
                nn.Dropout(0.2),
                *_block_1d(256, 128, 3),
                nn.Flatten(),
                nn.Linear(128 * pooled(length, 3), 512),
                nn.ReLU(),
                nn.BatchNorm1d(512),
                nn.Linear(512, n_labels),
            ),
        )


class A2(Stack):
    """Features (batch, n_coeffs, n_frames) to logits (batch, n_labels)."""

    def __init__(self, shape: tuple[int, int], n_labels: int):
        rows, frames = shape
        super().__init__(
            Standardise(rows, 1),
            nn.Sequential(
                *_convolution_2d(1, 256, 6),
                nn.BatchNorm2d(256),
                _average_pool(),
                *_convolution_2d(256, 128, 6),
                nn.BatchNorm2d(128),
                _average_pool(),
                nn.Dropout(0.2),
                *_convolution_2d(128, 128, 6),
                nn.BatchNorm2d(128),
                _average_pool(),
                nn.Dropout(0.2),
                *_convolution_2d(128, 64, 6),
                _max_pool(),
                nn.Flatten(),
                nn.Linear(64 * pooled(rows, 4) * pooled(frames, 4), 256),
                nn.ReLU(),
                nn.Linear(256, n_labels),
            ),
        )


class A3(Stack):
    """Features (batch, n_coeffs, n_frames) to logits (batch, n_labels)."""

    def __init__(self, shape: tuple[int, int], n_labels: int):
        rows, frames = shape
        super().__init__(
            Standardise(rows, 1),
            nn.Sequential(
                *_convolution_2d(1, 75, 5),
                _max_pool(),
                *_convolution_2d(75, 135, 5),
                _max_pool(),
                nn.Dropout(0.2),
                *_convolution_2d(135, 75, 5),
                _max_pool(),
                nn.Flatten(),
                nn.Linear(75 * pooled(rows, 3) * pooled(frames, 3), 45),
                nn.ReLU(),
                nn.Dropout(0.2),
                nn.Linear(45, n_labels),
            ),
        )


def _block_1d(n_in: int, n_out: int, kernel: int) -> list[nn.Module]:
    return [
        convolution_1d(n_in, n_out, kernel),
        nn.ReLU(),
        nn.BatchNorm2d(n_out),
        max_pool_1d(5),
    ]


def _convolution_2d(n_in: int, n_out: int, kernel: int) -> list[nn.Module]:
    return [nn.Conv2d(n_in, n_out, kernel, padding="same"), nn.ReLU()]


def _average_pool() -> nn.Module:
    """4 x 4 with stride 2, "same" padding."""
    return nn.AvgPool2d(4, 2, padding=1, ceil_mode=True, count_include_pad=False)


def _max_pool() -> nn.Module:
    return nn.MaxPool2d(4, 2, padding=1, ceil_mode=True)
