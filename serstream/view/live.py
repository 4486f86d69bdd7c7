"""The live view: a subscriber of the feed that a supervisor keeps open all day.

In a terminal it is a full screen with keys; elsewhere it prints a line per utterance, alert and muting.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live

from serstream.feed import Subscription, subscribe
from serstream.feed.messages import (
    Alert,
    CallEnded,
    Event,
    Gap,
    Mute,
    StreamEnded,
    StreamStarted,
    UtteranceEmotion,
)
from serstream.types import Role
from serstream.view.board import ORDERS, Board, Order, Row
from serstream.view.emoji import EMOJI, UNKNOWN
from serstream.view.keyboard import Keyboard
from serstream.view.screen import (
    ALERT,
    BOLD,
    DIM,
    PLAIN,
    Cell,
    Lines,
    duration,
    header,
    mute_text,
    note_line,
    row_line,
    timeline,
)

FRAME_S = 0.1
"""Seconds between two frames."""
HELP = "↑↓ ⏎ open  /filter  r role  s sort  p pause  q quit"
CALL_HELP = "esc back  p pause  q quit"
ROLES: tuple[Role | None, ...] = (None, "customer", "agent", "unknown")


class LiveView:
    """Shows events. Feed it with ``update``, draw with ``refresh``; time is passed in.

    Args:
        console: where to draw; off a terminal, lines are printed to it.
        title: for the first line, the feed's address for example.
    """

    def __init__(self, console: Console, title: str = ""):
        self.console = console
        self.board = Board()
        self.title = title
        self.silent: tuple[str, float] | None = None
        """Feed that has been silent for longest, and for how many seconds; None while all of them live."""
        self.done = False
        """The user wants to leave."""
        self._order: Order = "attention"
        self._role: Role | None = None
        self._filter = ""
        self._typing = False
        self._paused: Frame | None = None
        """What was shown when the user pressed pause; events go on behind it."""
        self._selected: tuple[str, str] | None = None
        self._open: str | None = None
        """Call whose page is shown."""
        self._rows: list[Row] = []
        self._live = Live(console=console, screen=console.is_terminal, auto_refresh=False)

    def __enter__(self) -> LiveView:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.console.is_terminal:
            self._live.stop()

    def update(self, event: Event, now: float) -> None:
        """Take an event that arrived at ``now`` (monotonic)."""
        if not self.console.is_terminal:
            if line := plain_line(event):
                self.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            self.board.update(event, now)

    def refresh(self, now: float) -> None:
        """Draw a frame."""
        if self.console.is_terminal:
            self._live.update(self.renderable(now), refresh=True)

    def renderable(self, now: float) -> Frame:
        """The view at ``now``, for any rich console; it fills the console's height."""
        return self._paused or Frame(self, now)

    def press(self, key: str, now: float) -> None:
        """React to a key of `serstream.view.keyboard`."""
        if self._typing:
            self._type(key)
            return
        match key:
            case "q":
                self.done = True
            case "p" | " ":
                self._paused = None if self._paused else Frame(self, now, paused=True)
            case "s":
                self._order = ORDERS[(ORDERS.index(self._order) + 1) % len(ORDERS)]
            case "r":
                self._role = ROLES[(ROLES.index(self._role) + 1) % len(ROLES)]
            case "/":
                self._typing, self._filter = True, ""
            case "escape":
                if self._open is None:
                    self._filter = ""
                self._open = None
            case "enter" if self._selected:
                self._open = self._selected[0]
            case "down" | "j":
                self._move(1)
            case "up" | "k":
                self._move(-1)
            case "page down":
                self._move(10)
            case "page up":
                self._move(-10)

    def lines(self, width: int, height: int, now: float, paused: bool = False) -> list[list[Cell]]:
        """The whole screen, exactly ``height`` lines."""
        status = self._status(now, paused)
        if self._open:
            body = self._call_page(self._open, width, height - 2, now)
        else:
            body = self._list_page(width, height - 2, now)
        lines = [status, *body][: height - 1]
        lines += [[] for _ in range(height - 1 - len(lines))]
        return [*lines, self._footer()]

    def _status(self, now: float, paused: bool) -> list[Cell]:
        counts = self.board.counts
        rows = self._rows = self.board.rows(now, self._order, self._filter, self._role)
        alive = [row for row in rows if not row.ended]
        alerts = sum(len(row.alerts) for row in alive)
        muted = sum(row.muted for row in alive)
        candidates = self.board.candidates(now)
        if self.silent:
            feed, seconds = self.silent
            state: Cell = (f" STALE: nothing heard from {feed} for {seconds:.0f} s ", ALERT)
        elif paused:
            state = (" PAUSED ", ALERT)
        else:
            state = (" live ", BOLD)
        return [
            ("serstream ", BOLD),
            state,
            (f" {len({row.call for row in alive})} calls  {len(alive)} streams  ", PLAIN),
            (f"{alerts} alerts", BOLD if alerts else PLAIN),
            (f"  {muted} muted" if muted else "", BOLD),
            (f"  {candidates}" if candidates else "", BOLD),
            (f"  {counts['window']} windows  {counts['unscored']} unscored  {counts['lost']} lost", PLAIN),
            (f"  {self.board.model}  {self.title}", DIM),
        ]

    def _list_page(self, width: int, height: int, now: float) -> list[list[Cell]]:
        rows, labels = self._rows, self.board.labels
        keys = [(row.call, row.stream) for row in rows]
        if self._selected not in keys:
            self._selected = None
        chosen = keys.index(self._selected) if self._selected else 0
        room = height - 1
        first = max(0, min(chosen - room // 2, len(rows) - room))
        lines = [header(labels, width)]
        for key, row in zip(keys[first : first + room], rows[first : first + room], strict=True):
            lines.append(row_line(row, labels, width, now, key == self._selected))
        if not rows:
            lines.append([("  no calls" + (" match" if self._filter or self._role else " yet"), DIM)])
        return lines

    def _call_page(self, call: str, width: int, height: int, now: float) -> list[list[Cell]]:
        rows = self.board.call(call)
        lines: list[list[Cell]] = [[(f"call {call}", BOLD)]]
        seconds = max((row.age(now) for row in rows), default=0.0)
        for row in rows:
            lines.append([])
            lines.append(row_line(row, self.board.labels, width, now, selected=False))
            moods, initials = timeline(row, width - 4, seconds)
            lines += [[("  ", PLAIN), *moods], [("  ", PLAIN), *initials]]
        lines.append([(f"  0:00{duration(seconds):>{max(1, width - 8)}}", DIM)])
        notes = sorted((note for row in rows for note in row.notes), key=lambda note: note.end)
        room = height - len(lines)
        return [*lines, *(note_line(note) for note in notes[-room:] if room > 0)]

    def _footer(self) -> list[Cell]:
        if self._typing:
            return [(f"filter: {self._filter}█  ⏎ keep  esc drop", BOLD)]
        shown = f"sort: {self._order}" + (f"  role: {self._role}" if self._role else "")
        shown += f"  filter: {self._filter}" if self._filter else ""
        return [(f"{CALL_HELP if self._open else HELP}  ", DIM), (shown, PLAIN)]

    def _type(self, key: str) -> None:
        match key:
            case "enter":
                self._typing = False
            case "escape":
                self._typing, self._filter = False, ""
            case "delete":
                self._filter = self._filter[:-1]
            case _ if len(key) == 1 and key.isprintable():
                self._filter += key

    def _move(self, by: int) -> None:
        if not self._rows:
            return
        keys = [(row.call, row.stream) for row in self._rows]
        at = keys.index(self._selected) + by if self._selected in keys else 0
        self._selected = keys[max(0, min(at, len(keys) - 1))]


class Frame:
    """The view at one moment, as large as the console that draws it; a paused one stays as first drawn."""

    def __init__(self, view: LiveView, now: float, *, paused: bool = False):
        self._view = view
        self._now = now
        self._paused = paused
        self._drawn: Lines | None = None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Rich's rendering protocol."""
        height = options.height or console.height
        if self._drawn is None or not self._paused:
            self._drawn = Lines(self._view.lines(options.max_width, height, self._now, self._paused))
        yield self._drawn


def plain_line(event: Event) -> str:
    """An event as one line of text; empty for those that a reader of a log would not miss."""
    match event:
        case StreamStarted():
            return f"{event.time} {event.call} {event.role}: began ({event.source})"
        case UtteranceEmotion():
            emoji = EMOJI.get(event.emotion, UNKNOWN)
            return (
                f"{event.time} {event.call} {event.role}: {emoji} {event.emotion} {event.confidence:.0%} "
                f"from {event.start:.1f} to {event.end:.1f} s"
            )
        case Alert():
            return f"{event.time} {event.call} {event.role}: {event.severity} {event.rule} {event.state}"
        case Mute():
            return f"{event.time} {event.call} {event.role}: {mute_text(event)}"
        case StreamEnded():
            return f"{event.time} {event.call} {event.role}: ended ({event.reason}) after {event.end:.1f} s"
        case CallEnded():
            return f"{event.time} {event.call}: call over"
        case Gap():
            return f"{event.call} {event.stream}: messages from {event.first} on were lost"
    return ""


def run_live(*endpoints: str, keys: Path | None = None, calls: Sequence[str] = ()) -> None:
    """Watch the feeds of some daemons until the user leaves; off a terminal until the process is ended.

    Raises:
        FeedError: an endpoint is not one, or a daemon refuses the keys.
    """
    console = Console()
    with subscribe(*endpoints, calls=calls, keys=keys, history=console.is_terminal) as subscription:
        with Keyboard() as keyboard, LiveView(console, " ".join(endpoints)) as view:
            _watch(subscription, keyboard, view)


def _watch(subscription: Subscription, keyboard: Keyboard, view: LiveView) -> None:
    while not view.done:
        frame_at = time.monotonic() + FRAME_S
        while (left := frame_at - time.monotonic()) > 0:
            for event in subscription.receive(left):
                view.update(event, time.monotonic())
        now = time.monotonic()
        silent_s, feed = max((link.silent_s, link.endpoint) for link in subscription.links)
        view.silent = (feed, silent_s) if silent_s else None
        for key in keyboard.keys():
            view.press(key, now)
        view.refresh(now)
