"""Which windows are scored when there is no time for all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count
from typing import TypeAlias

from serstream.types import SpeechWindow

Division: TypeAlias = tuple[list[SpeechWindow], list[SpeechWindow]]
"""Admitted and shed."""


def admit(windows: Sequence[SpeechWindow], limit: int, shed: Mapping[str, int]) -> Division:
    """At most ``limit`` of the windows, and the rest; both in their order.

    Final windows stay longest. Of the others each stream keeps its newest first, so that all streams are
    heard before one is heard twice; among equals the stream that has lost most so far goes first.

    Args:
        windows: of all streams, those of one stream in order.
        limit: how many there is time for.
        shed: windows that each stream has lost to overload so far.
    """
    ranks: dict[str, count[int]] = {}
    urgency = []
    for i in reversed(range(len(windows))):
        window = windows[i]
        rank = next(ranks.setdefault(window.stream, count()))
        urgency.append((not window.final, rank, -shed.get(window.stream, 0), i))
    admitted = {i for *_, i in sorted(urgency)[:limit]}
    return (
        [window for i, window in enumerate(windows) if i in admitted],
        [window for i, window in enumerate(windows) if i not in admitted],
    )
