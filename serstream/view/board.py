"""What the live view knows: a row for each stream, in the order in which a supervisor should look at them.

Without clock and terminal: events and ``now`` in, rows out. ``now`` is monotonic, ``utc`` the daemon's clock.
It does not keep a `serstream.feed.state.FeedState`: that has the last words about the calls that go on, a
view wants trends, notes and, for a while, what is over.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain
from math import inf
from typing import Literal, get_args

from serstream.feed.messages import (
    NONE,
    Alert,
    CallEnded,
    CallStarted,
    CanaryReport,
    ComparisonReport,
    Event,
    FeedMessage,
    Gap,
    Heartbeat,
    ModelChanged,
    ModelRefused,
    Mute,
    StreamEnded,
    UtteranceEmotion,
    WindowEmotion,
    WindowUnscored,
    began_at,
    utc_of,
)
from serstream.types import Role, Severity

TREND_BUCKET_S = 5.0
"""Stream seconds that one step of a trend stands for."""
TREND_BUCKETS = 720
"""Remembered per stream: at least its last hour."""
NOTES = 200
"""Utterances, alerts and mutings remembered per stream for its call's page."""
CANDIDATE_FOR_S = 12.0
"""A shadow or canary that is not reported for so long is over: reports come every 5 s."""
ENDED_FOR_S = 20.0
"""How long an ended stream stays in the list."""
ENDED_KEPT = 8
"""Streams of a call that have ended and are remembered for its page."""
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
    began: float
    """UTC of its first sample, by the daemon's clock."""
    end: float = 0.0
    """Stream seconds at its last message."""
    window: WindowEmotion | None = None
    """The last scored one."""
    unscored: str = ""
    """Why the last window was not scored; empty when it was."""
    muted_at: float | None = None
    """Stream seconds from which on there is no time to hear it; None while it is heard."""
    muted_s: float = 0.0
    """Seconds for which it was muted before."""
    speech_s: float = 0.0
    lost_s: float = 0.0
    ended_at: float | None = None
    """Monotonic: when its end was told."""
    alerts: dict[str, Alert] = field(default_factory=dict)
    """Raised now, by rule."""
    trend: deque[Step] = field(default_factory=lambda: deque(maxlen=TREND_BUCKETS))
    notes: deque[UtteranceEmotion | Alert | Mute] = field(default_factory=lambda: deque(maxlen=NOTES))

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self.ended_at is not None

    def finish(self, now: float) -> None:
        """Nothing more will come."""
        self.ended_at, self.muted_at = now, None
        self.alerts.clear()

    def age(self, utc: float) -> float:
        """Seconds since the stream began."""
        return self.end if self.ended else max(self.end, utc - self.began)

    def heard_s(self, utc: float) -> float:
        """Seconds of it that there was time to hear."""
        return (self.age(utc) if self.muted_at is None else self.muted_at) - self.muted_s

    @property
    def severity(self) -> int:
        """Of its worst raised alert: 0 none, then 1 for the least."""
        return max((rank(alert.severity) for alert in self.alerts.values()), default=0)

    @property
    def mood(self) -> float:
        """Smoothed valence of late, averaged over three steps of the trend."""
        late = list(self.trend)[-3:]
        return sum(step.valence for step in late) / len(late) if late else 0.0

    def matches(self, text: str, role: Role | None) -> bool:
        """Whether call, stream, role, emotion or a raised alert contains ``text``, and the role fits."""
        if role and self.role != role:
            return False
        emotion = self.window.smoothed_emotion if self.window else ""
        fields = (self.call, self.stream, self.role, emotion, *self.alerts)
        return not text or any(text.lower() in field.lower() for field in fields)


@dataclass(slots=True)
class Call:
    """What is remembered of one call until a while after its end."""

    rows: dict[str, Row] = field(default_factory=dict)
    """By stream, in the order in which they began; `ENDED_KEPT` of those that have ended as well."""
    over: bool = False
    """What comes under its name is the next call."""
    began: float = inf
    """UTC of its first sample."""

    def add(self, row: Row) -> None:
        """A stream of it began; of those that ended long ago only a few are remembered."""
        self.rows[row.stream] = row
        self.began = min(self.began, row.began)
        ended = [other.stream for other in self.rows.values() if other.ended]
        for stream in ended[:-ENDED_KEPT]:
            del self.rows[stream]

    def sorted_rows(self) -> list[Row]:
        """Those that go on first, of these the customer."""
        return sorted(self.rows.values(), key=lambda row: (row.ended, row.role != "customer", row.stream))


class Board:
    """All streams that a supervisor watches."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        """Messages by type since the view was opened, and ``lost`` ones as far as they can be counted."""
        self.model = ""
        """The active one."""
        self._labels: tuple[str, ...] = ()
        """Of the active model."""
        self._calls: dict[str, Call] = {}
        self._candidates: dict[str, tuple[ComparisonReport, float]] = {}
        """The last report of a shadow and of a canary, and when it came."""
        self._ahead = -inf
        """Seconds by which the daemon's clock is ahead of the monotonic one."""
        self._heard_clock = False
        """Whether a heartbeat has told what the daemon's clock shows."""

    def update(self, event: Event, now: float) -> None:
        """Take one event of the feed."""
        if isinstance(event, Gap):
            self._miss(event, now)
            return
        self._read_clock(event, now)
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
                self._end_call(event.call, now)
                return
        row = self._row(event)
        row.end = max(row.end, event.end)
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
            case Mute(state="muted"):
                row.notes.append(event)
                row.muted_at = event.end
            case Mute():
                row.notes.append(event)
                row.muted_at = None
                row.muted_s += event.end - event.start
            case StreamEnded():
                row.finish(now)
                row.speech_s, row.lost_s, row.muted_s = event.speech_s, event.lost_s, event.muted_s

    @property
    def labels(self) -> tuple[str, ...]:
        """All that a row may be about: models with other labels may score at the same time, or one by one."""
        each = {tuple(row.window.probabilities) for row in self._rows() if row.window}
        return tuple(sorted({*self._labels, *chain.from_iterable(each)}))

    def utc(self, now: float) -> float:
        """What the daemon's clock shows at ``now``."""
        return now + self._ahead

    def rows(self, now: float, order: Order, keep: str | None) -> list[Row]:
        """The rows to show, first first; streams that ended a while ago are none of them.

        Args:
            now: monotonic seconds.
            order: what to sort by.
            keep: a call to remember; others are forgotten as soon as they have no row.
        """
        utc = self.utc(now)
        rows = [row for row in self._rows() if row.ended_at is None or now - row.ended_at <= ENDED_FOR_S]
        for name in self._calls.keys() - {row.call for row in rows} - {keep}:
            del self._calls[name]
        # Moods are compared coarsely, so that rows do not swap places all the time.
        match order:
            case "attention":
                rows.sort(
                    key=lambda r: (r.ended, -r.severity, round(r.mood * 5), r.call, r.role != "customer")
                )
            case "call":
                rows.sort(key=lambda r: (r.call, r.role != "customer", r.stream))
            case "duration":
                rows.sort(key=lambda r: (-round(r.age(utc)), r.call, r.stream))
            case "loss":
                rows.sort(key=lambda r: (-_share(r.lost_s, r.heard_s(utc)), r.call, r.stream))
        return rows

    def candidates(self, now: float) -> list[str]:
        """What runs beside the active model, each in a few words."""
        return [
            f"{kind} {report.candidate}"
            + (f" ({report.share:.0%} of calls)" if isinstance(report, CanaryReport) else "")
            + (f" agrees {report.agreement:.0%}" if report.windows else "")
            for kind, (report, told_at) in sorted(self._candidates.items())
            if now - told_at < CANDIDATE_FOR_S
        ]

    def call(self, name: str) -> Call:
        """One of the calls that rows are about."""
        return self._calls[name]

    def _rows(self) -> Iterable[Row]:
        return chain.from_iterable(call.rows.values() for call in self._calls.values())

    def _row(self, event: FeedMessage) -> Row:
        """The one that a message is about, which may be the first of its stream or of its call."""
        call = self._calls.get(event.call)
        if call is None or call.over:
            call = self._calls[event.call] = Call()
        row = call.rows.get(event.stream)
        if row is None or row.ended:
            row = Row(event.call, event.stream, event.role, began_at(event))
            call.rows.pop(event.stream, None)
            call.add(row)
        return row

    def _read_clock(self, event: FeedMessage, now: float) -> None:
        """A heartbeat tells what the daemon's clock shows; before the first, the latest message must do."""
        if isinstance(event, Heartbeat):
            self._ahead, self._heard_clock = utc_of(event) - now, True
        elif not self._heard_clock:
            self._ahead = max(self._ahead, utc_of(event) - now)

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

    def _end_call(self, name: str, now: float) -> None:
        """The ends of its streams may be lost."""
        if call := self._calls.get(name):
            call.over = True
            for row in call.rows.values():
                if not row.ended:
                    row.finish(now)

    def _miss(self, gap: Gap, now: float) -> None:
        """Of a stream that is gone altogether its end is lost, at least."""
        self.counts["lost"] += 1 if gap.last is None else gap.last - gap.first + 1
        if gap.last is not None:
            return
        if gap.stream == NONE:
            self._end_call(gap.call, now)
        elif (call := self._calls.get(gap.call)) and (row := call.rows.get(gap.stream)):
            row.finish(now)


def rank(severity: Severity) -> int:
    """Of an alert: 1 for the least."""
    return SEVERITIES.index(severity) + 1


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
