import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serstream.emotion.affect import PLACES, arousal_valence


def test_a_certain_emotion_lies_at_its_place() -> None:
    assert arousal_valence({"angry": 1.0, "happy": 0.0}) == PLACES["angry"]


def test_neutral_and_unknown_labels_lie_at_the_origin() -> None:
    assert arousal_valence({"neutral": 0.5, "martian": 0.5}) == (0.0, 0.0)


def test_a_mixture_lies_between() -> None:
    arousal, valence = arousal_valence({"happy": 0.5, "sad": 0.5})
    assert arousal == pytest.approx((0.51 - 0.27) / 2)
    assert valence == pytest.approx((0.81 - 0.63) / 2)


@given(st.dictionaries(st.sampled_from(sorted(PLACES)), st.floats(0, 1), min_size=1))
def test_every_distribution_lies_in_the_square(weights: dict[str, float]) -> None:
    total = math.fsum(weights.values()) or 1.0
    arousal, valence = arousal_valence({label: weight / total for label, weight in weights.items()})
    assert -1 <= arousal <= 1
    assert -1 <= valence <= 1
