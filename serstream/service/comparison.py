"""How a candidate compares with the active model on the same windows."""

from __future__ import annotations

import threading
from collections import Counter
from typing import TypedDict

from serstream.types import Scores


class Figures(TypedDict):
    """The fields of `serstream.service.status.ComparisonStatus` that a comparison knows."""

    windows: int
    agreement: float
    confidence_shift: float
    latency_ms: float
    emotions: dict[str, int]


class Comparison:
    """Sums since it began; may be written by one thread and read by another.

    Args:
        labels: of the candidate.
    """

    def __init__(self, labels: tuple[str, ...]):
        self._lock = threading.Lock()
        self._windows = self._agreed = 0
        self._shift = self._seconds = 0.0
        self._winners: Counter[str] = Counter({label: 0 for label in labels})

    def add(self, own: list[Scores], active: list[Scores], seconds: float) -> None:
        """A batch: what the candidate said in so many seconds, and what the active model did."""
        with self._lock:
            self._seconds += seconds
            for a, b in zip(own, active, strict=True):
                winner = a.winner
                self._windows += 1
                self._agreed += winner == b.winner
                self._shift += float(a.probabilities.max() - b.probabilities.max())
                self._winners[winner] += 1

    def figures(self) -> Figures:
        """What it has come to."""
        with self._lock:
            n = max(self._windows, 1)
            return {
                "windows": self._windows,
                "agreement": round(self._agreed / n, 4),
                "confidence_shift": round(self._shift / n, 4),
                "latency_ms": round(1000 * self._seconds / n, 3),
                "emotions": dict(self._winners),
            }
