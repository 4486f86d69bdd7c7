from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.signal
import soundfile
from golden_specs import SPECS

from serstream.emotion.features import FeatureSpec, levels_dbfs, mfcc, pad
from serstream.errors import ModelError
from serstream.shipped import SAMPLE_CALL

GOLDEN = np.load(Path(__file__).parent / "golden_mfcc.npz")


@pytest.mark.parametrize("name", SPECS)
def test_mfcc_are_those_of_torchaudio(name: str) -> None:
    expected = GOLDEN[name]
    actual = mfcc(GOLDEN["samples"], SPECS[name])
    assert actual.shape == expected.shape == (2, SPECS[name].n_coeffs, SPECS[name].n_frames)
    for row in range(actual.shape[1]):
        scale = np.abs(expected[:, row]).max()
        assert np.abs(actual[:, row] - expected[:, row]).max() <= 1e-3 * scale, row


def test_windows_do_not_influence_each_other() -> None:
    windows = np.random.default_rng(0).normal(0, 0.1, (19, 32_000)).astype(np.float32)
    together = mfcc(windows, FeatureSpec())
    for i in (0, 7, 8, 18):
        np.testing.assert_array_equal(mfcc(windows[i : i + 1], FeatureSpec())[0], together[i])


def test_the_level_of_a_window_says_nothing() -> None:
    window = np.random.default_rng(0).normal(0, 0.1, (1, 32_000)).astype(np.float32)
    np.testing.assert_allclose(mfcc(window * 0.01, FeatureSpec()), mfcc(window, FeatureSpec()), atol=1e-2)


def test_levels_are_in_db_of_full_scale() -> None:
    windows = np.stack([np.full(100, 1.0), np.full(100, 0.1), np.zeros(100)]).astype(np.float32)
    np.testing.assert_allclose(levels_dbfs(windows), [0, -20, -100], atol=1e-4)


def test_a_short_window_is_repeated_or_silenced() -> None:
    samples = np.arange(1, 5, dtype=np.float32)
    spec = FeatureSpec(window_s=0.1, n_fft=64, win_length=64)
    assert pad(samples, spec)[:6].tolist() == [1, 2, 3, 4, 1, 2]
    silent = FeatureSpec(window_s=0.1, n_fft=64, win_length=64, padding="zeros")
    assert pad(samples, silent)[:6].tolist() == [1, 2, 3, 4, 0, 0]


@pytest.mark.parametrize("n_samples", [0, 32_001])
def test_a_window_of_wrong_length_is_refused(n_samples: int) -> None:
    with pytest.raises(ValueError, match=f"{n_samples} samples, wanted 1 to 32000"):
        pad(np.zeros(n_samples, np.float32), FeatureSpec())


def test_a_foreign_key_in_a_spec_is_named() -> None:
    with pytest.raises(ModelError, match="n_melz"):
        FeatureSpec.from_json('{"n_melz": 40}')


@pytest.mark.parametrize("name", SPECS)
def test_telephone_sound_at_its_own_rate_gives_what_its_interpolation_gives(name: str) -> None:
    spec = SPECS[name]
    speech = soundfile.read(SAMPLE_CALL, dtype="float32")[0][:, 0]
    taps = scipy.signal.firwin(161, 0.9625 / 2, window=("kaiser", 7.86))
    wide = scipy.signal.resample_poly(speech, 2, 1, window=taps).astype(np.float32)
    starts = range(8000, 160_000, 8000)
    at_16k = mfcc(np.stack([wide[2 * i : 2 * i + spec.n_samples] for i in starts]), spec)
    at_8k = mfcc(np.stack([speech[i : i + spec.n_samples // 2] for i in starts]), spec, 8000)
    error = (at_8k - at_16k) / at_16k.std(axis=(0, 2), keepdims=True)
    # Frames are cut before the filter here and behind it there, which shows at their edges.
    assert np.sqrt(np.mean(np.square(error))) < 0.1


def test_other_rates_are_refused() -> None:
    with pytest.raises(ValueError, match="sample_rate is 11025, wanted 16000 or"):
        mfcc(np.zeros((1, 22_050), np.float32), FeatureSpec(), 11_025)
    with pytest.raises(ValueError, match=r"hop_length \(161\)"):
        FeatureSpec(hop_length=161).window_length(8000)
    assert pad(np.ones(3, np.float32), FeatureSpec(), 8000).shape == (16_000,)
