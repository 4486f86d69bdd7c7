"""The one queue between the source threads and the pipeline."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence

from serstream.types import AudioBlock, AudioChunk, SourceEvent

PATIENCE_S = 2.0
"""Seconds of sound at which a file waits too: enough for full batches, too little to delay live streams."""

TAKEN_SAMPLES = 8_000_000
"""Samples after which `Intake.take` leaves the rest to the next turn: 1,000 s of G.711, a second or two of
work (a second at 44.1 kHz costs 5.5 times as much). So neither feed nor watchdog waits long."""


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

    @property
    def is_empty(self) -> bool:
        """Whether `take` has left nothing, and nothing has come since."""
        return not self._events

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
        """What has arrived, in order, up to `TAKEN_SAMPLES`; waits up to ``timeout_s`` for something."""
        with self._arrival:
            if not self._events:
                self._arrival.wait(timeout_s)
            self.waited_s = self._held_s
            events: list[SourceEvent] = []
            n_samples = 0.0
            while self._events and n_samples < TAKEN_SAMPLES:
                event = self._events.popleft()
                events.append(event)
                if isinstance(event, AudioChunk | AudioBlock):
                    self._held_s -= event.duration_s
                    n_samples += event.duration_s * event.sample_rate
            if not self._events:
                self._held_s = 0.0  # what is left of it are rounding errors
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
