"""Writes golden_mfcc.npz with torchaudio, so that the test needs no torch.

Run: python tests/emotion/make_golden_mfcc.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
import torch
import torchaudio
from golden_specs import SPECS

from serstream.emotion.features import FeatureSpec

HERE = Path(__file__).parent


def coefficients(samples: torch.Tensor, spec: FeatureSpec) -> torch.Tensor:
    mel = torchaudio.transforms.MelSpectrogram(
        sample_rate=spec.sample_rate,
        n_fft=spec.n_fft,
        win_length=spec.win_length,
        hop_length=spec.hop_length,
        f_min=spec.f_min,
        f_max=spec.f_max,
        n_mels=spec.n_mels,
        center=False,
    )(samples)
    dct = torchaudio.functional.create_dct(spec.n_mfcc, spec.n_mels, norm="ortho")
    cepstrum = (torch.log(mel + spec.log_offset).transpose(1, 2) @ dct).transpose(1, 2)
    if spec.deltas:
        cepstrum = torch.cat([cepstrum, torchaudio.functional.compute_deltas(cepstrum, 9)], dim=1)
    return cepstrum


def main() -> None:
    speech, _ = soundfile.read(HERE.parent / "fixtures/emo-db/14a05Wa.flac", dtype="float32")
    noise = np.random.default_rng(1).normal(0, 0.05, 32_000).astype(np.float32)
    samples = np.stack([speech[8_000:40_000], noise])
    arrays = {name: coefficients(torch.from_numpy(samples), spec).numpy() for name, spec in SPECS.items()}
    np.savez_compressed(HERE / "golden_mfcc.npz", samples=samples, **arrays)


if __name__ == "__main__":
    main()
