"""What was lost since the last look, as warnings: one line for each kind of loss, with all ports in it."""

from __future__ import annotations

import logging
from collections import Counter

from serstream.rtp.datagrams import TOO_LONG
from serstream.service.health import Health

log = logging.getLogger(__name__)

NAMED_PORTS = 10
"""Those that lost most; a line says how many others there are."""


class Losses:
    """Remembers what it has told."""

    def __init__(self) -> None:
        self._told: dict[str, Counter[str]] = {}

    def report(self, health: Health) -> None:
        """Warn of what is new."""
        lost = _lost(health)
        for kind, counts in lost.items():
            if news := counts - self._told.get(kind, Counter()):
                # The kind comes first: by it the log tells what goes on from what is new.
                log.warning("lost: %s: %s", kind, _describe(news))
        self._told = lost


def _lost(health: Health) -> dict[str, Counter[str]]:
    """Kind of loss to how much of it, by port; the pipeline's has none."""
    lost = {
        "windows shed by overload": Counter({"": health.windows.get("overload", 0)}),
        "seconds of sound dropped by overload": Counter({"": round(health.dropped_s)}),
        "seconds of sound of streams muted by overload": Counter({"": round(health.muted_s)}),
    }
    for port in health.ports:
        dropped = {f"datagrams dropped, {reason}": count for reason, count in port.dropped.items()}
        dropped["datagrams dropped, socket buffer full (raise receive_buffer_kb)"] = port.kernel_drops
        dropped[f"datagrams dropped, {TOO_LONG}"] = port.truncated
        for kind, count in dropped.items():
            lost.setdefault(kind, Counter())[port.where] = count
    return lost


def _describe(news: Counter[str]) -> str:
    named = [f"{count} at {port}" if port else f"{count}" for port, count in news.most_common(NAMED_PORTS)]
    others = len(news) - len(named)
    return ", ".join(named) + (f" and more at {others} other ports" if others else "")
