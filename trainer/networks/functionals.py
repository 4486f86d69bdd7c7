"""Functionals: statistics of contours over the window, after openSMILE (Eyben et al. 2010).

Most follow a row through any affine map, so a speaker baseline in front of the network does to them what
standardising them by speaker would do.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from serstream.emotion.features import FeatureSpec

CEPSTRA = 24
"""Rows of the coefficients that get functionals; the finer ones say who speaks."""
ROLL_OFFS = (0.25, 0.5, 0.75, 0.9)
"""Shares of the power below the roll-off points."""
PERCENTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
MODULATION_HZ = (0.4, 1.2, 2.2, 3.5, 5.5, 8.5, 13.0, 20.0, 31.0)
"""Edges of the bands of the modulation spectrum; syllables come at about 4 Hz."""
MODULATED = 16
"""Groups of neighbouring mel bands whose modulation is looked at."""


class SpectralShape(nn.Module):
    """Log-mel power (batch, n_mels, n_frames) to contours of the spectrum's shape (batch, SIZE, n_frames).

    Centroid, spread and entropy over the bands, flux, power below against above three eighths of them,
    Hammarberg's index (strongest low against strongest middle band), loudness (by Stevens' power law) and
    roll-offs.
    """

    SIZE = 7 + len(ROLL_OFFS)

    def forward(self, log_mel: Tensor) -> Tensor:
        n_mels = log_mel.shape[1]
        power = log_mel.exp()
        share = power / power.sum(1, keepdim=True)
        band = torch.arange(n_mels, device=power.device).to(power).view(1, -1, 1)
        centroid = (share * band).sum(1, keepdim=True)
        spread = (share * (band - centroid).square()).sum(1, keepdim=True).sqrt()
        entropy = -(share * (share + 1e-9).log()).sum(1, keepdim=True)
        change = (share[:, :, 1:] - share[:, :, :-1]).square().sum(1, keepdim=True).sqrt()
        flux = torch.cat([change[:, :, :1], change], dim=2)
        low, middle = 3 * n_mels // 8, 5 * n_mels // 8
        balance = _log(power[:, :low].sum(1, keepdim=True)) - _log(power[:, low:].sum(1, keepdim=True))
        hammarberg = _log(power[:, :low].amax(1, keepdim=True)) - _log(
            power[:, low:middle].amax(1, keepdim=True)
        )
        loudness = power.pow(0.23).sum(1, keepdim=True)
        below = share.cumsum(1) - share
        # The part of a band counts too: whole bands would jump where two runtimes round differently.
        roll_offs = [((part - below) / (share + 1e-9)).clamp(0, 1).sum(1, keepdim=True) for part in ROLL_OFFS]
        rows = [centroid, spread, entropy, flux, balance, hammarberg, loudness, *roll_offs]
        return torch.cat(rows, dim=1)


class ModulationSpectrum(nn.Module):
    """Contours (batch, rows, n_frames) to the log power of their modulation (batch, rows * bands)."""

    real: Tensor
    imaginary: Tensor
    bands: Tensor

    def __init__(self, spec: FeatureSpec):
        super().__init__()
        frame = torch.arange(spec.n_frames)
        hz = torch.fft.rfftfreq(spec.n_frames, spec.hop_length / spec.sample_rate)
        angle = 2 * math.pi * torch.outer(frame, torch.arange(len(hz))) / spec.n_frames
        taper = torch.hann_window(spec.n_frames)[:, None]
        edges = torch.tensor(MODULATION_HZ)
        inside = ((hz[:, None] >= edges[:-1]) & (hz[:, None] < edges[1:])).float()
        self.register_buffer("real", taper * angle.cos())
        self.register_buffer("imaginary", taper * angle.sin())
        self.register_buffer("bands", inside / inside.sum(0).clamp_min(1))
        self.size = len(MODULATION_HZ) - 1

    def forward(self, rows: Tensor) -> Tensor:
        centred = rows - rows.mean(2, keepdim=True)
        power = (centred @ self.real).square() + (centred @ self.imaginary).square()
        return (power @ self.bands + 1e-4).log().flatten(1)


class Functionals(nn.Module):
    """Features (batch, n_inputs, n_frames) and their log-mel power (batch, n_mels, n_frames) to functionals.

    Of cepstra, bands, shape and, where the features have it, pitch: mean and deviation, both of the steps
    between frames, slope; with pitch, mean and deviation in voiced and in unvoiced frames. Of shape and pitch
    percentiles too, of groups of bands the modulation spectrum. Output (batch, size).
    """

    ramp: Tensor

    def __init__(self, spec: FeatureSpec):
        super().__init__()
        self.cepstra = min(CEPSTRA, spec.n_mfcc)
        self.pitch = 0 if spec.pitch is None else 2
        self.contours = slice(spec.n_coeffs - self.pitch, spec.n_coeffs)
        self.shape = SpectralShape()
        self.modulation = ModulationSpectrum(spec)
        self.register_buffer("ramp", torch.linspace(-1, 1, spec.n_frames))
        self.ranks = [round(share * (spec.n_frames - 1)) for share in PERCENTILES]
        self.n_mels, self.n_frames = spec.n_mels, spec.n_frames
        few = SpectralShape.SIZE + self.pitch
        per_row = 9 if self.pitch else 5
        self.size = per_row * (self.cepstra + spec.n_mels + few) + len(PERCENTILES) * few
        self.size += self.modulation.size * (MODULATED + 1)
        if self.pitch:
            self.size += _CONTOUR

    def forward(self, features: Tensor, log_mel: Tensor) -> Tensor:
        cepstra = features[:, : self.cepstra]
        few = [self.shape(log_mel)]
        if self.pitch:
            few.append(features[:, self.contours])
        rows = torch.cat([cepstra, log_mel, *few], dim=1)
        step = rows[:, :, 2:] - rows[:, :, :-2]
        parts = [rows.mean(2), _deviation(rows), step.abs().mean(2), _deviation(step.abs())]
        parts.append((rows * self.ramp).mean(2))
        if self.pitch:
            octaves, strength = features[:, self.contours].unbind(1)
            voiced = torch.sigmoid(20 * (strength - 0.5)).unsqueeze(1)
            parts += [*_weighted(rows, voiced), *_weighted(rows, 1 - voiced), _contour(octaves, voiced)]
        # A sort; but the exporter would forget the sizes behind that.
        ordered = torch.cat(few, dim=1).topk(self.n_frames, dim=2, largest=False).values
        parts += [ordered[:, :, rank] for rank in self.ranks]
        width = self.n_mels // MODULATED
        bands = log_mel[:, : MODULATED * width].unsqueeze(1)
        groups = nn.functional.avg_pool2d(bands, (width, 1)).squeeze(1)
        parts.append(self.modulation(torch.cat([groups, cepstra[:, :1] / math.sqrt(self.n_mels)], dim=1)))
        return torch.cat(parts, dim=1)


_CONTOUR = 5


def _contour(octaves: Tensor, voiced: Tensor) -> Tensor:
    """Of a pitch contour: mean rise, size of steps and of bends; and of the voice: share and changes.

    Args:
        octaves: (batch, n_frames).
        voiced: 0 to 1, (batch, 1, n_frames).
    """
    step = octaves[:, 1:] - octaves[:, :-1]
    bend = step[:, 1:] - step[:, :-1]
    voice = voiced.squeeze(1)
    parts = [
        step.clamp_min(0).mean(1),
        (step.square().mean(1) + 1e-6).sqrt(),
        bend.abs().mean(1),
        voice.mean(1),
        (voice[:, 1:] - voice[:, :-1]).abs().mean(1),
    ]
    return torch.stack(parts, dim=1)


def _weighted(rows: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Mean, relative to the mean of all frames, and deviation of weighted frames."""
    centred = rows - rows.mean(2, keepdim=True)
    total = weight.sum(2) + 1e-2
    mean = (centred * weight).sum(2) / total
    square = (centred.square() * weight).sum(2) / total
    return mean, ((square - mean.square()).clamp_min(0) + 1e-4).sqrt()


def _deviation(rows: Tensor) -> Tensor:
    return torch.sqrt((rows - rows.mean(2, keepdim=True)).square().mean(2) + 1e-5)


def _log(power: Tensor) -> Tensor:
    return (power + 1e-6).log()
