"""What alert rules would have raised in recorded calls, so that they can be tuned on them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from serstream.config import AlertSettings
from serstream.emotion.alerts import StreamAlerts
from serstream.feed.messages import WindowEmotion
from serstream.feed.recording import Party, follow


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


def try_rules(recordings: Iterable[Path], rules: Sequence[AlertSettings]) -> list[Trial]:
    """Put recorded calls through rules; one result for each rule.

    Raises:
        FeedError: see `serstream.feed.recording.follow`.
    """
    trials = [Trial(rule) for rule in rules]
    for recording in recordings:
        watched: dict[Party, list[_Watch]] = {}
        for _, party, message in follow(recording):
            if party and party not in watched:
                watched[party] = [_Watch(trial, party) for trial in trials if _concerns(trial.rule, party)]
            if party and isinstance(message, WindowEmotion):
                for watch in watched[party]:
                    watch.take(message)
        for watch in chain.from_iterable(watched.values()):
            watch.close()
    return trials


def _concerns(rule: AlertSettings, party: Party) -> bool:
    return rule.role in ("any", party.role)


class _Watch:
    """One rule on one party."""

    def __init__(self, trial: Trial, party: Party):
        self._trial = trial
        self._party = party
        self._alerts = StreamAlerts([trial.rule], party.role)
        self._raised_at: float | None = None

    def take(self, window: WindowEmotion) -> None:
        for change in self._alerts.update(window.start, window.end, window.speech_s, window.smoothed):
            self._clear(window.end)
            if change.raised:
                self._raised_at = window.end
                self._trial.raised += 1

    def close(self) -> None:
        self._clear(self._party.end)
        self._trial.hours += self._party.end / 3600

    def _clear(self, at: float) -> None:
        if self._raised_at is not None:
            self._trial.raised_s += at - self._raised_at
            self._raised_at = None
