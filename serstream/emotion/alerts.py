"""Alerts: when a stream's smoothed emotion meets a rule of the configuration for long enough.

Synchronous and clock-free, like the tracker that it serves: time is the stream's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from serstream.config import AlertSettings
from serstream.emotion.affect import PLACES
from serstream.types import Role

GROUPS: Mapping[str, tuple[str, ...]] = {
    "negative": tuple(label for label, (_, valence) in PLACES.items() if valence < 0),
    "positive": tuple(label for label, (_, valence) in PLACES.items() if valence > 0),
}
"""Names that a rule may give instead of labels, by valence."""


@dataclass(frozen=True, slots=True)
class AlertChange:
    """A rule is met, or no longer."""

    rule: AlertSettings
    raised: bool
    since: float
    """Stream seconds at which what led to it began."""
    probability: float
    emotions: tuple[str, ...]
    """The rule's emotions that the model knows."""


@dataclass(slots=True)
class _Watch:
    """One rule on one stream."""

    rule: AlertSettings
    emotions: frozenset[str]
    raised: bool = False
    met_since: float | None = None
    """Stream seconds of the window that met the threshold first; None: not met."""
    speech_before: float = 0.0
    """Seconds of speech in the stream before that window."""
    cooling_until: float = 0.0


class StreamAlerts:
    """The alerts of one stream.

    A rule is raised when the sum of its emotions' smoothed probabilities has been at or above ``threshold``
    for ``for_s`` seconds of speech, and cleared when it falls below ``clear_below``; then it rests for
    ``cool_down_s``. Speech counts, not time, or a caller who is on hold would alarm by waiting.

    Args:
        rules: those of the configuration.
        role: the stream's.
    """

    def __init__(self, rules: Sequence[AlertSettings], role: Role):
        self.raised = 0
        """How many alerts were raised so far."""
        self._watches = [
            _Watch(rule, frozenset(_expand(rule.emotions))) for rule in rules if rule.role in ("any", role)
        ]

    def update(
        self, start: float, end: float, speech_s: float, smoothed: Mapping[str, float]
    ) -> list[AlertChange]:
        """Take one scored window.

        Args:
            start: stream seconds at which it began.
            end: at which it ended.
            speech_s: seconds of speech in the stream up to ``end``.
            smoothed: smoothed probability of each label.
        """
        changes = []
        for watch in self._watches:
            emotions = tuple(label for label in smoothed if label in watch.emotions)
            probability = min(1.0, sum(smoothed[label] for label in emotions))
            if _turns(watch, start, end, speech_s, probability):
                self.raised += watch.raised
                since = watch.met_since if watch.met_since is not None else start
                changes.append(AlertChange(watch.rule, watch.raised, since, round(probability, 4), emotions))
        return changes


def _turns(watch: _Watch, start: float, end: float, speech_s: float, probability: float) -> bool:
    """Bring a watch up to date; whether it is raised or cleared by this window."""
    rule = watch.rule
    if watch.raised:
        if probability >= rule.clear_below:
            return False
        watch.raised, watch.met_since = False, None
        watch.cooling_until = end + rule.cool_down_s
        return True
    if probability < rule.threshold:
        watch.met_since = None
        return False
    if watch.met_since is None:
        watch.met_since = start
        watch.speech_before = speech_s - (end - start)
    if end < watch.cooling_until or speech_s - watch.speech_before < rule.for_s:
        return False
    watch.raised = True
    return True


def _expand(names: Iterable[str]) -> Iterable[str]:
    for name in names:
        yield from GROUPS.get(name, (name,))
