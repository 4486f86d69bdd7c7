from __future__ import annotations

import msgspec
import pytest

torch = pytest.importorskip("torch", reason="needs the trainer extra")

from serstream.emotion.baseline import BaselineSpec
from serstream.emotion.features import FeatureSpec
from serstream.emotion.functionals import FunctionalsSpec
from serstream.emotion.pitch import PitchSpec
from trainer.networks import build
from trainer.networks.functionals import FunctionalsOpinions

pytestmark = pytest.mark.trainer

ROWS = FeatureSpec(n_fft=1024, win_length=1024, hop_length=256, n_mels=64, n_mfcc=64, pitch=PitchSpec())
PLAIN = msgspec.structs.replace(ROWS, functionals=FunctionalsSpec())
SPEC = msgspec.structs.replace(
    PLAIN, baseline=BaselineSpec(mean=(0.0,) * PLAIN.n_functionals, trust_row=True)
)


def test_the_weights_change_with_the_trust_in_the_baseline() -> None:
    torch.manual_seed(0)
    network = FunctionalsOpinions(SPEC, 6).eval()
    functionals = torch.randn(1, SPEC.n_functionals + 1).repeat(3, 1)
    functionals[:, -1] = torch.tensor([0.0, 1.0, 0.5])
    cold, warm, half = network(functionals)[:, 0]
    assert not torch.allclose(cold, warm, atol=1e-2)
    torch.testing.assert_close(half, (cold + warm) / 2)  # the first opinion is linear


def test_the_convolution_counts_half() -> None:
    torch.manual_seed(0)
    network = build("cnn_lstm", SPEC, 6).eval()
    features = torch.randn(2, ROWS.n_coeffs, ROWS.n_frames)
    functionals = torch.randn(2, SPEC.n_functionals + 1)
    network.standardise(features, functionals[:, :-1])
    opinions = network.opinions(features, functionals)
    assert opinions.shape == (2, 3, 6)
    convolution, linear, perceptron = opinions.unbind(dim=1)
    torch.testing.assert_close(
        network(features, functionals), 0.2 * convolution + 0.4 * linear + 0.4 * perceptron
    )


def test_a_network_without_functionals_has_one_opinion() -> None:
    network = build("cnn_2d", ROWS, 6).eval()
    features = torch.randn(2, ROWS.n_coeffs, ROWS.n_frames)
    opinions = network.opinions(features)
    assert opinions.shape == (2, 1, 6)
    torch.testing.assert_close(network(features), opinions[:, 0])
