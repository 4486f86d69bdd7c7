"""The active model and its candidates in the live view."""

from typing import Any

import msgspec
import pytest
from screens import picture
from scripted_feed import Script

from serstream.feed.messages import (
    NONE,
    CanaryReport,
    ModelChanged,
    ModelRefused,
)
from serstream.view.board import CANDIDATE_FOR_S
from serstream.view.live import LiveView


def canary(view: LiveView, now: float, **fields: Any) -> None:
    header = Script(NONE, NONE, "unknown", source="serstream")._common(0, 0)
    figures = {"windows": 0, "agreement": 0.0, "confidence_shift": 0.0, "latency_ms": 0.0, "emotions": {}}
    view.update(
        CanaryReport(**header, candidate="cnn-lstm@2", share=0.1, calls=1, errors=0, **(figures | fields)),
        now,
    )


def test_a_candidate_is_shown_while_there_is_one(view: LiveView) -> None:
    assert "canary" not in picture(view, 62.0)
    canary(view, 62.0)
    assert "0 lost\ncanary cnn-lstm@2 (10% of calls)  cnn-lstm@1" in picture(view, 62.0), "at 80 columns"
    canary(view, 63.0, windows=40, agreement=0.85)
    assert "0 lost  canary cnn-lstm@2 (10% of calls) agrees 85%" in picture(view, 63.0, width=130)
    assert "canary" not in picture(view, 63.0 + CANDIDATE_FOR_S)


@pytest.mark.parametrize("fate", ["becomes active", "is refused"])
def test_a_candidate_goes_with_the_word_about_it(view: LiveView, fate: str) -> None:
    canary(view, 62.0)
    header = Script(NONE, NONE, "unknown", source="serstream")._common(0, 0)
    if fate == "is refused":
        view.update(ModelRefused(**header, candidate="cnn-lstm@2", reason="collapsed"), 62.0)
    else:
        view.update(ModelChanged(**header | {"model": "cnn-lstm@2"}, previous="cnn-lstm@1"), 62.0)
    assert "canary" not in picture(view, 62.0)


def test_models_of_other_labels_at_the_same_time_share_the_columns(view: LiveView) -> None:
    """As with a canary; the columns do not change with whoever spoke last."""
    before = picture(view, 62.0)
    assert "adfhns MOOD" in before
    other = Script("call-canary", "c").window(62.0, "calm")
    other = msgspec.structs.replace(
        other,
        model="cnn-lstm@2",
        smoothed={"calm": 0.9, "angry": 0.1},
        probabilities={"calm": 0.9, "angry": 0.1},
    )
    view.update(other, 62.0)
    assert "acdfhns MOOD" in picture(view, 62.0)
    (row,) = [line for line in picture(view, 62.0).splitlines() if "call-canary" in line]
    assert " ▁▇     " in row
    assert view.board.model == "cnn-lstm@1", "the active one is named, not the canary"
