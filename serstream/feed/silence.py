"""Daemons that fall silent and are heard again: a line for each, once."""

from __future__ import annotations

from collections.abc import Mapping

SILENT_S = 3.0
"""Seconds after which a feed that says nothing is worth a line; it may take a moment to connect."""


class Silences:
    """Tells them from what `serstream.feed.Subscription.silent` says now and then.

    Args:
        advice: what to look at, behind the line of a silence.
    """

    def __init__(self, advice: str = ""):
        self._advice = advice
        self._told: set[str] = set()
        """Feeds of which it was said that they are silent."""

    def update(self, silent: Mapping[str, float]) -> list[str]:
        """Lines to be told now.

        Args:
            silent: feeds that say nothing, and for how many seconds.
        """
        begun = [feed for feed, seconds in silent.items() if seconds > SILENT_S and feed not in self._told]
        over = sorted(self._told - silent.keys())
        self._told = self._told.difference(over).union(begun)
        return [
            *(f"nothing heard from {feed} for {silent[feed]:.0f} s{self._advice}" for feed in begun),
            *(f"{feed} is heard again" for feed in over),
        ]
