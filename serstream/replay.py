"""Recordings through the daemon's own pipeline, as fast as the machine allows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path

from serstream.audio.file import FileSource
from serstream.config import FileSettings, RtpSettings, Settings
from serstream.emotion.model import EmotionModel
from serstream.errors import SourceError
from serstream.feed.messages import Message
from serstream.pipeline import Pipeline
from serstream.rtp.pcap import source_events
from serstream.types import Role, SourceEvent

CAPTURES = {".cap", ".pcap", ".pcapng"}
"""Names that network captures end in."""

EVENTS_PER_BATCH = 256
"""Source events whose windows are scored together."""


def recording_events(
    path: Path, roles: tuple[Role, ...], settings: Settings, base: Path = Path()
) -> Iterator[SourceEvent]:
    """What a recording or a network capture gives, without a clock.

    Args:
        path: of any format that libsndfile reads, or a capture of RTP.
        roles: one per channel; none: all unknown.
        settings: the first ``[[rtp]]`` says what the payload types and roles in a capture are.
        base: folder of the configuration file, that its ``sdp`` starts from.

    Raises:
        SourceError: the file cannot be used.
        ConfigError: payload types, SDP or keys of the configuration are not understood.
    """
    if path.suffix.lower() not in CAPTURES:
        return FileSource(FileSettings(path=str(path), roles=roles)).events()
    if roles:
        raise SourceError(
            f"file {path}: a capture has no channels; give roles to its streams under [[rtp]] roles"
        )
    rtp = settings.rtp[0] if settings.rtp else RtpSettings()
    return chain.from_iterable(source_events(path, rtp, base))


def replay(events: Iterable[SourceEvent], settings: Settings, model: EmotionModel) -> Iterator[Message]:
    """The messages that a recording gives, in the order in which the daemon would publish them."""
    pipeline = Pipeline(settings, model)
    iterator = iter(events)
    while batch := list(islice(iterator, EVENTS_PER_BATCH)):
        yield from pipeline.feed(batch)
