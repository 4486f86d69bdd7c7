"""At most one warning a second of each kind, however fast the trouble comes."""

from __future__ import annotations

import logging
import threading
from typing import TypeAlias

INTERVAL_S = 1.0
MAX_KINDS = 256
"""Kinds that are told apart by what they concern; beyond that, in one second, by their place alone."""

ALWAYS = {"always": True}
"""Given as ``extra``: a line that is never held back, because a person waits for it."""

_Kind: TypeAlias = tuple[str, int, str]


class OncePerSecond(logging.Filter):
    """Holds back warnings and errors that follow one of their kind within a second; the next says how many.

    A kind is a place in the code that logs, and what it logs of: its first argument, if that is text, as
    ``rtp 127.0.0.1:5004``. What is counted is not lost with the line: counters of all that may come often are
    in the status and the metrics.
    """

    def __init__(self) -> None:
        super().__init__()
        # A handler asks its filters before it takes its own lock.
        self._lock = threading.Lock()
        self._told: dict[_Kind, float] = {}
        self._held: dict[_Kind, int] = {}
        self._tidied = float("-inf")

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is told; it may get a word about those before it."""
        if record.levelno < logging.WARNING or hasattr(record, "always"):
            return True
        with self._lock:
            kind = self._kind(record)
            if kind in self._told and _is_recent(self._told[kind], record):
                self._held[kind] = self._held.get(kind, 0) + 1
                return False
            self._told[kind] = record.created
            if held := self._held.pop(kind, 0):
                record.msg = f"{record.msg} (and {held} more like it)"
        return True

    def _kind(self, record: logging.LogRecord) -> _Kind:
        first = record.args[0] if isinstance(record.args, tuple) and record.args else ""
        kind = record.pathname, record.lineno, first if isinstance(first, str) else ""
        if kind in self._told:
            return kind
        if len(self._told) >= MAX_KINDS and not _is_recent(self._tidied, record):
            self._tidied = record.created
            self._told = {known: told for known, told in self._told.items() if _is_recent(told, record)}
            self._held = {known: held for known, held in self._held.items() if known in self._told}
        return kind if len(self._told) < MAX_KINDS else (*kind[:2], "")


def _is_recent(told: float, record: logging.LogRecord) -> bool:
    # The wall clock may have been set back.
    return 0 <= record.created - told < INTERVAL_S
