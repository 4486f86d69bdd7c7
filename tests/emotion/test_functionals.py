from __future__ import annotations

import msgspec
import numpy as np
import pytest
import scipy.fft
import soundfile
from published_model import CLIPS

from serstream.emotion.features import FeatureSpec, FloatArray, mfcc, summarise
from serstream.emotion.functionals import (
    MODULATION_HZ,
    PITCH,
    SHAPE,
    VOICE,
    FunctionalsSpec,
    modulation_spectrum,
    names,
    spectral_shape,
)
from serstream.emotion.pitch import PitchSpec
from serstream.errors import ModelError

SPEC = FeatureSpec(
    n_fft=1024,
    win_length=1024,
    hop_length=256,
    n_mels=64,
    n_mfcc=64,
    pitch=PitchSpec(),
    functionals=FunctionalsSpec(cepstra=24, unvoiced=True, modulation=True),
)
NAMES = names(SPEC.functionals, SPEC.n_mels)
FEW = msgspec.structs.replace(SPEC, functionals=FunctionalsSpec())


def tone(hz: float) -> FloatArray:
    return (0.1 * np.sin(2 * np.pi * hz * np.arange(32_000) / 16_000)).astype(np.float32)


def speech() -> FloatArray:
    return np.stack([np.resize(soundfile.read(path, dtype="float32")[0], 32_000) for path in CLIPS])


def log_mel(windows: FloatArray) -> FloatArray:
    """From coefficients as many as bands: the inverse DCT loses nothing."""
    bands: FloatArray = scipy.fft.idct(mfcc(windows, SPEC)[:, :64], norm="ortho", axis=1)
    return bands


def test_every_functional_has_a_name_of_its_own() -> None:
    assert len(set(NAMES)) == len(NAMES) == SPEC.n_functionals
    assert summarise(mfcc(speech(), SPEC), SPEC).shape == (len(CLIPS), len(NAMES))
    few = names(FEW.functionals, FEW.n_mels)
    chosen = [NAMES.index(name) for name in few]
    rows = mfcc(speech(), SPEC)
    np.testing.assert_allclose(summarise(rows, FEW), summarise(rows, SPEC)[:, chosen], atol=1e-5)
    without = msgspec.structs.replace(SPEC, functionals=None)
    assert without.n_functionals == 0
    assert summarise(mfcc(speech(), SPEC), without).shape == (len(CLIPS), 0)


def test_means_and_deviations_are_those_of_the_rows() -> None:
    """Against numpy's own mean and deviation of the rows, and of their voiced frames."""
    rows = mfcc(speech(), SPEC)
    values = dict(zip(NAMES, summarise(rows, SPEC).T, strict=True))
    octaves, strength = rows[:, -2], rows[:, -1]
    bands = log_mel(speech())
    np.testing.assert_allclose(values["band 9: mean"], bands[:, 9].mean(axis=1), atol=1e-3)
    np.testing.assert_allclose(values["pitch: deviation"], octaves.std(axis=1), atol=5e-3)
    steps = np.abs(bands[:, 9, 2:] - bands[:, 9, :-2])
    np.testing.assert_allclose(values["band 9: mean step"], steps.mean(axis=1), atol=1e-3)
    np.testing.assert_allclose(values["band 9: deviation of steps"], steps.std(axis=1), atol=5e-3)
    voiced = 1 / (1 + np.exp(-20 * (strength - 0.5)))
    np.testing.assert_allclose(values["share of voice"], voiced.mean(axis=1), atol=1e-4)
    for kind, weights in (("voiced", voiced), ("unvoiced", 1 - voiced)):
        means = [np.average(o, weights=w) for o, w in zip(octaves, weights, strict=True)]
        np.testing.assert_allclose(
            values[f"pitch: mean when {kind}"], means - octaves.mean(axis=1), atol=2e-3
        )
    ordered = np.sort(octaves, axis=1)
    middle = ordered[:, round(0.5 * (SPEC.n_frames - 1))]
    np.testing.assert_allclose(values["pitch: 50% of frames below"], middle)


def test_a_second_view_is_that_of_a_spectrum_with_a_floor() -> None:
    """It has the functionals of rows whose bands had the floor added; pitch and voice have no second view."""
    spec = msgspec.structs.replace(SPEC, functionals=msgspec.structs.replace(SPEC.functionals, floor=0.1))
    both = names(spec.functionals, SPEC.n_mels)
    assert len(set(both)) == len(both) == spec.n_functionals
    rows = mfcc(speech(), SPEC)
    values = dict(zip(both, summarise(rows, spec).T, strict=True))
    raised = rows.copy()
    raised[:, :64] = scipy.fft.dct(np.log(np.exp(log_mel(speech())) + 0.1), norm="ortho", axis=1)
    for name, first, second in zip(NAMES, summarise(rows, SPEC).T, summarise(raised, SPEC).T, strict=True):
        np.testing.assert_allclose(values.pop(name), first, rtol=1e-4, atol=1e-4)
        if f"floored {name}" in values:
            np.testing.assert_allclose(values.pop(f"floored {name}"), second, rtol=2e-3, atol=2e-3)
        else:
            assert name in VOICE or name.startswith(PITCH)
    assert not values


def test_what_else_is_in_the_batch_does_not_matter() -> None:
    rows = mfcc(np.tile(speech(), (3, 1)), SPEC)
    together = summarise(rows, SPEC)
    alone = np.concatenate([summarise(window[None], SPEC) for window in rows])
    np.testing.assert_array_equal(together, alone)


def test_silence_noise_and_full_scale_have_functionals() -> None:
    noise = np.random.default_rng(0).uniform(-1, 1, 32_000).astype(np.float32)
    windows = np.stack([np.zeros_like(noise), noise, np.sign(noise)])
    assert np.isfinite(summarise(mfcc(windows, SPEC), SPEC)).all()


def test_a_higher_tone_has_a_higher_centroid_and_roll_offs() -> None:
    low, high = spectral_shape(log_mel(np.stack([tone(300), tone(1200)]))).mean(axis=2)
    shape = SHAPE.index
    assert high[shape("centroid")] > low[shape("centroid")] + 10
    assert (high[-4:] > low[-4:] + 10).all()
    assert high[shape("balance")] < low[shape("balance")]  # less of the power is low


def test_the_modulation_spectrum_peaks_where_syllables_come() -> None:
    seconds = np.arange(SPEC.n_frames) * 256 / 16_000
    syllables = np.sin(2 * np.pi * 4.5 * seconds)[None, None].astype(np.float32)
    peak = int(modulation_spectrum(syllables, 256 / 16_000)[0, 0].argmax())
    assert MODULATION_HZ[peak] <= 4.5 < MODULATION_HZ[peak + 1]


def test_the_shape_does_not_jump_where_machines_round_differently() -> None:
    exact = log_mel(speech())
    nudged = exact + 1e-6 * np.random.default_rng(0).normal(size=exact.shape).astype(np.float32)
    assert np.abs(spectral_shape(nudged) - spectral_shape(exact)).max() < 1e-2


@pytest.mark.parametrize("wrong", ['{"functionals": {}}', '{"functionals": {"cepstra": 0.5}}'])
def test_functionals_want_pitch(wrong: str) -> None:
    with pytest.raises(ModelError, match="functionals"):
        FeatureSpec.from_json(wrong)
