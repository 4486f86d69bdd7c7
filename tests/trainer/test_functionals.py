from __future__ import annotations

import msgspec
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the trainer extra")

from serstream.emotion.baseline import BaselineSpec
from serstream.emotion.features import FeatureSpec, FloatArray, mfcc
from serstream.emotion.pitch import PitchSpec
from trainer.export import golden_windows
from trainer.networks.functionals import MODULATION_HZ, Functionals, ModulationSpectrum, SpectralShape
from trainer.networks.layers import LogMel
from trainer.networks.perceptron import Perceptron

pytestmark = pytest.mark.trainer

SPEC = FeatureSpec(n_fft=1024, win_length=1024, hop_length=256, n_mels=64, n_mfcc=64, pitch=PitchSpec())


def tone(hz: float) -> FloatArray:
    return (0.1 * np.sin(2 * np.pi * hz * np.arange(32_000) / 16_000)).astype(np.float32)


def log_mel(windows: FloatArray) -> torch.Tensor:
    return LogMel(SPEC).log_mel(torch.from_numpy(mfcc(windows, SPEC)))


@pytest.mark.parametrize("spec", [SPEC, msgspec.structs.replace(SPEC, pitch=None)])
def test_silence_and_noise_have_functionals(spec: FeatureSpec) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 32_000).astype(np.float32)
    features = torch.from_numpy(mfcc(np.stack([np.zeros_like(noise), noise]), spec))
    functionals = Functionals(spec)
    values = functionals(features, LogMel(spec).log_mel(features))
    assert values.shape == (2, functionals.size)
    assert values.isfinite().all()


def test_a_higher_tone_has_a_higher_centroid_and_roll_offs() -> None:
    shape = SpectralShape()(log_mel(np.stack([tone(300), tone(1200)])))
    assert shape.shape == (2, SpectralShape.SIZE, SPEC.n_frames)
    low, high = shape.mean(dim=2)
    assert high[0] > low[0] + 10
    assert (high[-4:] > low[-4:] + 10).all()
    assert high[4] < low[4]  # less of the power is low


def test_the_modulation_spectrum_peaks_where_syllables_come() -> None:
    seconds = torch.arange(SPEC.n_frames) * 256 / 16_000
    syllables = torch.sin(2 * torch.pi * 4.5 * seconds)[None, None]
    bands = ModulationSpectrum(SPEC)(syllables)[0]
    peak = int(bands.argmax())
    assert MODULATION_HZ[peak] <= 4.5 < MODULATION_HZ[peak + 1]


def test_the_weights_change_with_the_trust_in_the_baseline() -> None:
    spec = msgspec.structs.replace(
        SPEC, baseline=BaselineSpec(mean=(0.0,) * 66, deviation=(1.0,) * 66, trust_row=True)
    )
    torch.manual_seed(0)
    network = Perceptron(spec, 6).eval()
    features = torch.randn(3, spec.n_inputs, spec.n_frames)
    features[:, -1] = torch.tensor([0.0, 1.0, 0.5])[:, None]
    features[:, :-1] = features[:1, :-1]
    cold, warm, half = network.opinions(network.summary(features))[:, 0]
    assert not torch.allclose(cold, warm, atol=1e-2)
    torch.testing.assert_close(half, (cold + warm) / 2)  # the first opinion is linear


def test_the_shape_does_not_jump_where_runtimes_round_differently() -> None:
    speech = golden_windows(32_000).astype(np.float32) / 32768
    exact = log_mel(speech).double()
    nudged = exact + 1e-6 * torch.randn(exact.shape, generator=torch.Generator().manual_seed(0))
    assert (SpectralShape()(nudged) - SpectralShape()(exact)).abs().max() < 1e-3
