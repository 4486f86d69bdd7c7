"""What the daemon tells of itself and of its models, as values."""

from __future__ import annotations

import msgspec

import serstream
from serstream.service.health import Health


class Refusal(msgspec.Struct, frozen=True):
    """Why a model did not become what it was to be, or could not go on as that."""

    model: str
    reason: str
    time: str
    """UTC, RFC 3339."""


class ComparisonStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A candidate beside the active model; see `serstream.feed.messages.ComparisonReport`."""

    name: str
    windows: int = 0
    agreement: float = 0.0
    confidence_shift: float = 0.0
    latency_ms: float = 0.0
    emotions: dict[str, int] = {}


class ShadowStatus(ComparisonStatus, frozen=True, kw_only=True):
    """A candidate that is only compared."""

    skipped: int = 0


class CanaryStatus(ComparisonStatus, frozen=True, kw_only=True):
    """A candidate that scores a share of the calls."""

    share: float
    calls: int = 0
    errors: int = 0


class ModelStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The model in use, and what is going on around it."""

    name: str
    """``name@version``."""
    path: str
    labels: tuple[str, ...]
    providers: tuple[str, ...]
    """Execution providers that its session really uses, best first."""
    previous: str = ""
    """Where a rollback goes; empty: nowhere."""
    loading: str = ""
    """What is being inspected and loaded beside it."""
    fallback: bool = False
    """Whether the one before scores, because the one that should could not be loaded or failed."""
    swaps: int = 0
    """Models exchanged since the start."""
    refusals: int = 0
    refusal: Refusal | None = None
    """The last one."""
    shadow: ShadowStatus | None = None
    canary: CanaryStatus | None = None


class Status(msgspec.Struct, frozen=True, kw_only=True, tag_field="reply", tag="status"):
    """Answers a `StatusRequest` or a `Reload` of `serstream.service.control`."""

    version: str = serstream.__version__
    """Of serstream."""
    pid: int
    started: str
    """UTC, RFC 3339."""
    uptime_s: float
    feed: str
    """Endpoint of the feed."""
    streams: int
    """Alive now."""
    model: ModelStatus
    health: Health = Health()
