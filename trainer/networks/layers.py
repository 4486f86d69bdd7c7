"""Layers that the networks share. They work on (batch, channels, bands, frames) unless they say else."""

from __future__ import annotations

import scipy.fft
import torch
from torch import Tensor, nn

from serstream.emotion.features import FeatureSpec

MASKS = 2
"""Of bands, and as many of frames."""
MASKED_BANDS = 10
"""At most, by one mask."""
MASKED_FRAMES = 20
ATTENTION = 64
"""Units between the channels that attention hears and those that it weighs."""


class LogMel(nn.Module):
    """MFCC back to standardised log-mel bands, where neighbouring rows belong together.

    The DCT of the front end is orthonormal: with ``n_mfcc == n_mels`` its transpose loses nothing, with less
    it smooths the spectrum. Constant, so the exported model carries it as one matrix product.
    """

    cosines: Tensor
    mean: Tensor
    deviation: Tensor

    def __init__(self, spec: FeatureSpec):
        super().__init__()
        self.n_mfcc = spec.n_mfcc
        cosines = scipy.fft.idct(torch.eye(spec.n_mfcc).numpy(), n=spec.n_mels, norm="ortho", axis=1)
        self.register_buffer("cosines", torch.tensor(cosines.T.copy()))
        self.register_buffer("mean", torch.zeros(spec.n_mels, 1))
        self.register_buffer("deviation", torch.ones(spec.n_mels, 1))

    def standardise(self, features: Tensor) -> None:
        """Take mean and deviation of every band from training features (n_windows, n_coeffs, n_frames)."""
        bands = self.log_mel(features)
        self.mean.copy_(bands.mean(dim=(0, 2))[:, None])
        self.deviation.copy_(bands.std(dim=(0, 2))[:, None])

    def log_mel(self, features: Tensor) -> Tensor:
        """(batch, n_coeffs, n_frames) to (batch, n_mels, n_frames), as they are."""
        with torch.autocast(features.device.type, enabled=False):
            return self.cosines @ features[:, : self.n_mfcc]

    def forward(self, features: Tensor) -> Tensor:
        """(batch, n_coeffs, n_frames) to (batch, 1, n_mels, n_frames), standardised."""
        return ((self.log_mel(features) - self.mean) / self.deviation).unsqueeze(1)


class StandardisedFunctionals(nn.Module):
    """What hears functionals: mean and deviation travel with its weights.

    ``functionals`` are (batch, n_functionals), the trust in the baseline behind them if there is one.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, spec: FeatureSpec):
        super().__init__()
        self.size = spec.n_functionals
        self.register_buffer("mean", torch.zeros(self.size))
        self.register_buffer("deviation", torch.ones(self.size))

    def standardise(self, functionals: Tensor) -> None:
        """Take mean and deviation from training functionals (n_windows, n_functionals)."""
        self.mean.copy_(functionals.mean(dim=0))
        self.deviation.copy_(functionals.std(dim=0).clamp_min(1e-4))

    def standardised(self, functionals: Tensor) -> Tensor:
        """And bounded, shape (batch, n_functionals)."""
        return ((functionals[:, : self.size] - self.mean) / self.deviation).clamp(-5, 5)


class SpecAugment(nn.Module):
    """Mask random bands and frames while training (Park et al. 2019), one mask per window."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        keep = torch.ones_like(x)
        for axis, width in ((2, MASKED_BANDS), (3, MASKED_FRAMES)):
            for _ in range(MASKS):
                keep *= _mask(x, axis, width)
        return x * keep


def _mask(x: Tensor, axis: int, width: int) -> Tensor:
    size, batch = x.shape[axis], x.shape[0]
    extent = torch.randint(0, width + 1, (batch, 1))
    start = (torch.rand(batch, 1) * (size - extent)).long()
    position = torch.arange(size)
    hidden = (position >= start) & (position < start + extent)
    shape = [batch, 1, 1, 1]
    shape[axis] = size
    return (~hidden).view(shape).to(x)


def convolution(
    n_in: int, n_out: int, kernel: tuple[int, int] = (3, 3), stride: tuple[int, int] = (1, 1)
) -> nn.Sequential:
    """Convolution that keeps the shape but for its stride, batch normalisation, ReLU."""
    padding = (kernel[0] // 2, kernel[1] // 2)
    return nn.Sequential(
        nn.Conv2d(n_in, n_out, kernel, stride, padding=padding, bias=False),
        nn.BatchNorm2d(n_out),
        nn.ReLU(inplace=True),
    )


class Residual(nn.Module):
    """Two 3x3 convolutions and a short cut (He et al. 2016)."""

    def __init__(self, n_in: int, n_out: int):
        super().__init__()
        self.first = convolution(n_in, n_out)
        self.second = nn.Sequential(nn.Conv2d(n_out, n_out, 3, padding=1, bias=False), nn.BatchNorm2d(n_out))
        self.short_cut = nn.Identity() if n_in == n_out else nn.Conv2d(n_in, n_out, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.second(self.first(x)) + self.short_cut(x))


class AttentiveStatistics(nn.Module):
    """Mean and deviation over time, weighted per channel by attention (Okabe et al. 2018).

    (batch, frames, channels) to (batch, 2 * channels).
    """

    def __init__(self, channels: int):
        super().__init__()
        self.attention = nn.Sequential(
            nn.Linear(channels, ATTENTION), nn.Tanh(), nn.Linear(ATTENTION, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        weight = torch.softmax(self.attention(x), dim=1)
        mean = (weight * x).sum(dim=1)
        variance = (weight * (x - mean.unsqueeze(1)) ** 2).sum(dim=1)
        return torch.cat([mean, torch.sqrt(variance + 1e-5)], dim=1)
