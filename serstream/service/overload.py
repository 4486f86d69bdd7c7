"""How many windows there is time for: the measured cost of a window, turned into a limit."""

from __future__ import annotations

MIN_BATCH = 8
"""Smaller batches say little about what a window costs when there are many."""
MEMORY = 256.0
"""Windows over which the measured cost is averaged."""


class Capacity:
    """Measured capacity of scoring; clock-free.

    A batch never takes longer than ``max_delay_s``, and the next one waits no longer than that: so latency
    stays below twice ``max_delay_s`` and the rest of a turn, however many windows come.
    """

    def __init__(self, max_delay_s: float):
        self.max_delay_s = max_delay_s
        self.cost_s = 0.0
        """Seconds a window takes, on average; 0 until measured."""

    @property
    def limit(self) -> int | None:
        """Windows that one batch may hold; None as long as nothing was measured."""
        return max(1, int(self.max_delay_s / self.cost_s)) if self.cost_s else None

    def observe(self, n_windows: int, seconds: float) -> None:
        """A batch of so many windows took so long."""
        # A batch as large as the limit allows always counts: a machine that stood still once would otherwise
        # be held for slow for ever.
        if n_windows < min(MIN_BATCH, self.limit or MIN_BATCH):
            return
        weight = 1.0 if not self.cost_s else min(1.0, max(n_windows, MIN_BATCH) / MEMORY)
        self.cost_s += weight * (seconds / n_windows - self.cost_s)
