"""Recordings through the daemon's own pipeline, as fast as the machine allows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from serstream.config import Settings
from serstream.emotion.model import EmotionModel
from serstream.feed.messages import Message
from serstream.pipeline import Pipeline
from serstream.types import SourceEvent

EVENTS_PER_BATCH = 256
"""Source events whose windows are scored together."""


def replay(events: Iterable[SourceEvent], settings: Settings, model: EmotionModel) -> Iterator[Message]:
    """The messages that a recording gives, in the order in which the daemon would publish them."""
    pipeline = Pipeline(settings, model)
    iterator = iter(events)
    while batch := list(islice(iterator, EVENTS_PER_BATCH)):
        yield from pipeline.feed(batch)
