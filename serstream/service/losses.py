"""What is lost, as warnings: one line for each kind of loss, with all ports in it."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field

from serstream.pacing import ALWAYS, Pacing
from serstream.service.health import Health

log = logging.getLogger(__name__)

NAMED_PORTS = 10
"""Those that lost most; a line says how many others there are."""


@dataclass(slots=True)
class _Told:
    """What the lines about a kind of loss have said so far."""

    counts: Counter[str] = field(default_factory=Counter)
    """By port."""
    pacing: Pacing = field(default_factory=Pacing)


class Losses:
    """Tells all that is lost, ever more rarely while it goes on; the next line has what was not told yet."""

    def __init__(self) -> None:
        self._told: dict[str, _Told] = {}

    def report(self, health: Health, now: float) -> None:
        """Warn of what is new.

        Args:
            health: with the counts since the daemon or a port began.
            now: monotonic seconds.
        """
        for kind, counts in _lost(health).items():
            told = self._told.setdefault(kind, _Told())
            for port, count in counts.items():  # one that was opened anew counts from nothing
                told.counts[port] = min(told.counts[port], count)
            news = counts - told.counts
            if not news or not told.pacing.is_due(now):
                continue
            told.pacing.tell(now)
            told.counts.update(news)
            log.warning("lost: %s: %s", kind, _describe(news), extra=ALWAYS)


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
        for kind, count in dropped.items():
            lost.setdefault(kind, Counter())[port.where] = count
    return lost


def _describe(news: Counter[str]) -> str:
    named = [f"{count} at {port}" if port else f"{count}" for port, count in news.most_common(NAMED_PORTS)]
    others = len(news) - len(named)
    return ", ".join(named) + (f" and more at {others} other ports" if others else "")
