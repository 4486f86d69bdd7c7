"""At most one warning a second of each kind, however fast the trouble comes."""

from __future__ import annotations

import logging
import threading

INTERVAL_S = 1.0


class OncePerSecond(logging.Filter):
    """Holds back warnings and errors that follow one of their kind within a second; the next says how many.

    A kind is a place in the code that logs. What is counted is not lost with the line: counters of all that
    may come often are in the status and the metrics.
    """

    def __init__(self) -> None:
        super().__init__()
        # A handler asks its filters before it takes its own lock.
        self._lock = threading.Lock()
        self._told: dict[tuple[str, int], float] = {}
        self._held: dict[tuple[str, int], int] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is told; it may get a word about those before it."""
        if record.levelno < logging.WARNING:
            return True
        kind = record.pathname, record.lineno
        with self._lock:
            told = self._told.get(kind)
            # The wall clock may have been set back.
            if told is not None and 0 <= record.created - told < INTERVAL_S:
                self._held[kind] = self._held.get(kind, 0) + 1
                return False
            self._told[kind] = record.created
            if held := self._held.pop(kind, 0):
                record.msg = f"{record.msg} (and {held} more like it)"
        return True
