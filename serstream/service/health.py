"""How the daemon does its work, as a value: told by `serstream status`, /metrics and ``systemctl status``."""

from __future__ import annotations

import msgspec

from serstream.rtp.status import PortStatus


class PortHealth(PortStatus, frozen=True, kw_only=True):
    """One RTP port of the daemon."""

    address: str
    """Local address that it is bound to; two may have the same ``port``."""

    @property
    def where(self) -> str:
        """``ADDRESS:PORT``, unique."""
        return f"{self.address}:{self.port}"


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """Counts since the start, and what is going on now."""

    sources: tuple[str, ...] = ()
    """Names of the sources that run."""
    stuck: tuple[str, ...] = ()
    """Of those that have not been heard of for long."""
    windows: dict[str, int] = {}
    """``scored``, and what is not scored by reason."""
    cpu_s: dict[str, float] = {}
    """Processor seconds by stage: ``receive`` of the RTP thread, the others of the main thread."""
    waiting_s: float = 0.0
    """Seconds of sound, over all streams, that wait for the pipeline."""
    dropped_s: float = 0.0
    """Seconds of sound dropped because the pipeline was too slow."""
    window_limit: int = 0
    """Windows that one turn has time to score; 0 as long as that was not measured."""
    muted: int = 0
    """Streams that there is no time to hear, the latest to begin."""
    muted_s: float = 0.0
    """Seconds of sound of streams while they were muted."""
    published: int = 0
    """Messages."""
    overflowed: int = 0
    """Messages during which the queue of a subscriber was full."""
    repeated: dict[str, int] = {}
    """Messages sent again because a subscriber had missed them, by its key's name (empty without keys)."""
    subscribers: int = 0
    """Connected now."""
    snapshots: int = 0
    refused_clients: int = 0
    """Connections turned away for their keys."""
    feed_full: int = 0
    """How often all connections to the feed were cut because there were too many."""
    reloads: int = 0
    reload_error: str = ""
    """Why the last reload was refused, or which sources it could not open; empty when all went well."""
    ports: tuple[PortHealth, ...] = ()
    """RTP ports."""
    microphone_lost_s: dict[str, float] = {}
    """Seconds of sound lost to overflows, by microphone."""

    def line(self, streams: int, model: str) -> str:
        """For ``systemctl status``: counts are exact, nothing in it changes while nothing happens."""
        unscored = sum(count for reason, count in self.windows.items() if reason != "scored")
        parts = [
            f"{streams} streams",
            f"{self.windows.get('scored', 0)} windows scored, {unscored} not",
            model,
        ]
        if self.muted:
            parts.append(f"OVERLOAD: {self.muted} streams muted")
        if self.stuck:
            parts.append(f"STUCK: {', '.join(self.stuck)}")
        if self.reload_error:
            parts.append("last reload failed")
        return "; ".join(parts)
