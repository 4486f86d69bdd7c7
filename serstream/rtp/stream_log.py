"""What is logged of the streams of a port: a line for each, unless a sender makes more than anyone reads."""

from __future__ import annotations

import logging
from collections import Counter

from serstream.pacing import ALWAYS, Pacing

log = logging.getLogger(__name__)

LINES = 50
"""From one `tell` to the next, so a second: enough for 750 calls of two streams a minute. The journal takes
10,000 in 30 s from a service; beyond that it drops warnings, too."""


class StreamLog:
    """Logs what happens to streams; what there is no line for is counted in the next `tell`.

    Args:
        where: the port, as each line begins.
    """

    def __init__(self, where: str):
        self._where = where
        self._left = LINES
        self._held: Counter[str] = Counter()
        """Streams without a line since the last one that counted them, by what happened to them."""
        self._pacing = Pacing()

    def add(self, stream: str, fate: str, detail: str) -> None:
        """Log what happened to a stream.

        Args:
            stream: its name.
            fate: what happened, in words that are the same for every stream.
            detail: what else there is to say.
        """
        if self._left:
            self._left -= 1
            log.info("%s: stream %s %s%s", self._where, stream, fate, detail)
        else:
            self._held[fate] += 1

    def tell(self, now: float) -> None:
        """There may be lines again; those without one are counted, ever more rarely while it goes on.

        Args:
            now: monotonic seconds; call it about once a second.
        """
        self._left = LINES
        if self._held and self._pacing.is_due(now):
            self._pacing.tell(now)
            told = ", ".join(f"{count} times '{fate}'" for fate, count in self._held.items())
            log.info("%s: streams without a line of their own: %s", self._where, told, extra=ALWAYS)
            self._held.clear()
