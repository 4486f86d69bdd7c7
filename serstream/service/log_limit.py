"""Warnings of one kind come at growing intervals, a second to a minute, however much trouble there is."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field
from typing import TypeAlias

from serstream.pacing import FIRST_PAUSE_S, Pacing

MAX_KINDS = 256
"""Kinds that are told apart by what they concern; beyond that, by their place alone."""

_Kind: TypeAlias = tuple[str, int, str]


@dataclass(slots=True)
class _Told:
    """The lines of a kind."""

    pacing: Pacing = field(default_factory=Pacing)
    held: int = 0
    """Since the last one."""


class GrowingPauses(logging.Filter):
    """Holds back warnings and errors that follow one of their kind within a second; the next says how many.

    While the trouble lasts the pause doubles, up to a minute. A kind is a place in the code that logs, and
    what it logs of: its first argument, if that is text, as ``rtp 127.0.0.1:5004``. What is held back is
    counted in lines: a sender whose lines stand for many paces itself, see `serstream.pacing`.
    """

    def __init__(self) -> None:
        super().__init__()
        # A handler asks its filters before it takes its own lock.
        self._lock = threading.Lock()
        self._told: dict[_Kind, _Told] = {}
        self._tidied_at = float("-inf")

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is told; it may get a word about those before it."""
        if record.levelno < logging.WARNING or hasattr(record, "always"):
            return True
        with self._lock:
            kind = self._kind(record)
            told = self._told.setdefault(kind, _Told())
            if not told.pacing.is_due(record.created):
                told.held += 1
                return False
            told.pacing.tell(record.created)
            if told.held:
                record.msg = f"{record.msg} (and {told.held} more like it)"
            told.held = 0
        return True

    def _kind(self, record: logging.LogRecord) -> _Kind:
        first = record.args[0] if isinstance(record.args, tuple) and record.args else ""
        kind = record.pathname, record.lineno, first if isinstance(first, str) else ""
        if kind in self._told:
            return kind
        if len(self._told) >= MAX_KINDS and not 0 <= record.created - self._tidied_at < FIRST_PAUSE_S:
            self._tidied_at = record.created
            self._told = {
                known: told for known, told in self._told.items() if not told.pacing.is_over(record.created)
            }
        return kind if len(self._told) < MAX_KINDS else (*kind[:2], "")
