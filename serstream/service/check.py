"""What `serstream run` would refuse, found without opening a socket."""

from __future__ import annotations

from pathlib import Path

from serstream.audio.file import FileSource
from serstream.config import Settings
from serstream.emotion.loading import load_model
from serstream.emotion.model import EmotionModel
from serstream.errors import ConfigError
from serstream.feed.publisher import server_keys
from serstream.rtp.datagrams import family_of
from serstream.rtp.streams import Streams


def check(settings: Settings, base: Path) -> EmotionModel:
    """Build everything that needs no socket, no microphone and no other process.

    Args:
        settings: what to check.
        base: folder that its relative paths start from.

    Returns:
        The model that it names.

    Raises:
        SerstreamError: something is not as `serstream run` needs it.
    """
    check_sources(settings)
    for port in settings.rtp:
        family_of(port.address)
        Streams(port, utc_offset=0.0)
    for file in settings.file:
        FileSource(file, base)
    server_keys(settings.feed, base)
    return load_model(settings.model, base)


def check_sources(settings: Settings) -> None:
    """There is a source, and no two share a UDP port.

    Raises:
        ConfigError: otherwise.
    """
    if not (settings.rtp or settings.microphone or settings.file):
        raise ConfigError(
            "no source: the configuration needs at least one [[rtp]], [[microphone]] or [[file]]"
        )
    taken: dict[tuple[str, int], str] = {}
    for port in settings.rtp:
        numbers = {port.port: "RTP"} if port.rtcp_mux else {port.port: "RTP", port.port + 1: "RTCP"}
        for number, what in numbers.items():
            user = f"{what} of [[rtp]] port = {port.port}"
            other = taken.setdefault((port.address, number), user)
            if other is not user:
                raise ConfigError(
                    f"UDP port {port.address}:{number} is wanted twice, for {other} and for {user}; give one "
                    "of them another (RTP ports are even, RTCP takes the next one unless rtcp_mux is set)"
                )
