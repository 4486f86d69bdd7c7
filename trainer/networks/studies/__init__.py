"""Networks of the five studies that the project grew out of, by their letter there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from trainer.networks.studies import a, b, c, d, e
from trainer.networks.studies.layers import StudyNetwork, keras_parameters

__all__ = ["STUDIES", "StudyNetwork", "keras_parameters"]

STUDIES: dict[str, Callable[[Any, int], StudyNetwork]] = {
    "a1": a.A1,
    "a2": a.A2,
    "a3": a.A3,
    "b1_deep": b.B1Deep,
    "b1_mlp": b.B1Mlp,
    "b1_lstm": b.B1Lstm,
    "b1_bilstm": b.B1BiLstm,
    "c1": c.C1,
    "c3": c.C3,
    "d1": d.D1,
    "d2": d.D2,
    "e1": e.E1,
    "e2": e.E2,
}
"""By name; each takes the shape of its features without the batch axis, and the number of labels."""
