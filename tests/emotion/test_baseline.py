from __future__ import annotations

import random as rnd

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serstream.emotion.baseline import Baselines, BaselineSpec, first_of_streams
from serstream.emotion.features import FeatureSpec
from serstream.emotion.inputs import shapes
from serstream.errors import ModelError

N_COEFFS, N_FRAMES = 5, 40
SPEC = BaselineSpec(mean=(0.0,) * N_COEFFS, deviation=(1.0,) * N_COEFFS, prior=1.0)


def windows_of(rng: np.random.Generator, n: int, offset: float = 0.0, spread: float = 1.0) -> np.ndarray:
    return (offset + spread * rng.normal(size=(n, N_COEFFS, N_FRAMES))).astype(np.float32)


def hear(baselines: Baselines, streams: list[str], features: np.ndarray, levels: np.ndarray) -> np.ndarray:
    normalised, sums = baselines.normalise(streams, features, levels)
    baselines.remember(sums)
    return normalised


def test_the_first_window_of_a_stream_stays_as_it_is() -> None:
    features = windows_of(np.random.default_rng(0), 2, offset=3)
    levels = np.array([-10, -40], np.float32)
    np.testing.assert_allclose(hear(Baselines(SPEC), ["a", "b"], features, levels), features, atol=1e-5)


def test_a_speaker_becomes_the_average_speaker() -> None:
    features = windows_of(np.random.default_rng(0), 200, offset=7, spread=3)
    normalised = hear(Baselines(SPEC), ["a"] * 200, features, np.zeros(200, np.float32))
    assert abs(float(normalised[100:].mean())) < 0.1
    assert abs(float(normalised[100:].std()) - 1) < 0.1


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 2), min_size=1, max_size=30), st.randoms(use_true_random=False))
def test_how_windows_are_grouped_changes_nothing(streams: list[int], dice: rnd.Random) -> None:
    names = [str(stream) for stream in streams]
    features = windows_of(np.random.default_rng(3), len(names), offset=2)
    levels = np.linspace(-40, -10, len(names), dtype=np.float32)
    whole = hear(Baselines(SPEC), names, features, levels)
    baselines, pieces, begin = Baselines(SPEC), [], 0
    while begin < len(names):
        end = begin + dice.randint(1, 5)
        pieces.append(hear(baselines, names[begin:end], features[begin:end], levels[begin:end]))
        begin = end
    np.testing.assert_array_equal(np.concatenate(pieces), whole)


def test_streams_do_not_hear_each_other() -> None:
    features = windows_of(np.random.default_rng(0), 6, offset=4)
    levels = np.zeros(6, np.float32)
    mixed = hear(Baselines(SPEC), ["a", "b"] * 3, features, levels)
    alone = hear(Baselines(SPEC), ["a"] * 3, features[::2], levels[::2])
    np.testing.assert_array_equal(mixed[::2], alone)


def test_a_forgotten_stream_begins_anew() -> None:
    features, levels = windows_of(np.random.default_rng(0), 1, offset=4), np.zeros(1, np.float32)
    baselines = Baselines(SPEC)
    first = hear(baselines, ["a"], features, levels)
    assert not np.allclose(hear(baselines, ["a"], features, levels), first)
    baselines.forget("a")
    np.testing.assert_array_equal(hear(baselines, ["a"], features, levels), first)


def test_what_was_not_scored_is_not_remembered() -> None:
    features, levels = windows_of(np.random.default_rng(0), 1, offset=4), np.zeros(1, np.float32)
    baselines = Baselines(SPEC)
    first, _ = baselines.normalise(["a"], features, levels)
    np.testing.assert_array_equal(hear(baselines, ["a"], features, levels), first)


def test_a_louder_window_than_usual_raises_the_first_coefficient() -> None:
    spec = BaselineSpec(mean=(0.0,) * N_COEFFS, deviation=(1.0,) * N_COEFFS, prior=1.0, level_per_db=2.0)
    features = np.tile(windows_of(np.random.default_rng(0), 1), (2, 1, 1))
    quiet = hear(Baselines(spec), ["a", "a"], features, np.array([-20, -20], np.float32))
    loud = hear(Baselines(spec), ["a", "a"], features, np.array([-20, -14], np.float32))
    difference = loud[1] - quiet[1]
    # One window heard against a prior of one: half of 6 dB counts.
    np.testing.assert_allclose(difference[0], 2.0 * 0.5 * 6, atol=1e-4)
    np.testing.assert_allclose(difference[1:], 0, atol=1e-5)


def test_a_baseline_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="5 coefficients, wanted 40"):
        FeatureSpec(baseline=SPEC)
    with pytest.raises(ModelError, match="prior"):
        FeatureSpec.from_json('{"baseline": {"mean": [0], "deviation": [1], "prior": 0}}')


def test_the_trust_row_tells_how_much_was_heard() -> None:
    spec = BaselineSpec(mean=SPEC.mean, deviation=SPEC.deviation, prior=1.0, trust_row=True)
    features, levels = windows_of(np.random.default_rng(0), 4), np.zeros(4, np.float32)
    normalised = hear(Baselines(spec), ["a", "a", "b", "a"], features, levels)
    np.testing.assert_allclose(normalised[:, -1, 0], [0, 1 / 2, 0, 2 / 3], atol=1e-6)
    assert (normalised[:, -1] == normalised[:, -1, :1]).all()
    without = hear(Baselines(SPEC), ["a", "a", "b", "a"], features, levels)
    np.testing.assert_array_equal(normalised[:, :-1], without)
    np.testing.assert_array_equal(first_of_streams(features, spec)[0], normalised[0])
    assert shapes(FeatureSpec(n_mfcc=N_COEFFS, baseline=spec))["features"][0] == N_COEFFS + 1


def test_without_a_deviation_only_the_mean_is_mapped() -> None:
    spec = BaselineSpec(mean=(1.0,) * N_COEFFS, prior=1.0)
    features = windows_of(np.random.default_rng(0), 200, offset=7, spread=3)
    normalised = hear(Baselines(spec), ["a"] * 200, features, np.zeros(200, np.float32))
    assert abs(float(normalised[100:].mean()) - 1) < 0.1
    assert float(normalised[100:].std()) == pytest.approx(float(features[100:].std()), rel=0.02)


def test_trust_ends_at_its_limit() -> None:
    """So that a speaker of one mood never becomes the average speaker altogether."""
    spec = BaselineSpec(mean=(0.0,) * N_COEFFS, prior=1.0, trust_limit=0.5, trust_row=True)
    features = np.full((40, N_COEFFS, N_FRAMES), 8.0, np.float32)
    normalised = hear(Baselines(spec), ["a"] * 40, features, np.zeros(40, np.float32))
    assert normalised[[0, 1, 39], -1, 0].tolist() == [0, 0.5, 0.5]
    np.testing.assert_allclose(normalised[39, :-1], 4.0)
