"""Warnings of one kind come at growing intervals, a second to a minute, however much trouble there is."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from typing import TypeAlias

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
MAX_KINDS = 256
"""Kinds that are told apart by what they concern; beyond that, by their place alone."""

ALWAYS = {"always": True}
"""Given as ``extra``: a line that is never held back, because a person waits for it."""

_Kind: TypeAlias = tuple[str, int, str]


@dataclass(slots=True)
class _Told:
    """The last line of a kind."""

    at: float
    pause_s: float = FIRST_PAUSE_S
    """How long others of its kind are held back."""
    held: int = 0

    def age_s(self, record: logging.LogRecord) -> float:
        """Infinite after the wall clock was set back."""
        return record.created - self.at if record.created >= self.at else float("inf")

    def is_over(self, record: logging.LogRecord) -> bool:
        """Whether there was nothing of its kind for so long that the next one is news."""
        return self.age_s(record) >= self.pause_s + LONGEST_PAUSE_S


class GrowingPauses(logging.Filter):
    """Holds back warnings and errors that follow one of their kind within a second; the next says how many.

    While the trouble lasts the pause doubles, up to a minute. A kind is a place in the code that logs, and
    what it logs of: its first argument, if that is text, as ``rtp 127.0.0.1:5004``. What is counted is not
    lost with the line: counters of all that may come often are in the status and the metrics.
    """

    def __init__(self) -> None:
        super().__init__()
        # A handler asks its filters before it takes its own lock.
        self._lock = threading.Lock()
        self._told: dict[_Kind, _Told] = {}
        self._tidied = _Told(float("-inf"))

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is told; it may get a word about those before it."""
        if record.levelno < logging.WARNING or hasattr(record, "always"):
            return True
        with self._lock:
            kind = self._kind(record)
            last = self._told.get(kind)
            if last and last.age_s(record) < last.pause_s:
                last.held += 1
                return False
            told = self._told[kind] = _Told(record.created)
            if last and not last.is_over(record):
                told.pause_s = min(2 * last.pause_s, LONGEST_PAUSE_S)
            if last and last.held:
                record.msg = f"{record.msg} (and {last.held} more like it)"
        return True

    def _kind(self, record: logging.LogRecord) -> _Kind:
        first = record.args[0] if isinstance(record.args, tuple) and record.args else ""
        kind = record.pathname, record.lineno, first if isinstance(first, str) else ""
        if kind in self._told:
            return kind
        if len(self._told) >= MAX_KINDS and self._tidied.age_s(record) >= FIRST_PAUSE_S:
            self._tidied = _Told(record.created)
            self._told = {known: told for known, told in self._told.items() if not told.is_over(record)}
        return kind if len(self._told) < MAX_KINDS else (*kind[:2], "")
