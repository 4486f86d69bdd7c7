"""What models are given, with and without functionals, and what is remembered of streams."""

from __future__ import annotations

import random as rnd

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serstream.emotion.baseline import BaselineSpec
from serstream.emotion.features import FeatureSpec, FloatArray, summarise
from serstream.emotion.functionals import FunctionalsSpec
from serstream.emotion.inputs import Inputs, Listener, alone, shapes
from serstream.emotion.pitch import PitchSpec

ROWS = FeatureSpec(
    window_s=0.5, n_fft=1024, win_length=1024, hop_length=256, n_mels=32, n_mfcc=32, pitch=PitchSpec()
)
PLAIN = msgspec.structs.replace(ROWS, functionals=FunctionalsSpec())
HEARD = msgspec.structs.replace(
    PLAIN, baseline=BaselineSpec(mean=(0.0,) * PLAIN.n_functionals, prior=2.0, trust_row=True)
)


def features(n: int, seed: int = 0) -> FloatArray:
    rng = np.random.default_rng(seed)
    return rng.normal(0, 1, (n, ROWS.n_coeffs, ROWS.n_frames)).astype(np.float32)


def hear(listener: Listener, streams: list[str], rows: FloatArray) -> Inputs:
    inputs, sums = listener.inputs(streams, rows, np.zeros(len(rows), np.float32))
    listener.remember(sums)
    return inputs


@pytest.mark.parametrize("spec", [ROWS, PLAIN, HEARD])
def test_inputs_have_the_shapes_that_the_recipe_says(spec: FeatureSpec) -> None:
    rows = features(3)
    for inputs in (alone(rows, spec), hear(Listener(spec), ["a", "a", "b"], rows)):
        assert {name: list(values.shape) for name, values in inputs.items()} == {
            name: [3, *shape] for name, shape in shapes(spec).items()
        }


def test_functionals_are_heard_against_the_speaker_and_rows_are_not() -> None:
    rows = features(3)
    raw = summarise(rows, HEARD)
    inputs = hear(Listener(HEARD), ["a", "b", "a"], rows)
    np.testing.assert_array_equal(inputs["features"], rows)
    np.testing.assert_allclose(inputs["functionals"][:2, :-1], raw[:2], atol=1e-6)
    # One window heard, which counts against an average speaker of two.
    np.testing.assert_allclose(inputs["functionals"][2, :-1], raw[2] - raw[0] / 3, atol=1e-4)
    np.testing.assert_allclose(inputs["functionals"][:, -1], [0, 0, 1 / 3])


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 2), min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_how_windows_are_grouped_changes_nothing(streams: list[int], dice: rnd.Random) -> None:
    named = [str(stream) for stream in streams]
    rows = features(len(named), seed=1)
    whole = hear(Listener(HEARD), named, rows)
    listener, begin = Listener(HEARD), 0
    while begin < len(named):
        end = begin + dice.randint(1, 5)
        piece = hear(listener, named[begin:end], rows[begin:end])
        for name, values in piece.items():
            np.testing.assert_array_equal(values, whole[name][begin:end])
        begin = end


def test_a_successor_knows_the_speakers_only_if_it_observes_the_same() -> None:
    before = Listener(HEARD)
    hear(before, ["a"] * 3, features(3))
    assert HEARD.baseline is not None
    other_average = msgspec.structs.replace(HEARD.baseline, mean=(0.5,) * PLAIN.n_functionals)
    scaling = msgspec.structs.replace(HEARD.baseline, deviation=(1.0,) * PLAIN.n_functionals)
    by_rows = msgspec.structs.replace(ROWS, baseline=BaselineSpec(mean=(0.0,) * ROWS.n_coeffs))
    trust = {}
    for name, spec in (
        ("same", msgspec.structs.replace(HEARD, baseline=other_average)),
        ("scaling", msgspec.structs.replace(HEARD, baseline=scaling)),
        ("rows", by_rows),
        ("none", PLAIN),
    ):
        after = Listener(spec)
        after.continue_from(before)
        inputs = hear(after, ["a"], features(1))
        trust[name] = inputs["functionals"][0, -1] if name in ("same", "scaling") else None
    assert trust == {"same": pytest.approx(3 / 5), "scaling": 0.0, "rows": None, "none": None}


def test_a_forgotten_stream_begins_anew() -> None:
    listener = Listener(HEARD)
    rows = features(1)
    first = hear(listener, ["a"], rows)
    assert not np.allclose(hear(listener, ["a"], rows)["functionals"], first["functionals"])
    listener.forget("a")
    np.testing.assert_array_equal(hear(listener, ["a"], rows)["functionals"], first["functionals"])
