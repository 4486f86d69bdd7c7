"""The one queue between the source threads and the pipeline."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence

from serstream.types import AudioBlock, AudioChunk, SourceEvent

PATIENCE_S = 2.0
"""Seconds of sound at which a file waits too: enough for full batches, too little to delay live streams."""


class Intake:
    """Bounded by seconds of sound; when it is full, the oldest sound goes first.

    Starts and ends of streams are never dropped. What is dropped leaves a hole that the pipeline sees by
    `AudioChunk.start`; `dropped_s` counts it.
    """

    def __init__(self, capacity_s: float):
        self._capacity_s = capacity_s
        self._events: deque[SourceEvent] = deque()
        self._held_s = 0.0
        lock = threading.RLock()
        self._arrival = threading.Condition(lock)
        self._room = threading.Condition(lock)
        self.waited_s = 0.0
        """Seconds of sound that the last `take` found."""
        self.dropped_s = 0.0
        """Seconds of sound dropped so far because the pipeline was too slow."""

    def put(self, events: list[SourceEvent]) -> None:
        """Add events in order; called by source threads."""
        with self._arrival:
            for event in events:
                self._events.append(event)
                if isinstance(event, AudioChunk | AudioBlock):
                    self._held_s += event.duration_s
            if self._held_s > self._capacity_s:
                self._drop_oldest()
            self._arrival.notify()

    def put_patiently(self, events: list[SourceEvent]) -> None:
        """As `put`, but wait while much is waiting: for a file, which can wait and so loses nothing."""
        with self._room:
            self._room.wait_for(lambda: self._held_s < PATIENCE_S)
        self.put(events)

    def take(self, timeout_s: float) -> list[SourceEvent]:
        """Everything that has arrived, in order; waits up to ``timeout_s`` for something."""
        with self._arrival:
            if not self._events:
                self._arrival.wait(timeout_s)
            events = list(self._events)
            self._events.clear()
            self.waited_s, self._held_s = self._held_s, 0.0
            self._room.notify_all()
            return events

    def _drop_oldest(self) -> None:
        kept: deque[SourceEvent] = deque()
        excess = self._held_s - self._capacity_s
        for event in self._events:
            if isinstance(event, AudioChunk | AudioBlock) and excess > 0:
                excess -= event.duration_s
                self._held_s -= event.duration_s
                self.dropped_s += event.duration_s
            else:
                kept.append(event)
        self._events = kept


def mean_age_s(events: Sequence[SourceEvent], now: float) -> float:
    """How long ago the live sound among the events was received, on average; 0 when there is none.

    Args:
        events: as `Intake.take` returns them.
        now: monotonic seconds.
    """
    arrived: list[float] = []
    for event in events:
        if isinstance(event, AudioBlock):
            arrived += event.arrived
        elif isinstance(event, AudioChunk) and event.arrived:
            arrived.append(event.arrived)
    return now - sum(arrived) / len(arrived) if arrived else 0.0
