"""What alert rules would have raised in recorded calls, so that they can be tuned on them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from serstream.config import AlertSettings
from serstream.emotion.alerts import StreamAlerts
from serstream.feed.recording import Call, Party


@dataclass(slots=True)
class Trial:
    """What one rule would have done."""

    rule: AlertSettings
    raised: int = 0
    raised_s: float = 0.0
    """Stream seconds during which it was raised."""
    hours: float = 0.0
    """Stream hours of the roles that it watches."""

    @property
    def per_hour(self) -> float:
        """Alerts per hour of stream time."""
        return self.raised / self.hours if self.hours else 0.0


def try_rules(calls: Iterable[Call], rules: Sequence[AlertSettings]) -> list[Trial]:
    """Put recorded calls through rules; one result for each rule."""
    trials = [Trial(rule) for rule in rules]
    for call in calls:
        for party in call.parties.values():
            for trial in trials:
                if trial.rule.role in ("any", party.role):
                    _watch(party, trial)
    return trials


def _watch(party: Party, trial: Trial) -> None:
    alerts = StreamAlerts([trial.rule], party.role)
    since: float | None = None
    for window in party.windows:
        for change in alerts.update(window.start, window.end, window.speech_s, window.smoothed):
            if since is not None:
                trial.raised_s += window.end - since
            since = window.end if change.raised else None
    if since is not None:
        trial.raised_s += party.end - since
    trial.raised += alerts.raised
    trial.hours += party.end / 3600
