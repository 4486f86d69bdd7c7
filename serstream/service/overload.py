"""How much there is time for: the measured cost of a window and of a stream, turned into limits."""

from __future__ import annotations

MIN_BATCH = 8
"""Smaller batches say little about what a window costs when there are many."""
MEMORY = 256.0
"""Windows over which the measured cost is averaged."""
UTILISATION = 0.8
"""Share of the time that hearing streams may take: the rest is for bursts."""
SPARE = 0.7
"""Below this share more streams are heard again, the more the more is left to it."""
CLEARLY = 0.85
"""If less than this share of the streams can be borne, there are too many; if more, only when sound waits no
less at the next review."""
REVIEW_S = 1.0
"""How often the number of streams is looked at."""


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


class StreamLimit:
    """How many streams there is time to hear; clock-free.

    Sound that waits says that there are too many. All of them would lose something then, and nearly all of
    their windows with it: so some are not heard at all, and the others completely. A machine that only stood
    still is not overloaded: what it takes in afterwards, it works off as fast as ever.
    """

    def __init__(self, max_delay_s: float):
        self.max_delay_s = max_delay_s
        self.streams: int | None = None
        """None as long as all of them can be heard."""
        self._reviewed = self._busy_s = 0.0
        self._age_s = 0.0
        """How long the sound of the turn at the last review had waited."""

    def observe(self, sound_s: float, age_s: float, seconds: float, streams: int, now: float) -> None:
        """A turn has heard sound.

        Args:
            sound_s: seconds of sound that it heard, over all streams.
            age_s: how long that had waited when the turn began.
            seconds: how long the turn took.
            streams: that are alive.
            now: monotonic seconds.
        """
        self._busy_s += seconds
        elapsed = now - self._reviewed
        if elapsed < REVIEW_S:
            return
        limit, busy = self.streams or streams, self._busy_s / elapsed
        late_s = self.max_delay_s / 4
        if age_s > late_s and seconds:
            bearable = max(1, int(UTILISATION * sound_s / seconds))
            if bearable < CLEARLY * limit or age_s >= self._age_s > late_s:
                limit = min(limit, bearable)
        elif self.streams is not None and busy < SPARE:
            limit += max(1, int((SPARE - busy) * limit))
        self.streams = limit if limit < streams else None
        self._reviewed, self._busy_s, self._age_s = now, 0.0, age_s
