"""How often one trouble is told: at once when it is news, ever more rarely while it goes on.

A sender that counts paces itself, logs with `ALWAYS`, and has in its next line all that it held back; what
others log is paced by `serstream.service.log_limit`.
"""

from __future__ import annotations

from dataclasses import dataclass

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0

ALWAYS = {"always": True}
"""Given as ``extra``: a line that is never held back: it stands for many, or a person waits for it."""


@dataclass(slots=True)
class Pacing:
    """Of lines about one trouble."""

    at: float = float("-inf")
    """When the last line was told."""
    pause_s: float = FIRST_PAUSE_S
    """How long others are held back."""

    def is_due(self, now: float) -> bool:
        """Whether the next line need not wait; nor does it after the clock was set back."""
        return not self.at <= now < self.at + self.pause_s

    def is_over(self, now: float) -> bool:
        """Whether there was nothing for so long that the next line is news."""
        return not self.at <= now < self.at + self.pause_s + LONGEST_PAUSE_S

    def tell(self, now: float) -> None:
        """A line is told."""
        self.pause_s = FIRST_PAUSE_S if self.is_over(now) else min(2 * self.pause_s, LONGEST_PAUSE_S)
        self.at = now
