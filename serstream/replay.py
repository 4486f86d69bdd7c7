"""Recordings through the daemon's own pipeline, as fast as the machine allows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from serstream.audio.file import file_events
from serstream.config import FileSettings, Settings
from serstream.emotion.model import EmotionModel
from serstream.feed.messages import Message
from serstream.pipeline import Pipeline
from serstream.types import Role, SourceEvent

EVENTS_PER_BATCH = 256
"""Source events whose windows are scored together."""


def recording_events(path: Path, roles: tuple[Role, ...] = ()) -> Iterator[SourceEvent]:
    """What a recording gives, without a clock.

    Args:
        path: of any format that libsndfile reads.
        roles: one per channel; none: all unknown.

    Raises:
        SourceError: at once, not at the first event.
    """
    return file_events(FileSettings(path=str(path), roles=roles, realtime=False))


def replay(events: Iterable[SourceEvent], settings: Settings, model: EmotionModel) -> Iterator[Message]:
    """The messages that a recording gives, in the order in which the daemon would publish them."""
    pipeline = Pipeline(settings, model)
    iterator = iter(events)
    while batch := list(islice(iterator, EVENTS_PER_BATCH)):
        yield from pipeline.feed(batch)
