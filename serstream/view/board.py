"""What the live view knows: a row for each stream, in the order in which a supervisor should look at them.

Without clock and terminal: events and ``now`` in, rows out.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from itertools import chain
from typing import Literal, get_args

from serstream.feed.messages import (
    Alert,
    CallEnded,
    CallStarted,
    CanaryReport,
    ComparisonReport,
    Event,
    Gap,
    Heartbeat,
    ModelChanged,
    ModelRefused,
    Mute,
    StreamEnded,
    UtteranceEmotion,
    WindowEmotion,
    WindowUnscored,
)
from serstream.types import Role, Severity

TREND_BUCKET_S = 5.0
"""Stream seconds that one step of a trend stands for."""
TREND_BUCKETS = 720
"""One hour; older steps are forgotten."""
NOTES = 200
"""Utterances, alerts and mutings remembered per stream for its call's page."""
CANDIDATE_FOR_S = 12.0
"""A shadow or canary that is not reported for so long is over: reports come every 5 s."""
ENDED_FOR_S = 20.0
"""How long an ended stream stays on the board."""
SEVERITIES: tuple[Severity, ...] = get_args(Severity)
"""Least first."""

Order = Literal["attention", "call", "duration", "loss"]
ORDERS: tuple[Order, ...] = get_args(Order)


@dataclass(slots=True)
class Step:
    """The mean of what was felt in one bucket of stream time."""

    number: int
    """Bucket, from the stream's start."""
    windows: int
    valence: float
    """Mean over its windows, smoothed."""
    emotion: str
    """The last window's, smoothed."""


@dataclass(slots=True)
class Row:
    """One stream."""

    call: str
    stream: str
    role: Role
    source: str
    began: str = ""
    """UTC, RFC 3339."""
    heard_at: float = 0.0
    """Monotonic: when its last message came."""
    end: float = 0.0
    """Stream seconds heard so far."""
    window: WindowEmotion | None = None
    unscored: str = ""
    """Why the last window was not scored; empty when it was."""
    muted: bool = False
    """There is no time to hear it."""
    speech_s: float = 0.0
    lost_s: float = 0.0
    ended: bool = False
    gaps: int = 0
    """Messages of this stream that were lost for good."""
    alerts: dict[str, Alert] = field(default_factory=dict)
    """Raised now, by rule."""
    trend: deque[Step] = field(default_factory=lambda: deque(maxlen=TREND_BUCKETS))
    notes: deque[UtteranceEmotion | Alert | Mute] = field(default_factory=lambda: deque(maxlen=NOTES))

    def age(self, now: float) -> float:
        """Seconds since the stream began, as far as the feed tells."""
        return self.end if self.ended else self.end + max(0.0, now - self.heard_at)

    @property
    def severity(self) -> int:
        """Of its worst raised alert: 0 none, then 1 for the least."""
        return max((SEVERITIES.index(alert.severity) + 1 for alert in self.alerts.values()), default=0)

    @property
    def mood(self) -> float:
        """Smoothed valence of late, averaged over three steps of the trend."""
        late = list(self.trend)[-3:]
        return sum(step.valence for step in late) / len(late) if late else 0.0


class Board:
    """All streams that a supervisor watches."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        """Messages by type since the view was opened, and ``lost`` ones."""
        self.model = ""
        """The active one."""
        self._labels: tuple[str, ...] = ()
        """Of the active model."""
        self._rows: dict[tuple[str, str], Row] = {}
        self._candidates: dict[str, tuple[ComparisonReport, float]] = {}
        """The last report of a shadow and of a canary, and when it came."""

    def update(self, event: Event, now: float) -> None:
        """Take one event of the feed."""
        if isinstance(event, Gap):
            self._miss(event)
            return
        self.counts[event.type] += 1
        self.model = self.model or event.model
        match event:
            case ComparisonReport():
                self._candidates[event.type] = event, now
                return
            case ModelChanged():
                self.model, self._labels = event.model, event.labels
                self._drop_candidate(event.model)
                return
            case ModelRefused():
                self._drop_candidate(event.candidate)
                return
            case Heartbeat() | CallStarted():
                return
            case CallEnded():
                for stream in event.streams:
                    if row := self._rows.get((event.call, stream)):
                        row.ended = True
                return
        row = self._rows.get((event.call, event.stream))
        if row is None or row.ended:
            row = Row(event.call, event.stream, event.role, event.source)
            self._rows[event.call, event.stream] = row
        row.heard_at = now
        row.end = max(row.end, event.end)
        row.began = row.began or event.time
        match event:
            case WindowEmotion():
                self._window(row, event)
            case WindowUnscored():
                row.unscored = event.reason
                row.speech_s, row.lost_s = event.speech_s, event.lost_s
            case UtteranceEmotion():
                row.notes.append(event)
            case Alert():
                row.notes.append(event)
                row.alerts.pop(event.rule, None)
                if event.state == "raised":
                    row.alerts[event.rule] = event
            case Mute():
                row.notes.append(event)
                row.muted = event.state == "muted"
            case StreamEnded():
                row.ended, row.muted = True, False
                row.alerts.clear()
                row.speech_s, row.lost_s = event.speech_s, event.lost_s

    @property
    def labels(self) -> tuple[str, ...]:
        """All that a row may be about: models with other labels may score at the same time, or one by one."""
        each = {tuple(row.window.probabilities) for row in self._rows.values() if row.window}
        return tuple(sorted({*self._labels, *chain.from_iterable(each)}))

    def rows(
        self, now: float, order: Order = "attention", text: str = "", role: Role | None = None
    ) -> list[Row]:
        """The rows to show, first first.

        Args:
            now: monotonic seconds; streams that ended a while ago are dropped.
            order: what to sort by.
            text: only calls, streams, roles, emotions or alerts that contain it.
            role: only this one.
        """
        for key, row in list(self._rows.items()):
            if row.ended and now - row.heard_at > ENDED_FOR_S:
                del self._rows[key]
        rows = [row for row in self._rows.values() if _matches(row, text, role)]
        # Moods are compared coarsely, so that rows do not swap places all the time.
        match order:
            case "attention":
                rows.sort(
                    key=lambda r: (r.ended, -r.severity, round(r.mood * 5), r.call, r.role != "customer")
                )
            case "call":
                rows.sort(key=lambda r: (r.call, r.role != "customer", r.stream))
            case "duration":
                rows.sort(key=lambda r: (-round(r.age(now)), r.call, r.stream))
            case "loss":
                rows.sort(key=lambda r: (-_share(r.lost_s, r.end), r.call, r.stream))
        return rows

    def candidates(self, now: float) -> str:
        """What runs beside the active model, in a few words; empty when nothing does."""
        return "  ".join(
            f"{kind} {report.candidate}"
            + (f" ({report.share:.0%} of calls)" if isinstance(report, CanaryReport) else "")
            + (f" agrees {report.agreement:.0%}" if report.windows else "")
            for kind, (report, told_at) in sorted(self._candidates.items())
            if now - told_at < CANDIDATE_FOR_S
        )

    def call(self, name: str) -> list[Row]:
        """The streams of one call, customer first."""
        rows = [row for row in self._rows.values() if row.call == name]
        return sorted(rows, key=lambda row: (row.role != "customer", row.stream))

    def _window(self, row: Row, event: WindowEmotion) -> None:
        row.window, row.unscored = event, ""
        row.speech_s, row.lost_s = event.speech_s, event.lost_s
        number = int(event.end / TREND_BUCKET_S)
        if row.trend and row.trend[-1].number == number:
            step = row.trend[-1]
            step.windows += 1
            step.valence += (event.valence - step.valence) / step.windows
            step.emotion = event.smoothed_emotion
        else:
            row.trend.append(Step(number, 1, event.valence, event.smoothed_emotion))

    def _drop_candidate(self, name: str) -> None:
        for kind, (report, _) in list(self._candidates.items()):
            if report.candidate == name:
                del self._candidates[kind]

    def _miss(self, gap: Gap) -> None:
        lost = 0 if gap.last is None else gap.last - gap.first + 1
        self.counts["lost"] += lost
        if row := self._rows.get((gap.call, gap.stream)):
            row.gaps += lost
            row.ended |= gap.last is None


def _matches(row: Row, text: str, role: Role | None) -> bool:
    if role and row.role != role:
        return False
    emotion = row.window.smoothed_emotion if row.window else ""
    fields = (row.call, row.stream, row.role, emotion, *row.alerts)
    return not text or any(text.lower() in field.lower() for field in fields)


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
