"""The live view: a subscriber of the feed that a supervisor keeps open all day.

In a terminal it is a full screen with keys; elsewhere `serstream.view.lines` prints what happens.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType, TracebackType

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live

from serstream.feed import Subscription, subscribe
from serstream.feed.messages import Event
from serstream.types import Role
from serstream.view.board import ORDERS, TREND_BUCKET_S, TREND_BUCKETS, Board, Order, Row
from serstream.view.console import console
from serstream.view.keyboard import Keyboard
from serstream.view.lines import LineView
from serstream.view.screen import (
    ALERT,
    BOLD,
    DIM,
    PLAIN,
    Cell,
    Lines,
    duration,
    flow,
    header,
    note_line,
    raised_line,
    row_line,
    timeline,
)

FRAME_S = 0.1
"""Seconds between two frames."""
HELP = "q quit  ↑↓ ⏎ open  /filter  r role  s sort  p pause"
"""The way out first: what a narrow terminal has no room for is cut."""
PARTY_LINES = 4
"""Of the page of a call, at least for each party."""
CALL_HELP = "esc back  p pause  q quit"
PAUSE_HELP = "p go on  q quit"
ENDS = (signal.SIGTERM, signal.SIGHUP)
"""Beside Ctrl-C."""
ROLES: tuple[Role | None, ...] = (None, "customer", "agent", "unknown")


class LiveView:
    """Shows events on a full screen. Feed it with ``update``, draw with ``refresh``; time is passed in.

    Args:
        console: a terminal.
        title: for the first line, the feed's address for example.
    """

    def __init__(self, console: Console, title: str = ""):
        self.console = console
        self.board = Board()
        self.title = title
        self.silent: dict[str, float] = {}
        """Feeds that say nothing, and for how many seconds."""
        self.done = False
        """The user wants to leave."""
        self._order: Order = "attention"
        self._role: Role | None = None
        self._filter = ""
        self._typing = False
        self._paused = False
        self._selected: tuple[str, str] | None = None
        self._open: str | None = None
        """Call whose page is shown."""
        self._all: list[Row] = []
        self._rows: list[Row] = []
        """Those that role and filter let through."""
        self._body: list[list[Cell]] = []
        """What stands between the first line and the last. A pause keeps it; events go on behind it."""
        self._live = Live(console=console, screen=True, auto_refresh=False)

    def __enter__(self) -> LiveView:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):  # the terminal is gone
            self._live.stop()

    def update(self, event: Event, now: float) -> None:
        """Take an event that arrived at ``now`` (monotonic)."""
        self.board.update(event, now)

    def refresh(self, now: float) -> None:
        """Draw a frame."""
        self._live.update(self.renderable(now), refresh=True)

    def renderable(self, now: float) -> Frame:
        """The view at ``now``, for any rich console; it fills the console's height."""
        return Frame(self, now)

    def press(self, key: str, now: float) -> None:
        """React to a key of `serstream.view.keyboard`; to those only whose effect shows."""
        if self._typing:
            self._type(key)
        elif key == "q":
            self.done = True
        elif key in ("p", " "):
            self._paused = not self._paused
        elif self._paused:
            return
        elif self._open is None:
            self._press_in_list(key)
        elif key == "escape":
            self._open = None

    def lines(self, width: int, height: int, now: float) -> list[list[Cell]]:
        """The whole screen, exactly ``height`` lines."""
        self._look(now)
        status = self._status(width, now)[: max(1, height // 4)]
        if not (self._paused and self._body):
            room = height - len(status) - 1
            if self._open is None:
                self._body = self._list_page(width, room, now)
            else:
                self._body = self._call_page(self._open, width, room, now)
        lines = [*status, *self._body][: height - 1]
        lines += [[] for _ in range(height - 1 - len(lines))]
        return [*lines, self._footer()]

    def _look(self, now: float) -> None:
        """What there is at ``now``."""
        self._all = self.board.rows(now, self._order, keep=self._open)
        self._rows = [row for row in self._all if row.matches(self._filter, self._role)]
        if not any(_key(row) == self._selected for row in self._rows):
            self._selected = None

    def _status(self, width: int, now: float) -> list[list[Cell]]:
        """Of all calls, whatever is shown of them; in as many lines as that takes."""
        counts = self.board.counts
        alive = [row for row in self._all if not row.ended]
        alerts = sum(len(row.alerts) for row in alive)
        muted = sum(row.muted_at is not None for row in alive)
        if self.silent:
            feed, seconds = max(self.silent.items(), key=lambda item: item[1])
            state: Cell = (f" STALE: nothing heard from {feed} for {seconds:.0f} s ", ALERT)
        elif self._paused:
            state = (" PAUSED ", ALERT)
        else:
            state = (" live ", BOLD)
        lines = flow(
            ("serstream ", BOLD),
            state,
            (f" {_calls(alive)} calls  {len(alive)} streams  ", PLAIN),
            (f"{alerts} alerts", BOLD if alerts else PLAIN),
            (f"  {muted} muted" if muted else "", BOLD),
            (f"  {counts['window']} windows  {counts['unscored']} unscored  {counts['lost']} lost", PLAIN),
            *((f"  {candidate}", BOLD) for candidate in self.board.candidates(now)),
            width=width,
        )
        lines[-1].append((f"  {self.board.model}  {self.title}", DIM))
        return lines

    def _list_page(self, width: int, height: int, now: float) -> list[list[Cell]]:
        rows, labels = self._rows, self.board.labels
        keys = list(map(_key, rows))
        chosen = keys.index(self._selected) if self._selected else 0
        room = height - 1
        first = max(0, min(chosen - room // 2, len(rows) - room))
        utc = self.board.utc(now)
        lines = [header(labels, width)]
        for key, row in zip(keys[first : first + room], rows[first : first + room], strict=True):
            lines.append(row_line(row, labels, width, utc, key == self._selected))
        if not rows:
            lines.append([("  no calls" + (" match" if self._filter or self._role else " yet"), DIM)])
        return lines

    def _call_page(self, name: str, width: int, height: int, now: float) -> list[list[Cell]]:
        call, utc = self.board.call(name), self.board.utc(now)
        began = call.began
        rows = [(row, row.began - began) for row in call.sorted_rows()[: max(1, height // PARTY_LINES)]]
        end = max(offset + row.age(utc) for row, offset in rows)
        # What was before is not known of every stream.
        known = (offset + row.trend[0].number * TREND_BUCKET_S for row, offset in rows if row.trend)
        begin = max(min(known, default=0.0), end - TREND_BUCKETS * TREND_BUCKET_S)
        lines: list[list[Cell]] = [[(f"call {name}", BOLD)]]
        for row, offset in rows:
            lines.append([])
            lines.append(row_line(row, self.board.labels, width, utc, selected=False))
            lines += [raised_line(alert, offset) for alert in row.alerts.values()]
            moods, initials = timeline(row, width - 4, begin - offset, end - offset)
            lines += [[("  ", PLAIN), *moods], [("  ", PLAIN), *initials]]
        if len(rows) < len(call.rows):
            lines.append([(f"  and {len(call.rows) - len(rows)} more", DIM)])
        left = duration(begin)
        lines.append([(f"  {left}{duration(end):>{max(1, width - 4 - len(left))}}", DIM)])
        notes = [(note, offset) for row, offset in rows for note in row.notes]
        notes.sort(key=lambda noted: noted[0].end + noted[1])
        room = height - len(lines)
        return [*lines, *(note_line(note, offset) for note, offset in notes[-room:] if room > 0)]

    def _footer(self) -> list[Cell]:
        if self._typing:
            return [(f"filter: {self._filter}█  ⏎ keep  esc drop", BOLD)]
        if self._paused:
            return [(PAUSE_HELP, DIM)]
        if self._open is not None:
            return [(CALL_HELP, DIM)]
        hiding = f"role: {self._role}  " if self._role else ""
        hiding += f"filter: {self._filter}  " if self._filter else ""
        if hiding:
            hiding = f"{_calls(self._rows)} of {_calls(self._all)} calls shown  {hiding}"
        return [(hiding, BOLD), (f"sort: {self._order}  ", PLAIN), (HELP, DIM)]

    def _press_in_list(self, key: str) -> None:
        match key:
            case "s":
                self._order = ORDERS[(ORDERS.index(self._order) + 1) % len(ORDERS)]
            case "r":
                self._role = ROLES[(ROLES.index(self._role) + 1) % len(ROLES)]
            case "/":
                self._typing, self._filter = True, ""
            case "escape":
                self._filter = ""
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
        keys = list(map(_key, self._rows))
        at = keys.index(self._selected) + by if self._selected else 0
        self._selected = keys[max(0, min(at, len(keys) - 1))]


class Frame:
    """The view at one moment, as large as the console that draws it."""

    def __init__(self, view: LiveView, now: float):
        self._view = view
        self._now = now

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Rich's rendering protocol."""
        height = options.height or console.height
        yield Lines(self._view.lines(options.max_width, height, self._now))


def view_on(console: Console, title: str = "") -> LiveView | LineView:
    """A full screen where there is one; lines in a pipe, a file or a dumb terminal.

    Args:
        console: where to.
        title: for the screen's first line, the feed's address for example.
    """
    if console.is_terminal and not console.is_dumb_terminal:
        return LiveView(console, title)
    return LineView(console)


def run_live(*endpoints: str, keys: Path | None = None) -> None:
    """Watch the feeds of some daemons until the user leaves; off a terminal until the process is ended.

    SIGTERM and SIGHUP raise KeyboardInterrupt, too, so that the terminal is given back as it was.

    Raises:
        FeedError: an endpoint is not one, or a daemon refuses the keys.
    """
    for number in ENDS:
        if signal.getsignal(number) == signal.SIG_DFL:  # nohup has it ignored
            signal.signal(number, _leave)
    view = view_on(console(), " ".join(endpoints))
    history = isinstance(view, LiveView)
    with subscribe(*endpoints, keys=keys, history=history, heartbeats=True) as subscription:
        with Keyboard() as keyboard, view:
            _watch(subscription, keyboard, view)


def _watch(subscription: Subscription, keyboard: Keyboard, view: LiveView | LineView) -> None:
    while not view.done:
        frame_at = time.monotonic() + FRAME_S
        while (left := frame_at - time.monotonic()) > 0:
            for event in subscription.receive(left):
                view.update(event, time.monotonic())
        now = time.monotonic()
        view.silent = subscription.silent()
        for key in keyboard.keys():
            view.press(key, now)
        view.refresh(now)


def _leave(_number: int, _frame: FrameType | None) -> None:
    for number in ENDS:
        signal.signal(number, signal.SIG_IGN)  # once is enough, and cleaning up takes a moment
    raise KeyboardInterrupt


def _key(row: Row) -> tuple[str, str]:
    return row.call, row.stream


def _calls(rows: Sequence[Row]) -> int:
    return len({row.call for row in rows})
