"""Drawing: from rows to lines of styled text, exactly as wide and high as they may be.

Lines are put together from segments directly. A rich table would measure every cell of every row ten times a
second; this draws a full screen in a fraction of that time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from math import floor

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.style import Style

from serstream.feed.messages import Alert, Mute, UtteranceEmotion
from serstream.types import Severity
from serstream.view.board import TREND_BUCKET_S, Row, Step, rank
from serstream.view.emoji import colour_of, face

BLOCKS = " ▁▂▃▄▅▆▇█"
SEVERITY_MARKS = ("  ", "· ", "! ", "‼ ")
"""By `Row.severity`."""
FRESH_S = 30.0
"""Seconds after its last speech from which on an emotion is drawn faint: it says little about now."""
LEAST_SHARED, LEAST_CALL = 12, 4
"""Columns below which call and mood do not share, and those that the call has at least."""

PLAIN = Style()
DIM = Style(dim=True)
BOLD = Style(bold=True)
ALERT = Style(bold=True, reverse=True)
SELECTED = Style(bold=True, underline=True)

Cell = tuple[str, Style]


class Lines:
    """A renderable of ready-made lines; each is cut or filled to the width of the console."""

    def __init__(self, lines: Sequence[Sequence[Cell]]):
        self.lines = lines

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Rich's rendering protocol."""
        for number, line in enumerate(self.lines):
            if number:
                yield Segment.line()
            yield from fit(line, options.max_width)


def fit(line: Sequence[Cell], width: int) -> list[Segment]:
    """The cells of a line, cut at ``width`` or filled up to it."""
    segments: list[Segment] = []
    room = width
    for raw, style in line:
        if not room:
            break
        text = printable(raw)
        length = cell_len(text)
        if length > room:
            text, length = set_cell_size(text, room), room
        segments.append(Segment(text, style))
        room -= length
    if room:
        segments.append(Segment(" " * room))
    return segments


def flow(*cells: Cell, width: int) -> list[list[Cell]]:
    """The cells in as many lines as they need; none is cut that fits into a line."""
    lines: list[list[Cell]] = [[]]
    room = width
    for text, style in cells:
        if cell_len(text) > room and lines[-1]:
            lines.append([])
            text, room = text.lstrip(), width
        lines[-1].append((text, style))
        room -= cell_len(text)
    return lines


def header(labels: Sequence[str], width: int) -> list[Cell]:
    """Column titles; the bars' column is headed by the classes' initials."""
    call, trend = _widths(labels, width)
    initials = "".join(label[0] for label in labels)
    titles = (
        f"  {'CALL':<{call}} {'ROLE':<8} {'EMOTION':<11} {'CONF':>4} {initials} {'MOOD'[:trend]:<{trend}} "
        f"{'TALK':>4} {'LOSS':>4} {'AGE':>6}"
    )
    return [(titles, DIM)]


def row_line(row: Row, labels: Sequence[str], width: int, utc: float, selected: bool) -> list[Cell]:
    """One stream."""
    call, trend = _widths(labels, width)
    base = SELECTED if selected else (DIM if row.ended else PLAIN)
    mark = SEVERITY_MARKS[row.severity]
    if selected:
        mark = f">{mark[0]}"
    cells: list[Cell] = [
        (mark, ALERT if row.severity else base),
        (_pad(row.call, call) + " ", base),
        (_pad(row.role, 8) + " ", base),
    ]
    window, age, heard_s = row.window, row.age(utc), row.heard_s(utc)
    if row.muted_at is not None:
        cells.append((_pad("muted: overload", 17 + len(labels)) + " ", BOLD))
    elif window is None or row.unscored:
        reason = "not analysed" if row.unscored == "role" else f"({row.unscored})" if row.unscored else "…"
        cells.append((_pad(reason, 17 + len(labels)) + " ", DIM))
    else:
        emotion = window.smoothed_emotion
        faint = DIM if age - window.end > FRESH_S else PLAIN
        name = _pad(f"{face(emotion)} {emotion}", 11) + " "
        cells.append((name, base + faint + colour(emotion)))
        cells.append((f"{window.smoothed[emotion]:>4.0%} ", base + faint))
        for label in labels:  # of which its model may not know all
            share = bar(window.smoothed[label]) if label in window.smoothed else " "
            cells.append((share, faint + colour(label)))
        cells.append((" ", PLAIN))
    # The bucket that has just begun is no silence yet.
    last = max(int(row.end / TREND_BUCKET_S), int(age / TREND_BUCKET_S) - 1)
    cells += sparkline(row.trend, last, trend)
    talk, loss = _percent(row.speech_s, heard_s), _percent(row.lost_s, heard_s)
    cells.append((f" {talk:>4} {loss:>4} {duration(age):>6}", base))
    return cells


def sparkline(trend: Iterable[Step], last: int, width: int) -> list[Cell]:
    """The mood of the last ``width`` buckets: height is valence, colour the emotion, a dot is silence."""
    steps = {step.number: step for step in trend if step.number > last - width}
    cells: list[Cell] = []
    for number in range(last - width + 1, last + 1):
        step = steps.get(number)
        if step is None:
            cells.append((" " if number < 0 else "·", DIM))
        else:
            cells.append((bar((step.valence + 1) / 2), colour(step.emotion)))
    return cells


def timeline(row: Row, width: int, begin: float, end: float) -> tuple[list[Cell], list[Cell]]:
    """A stream in one line: its mood, and below it the initials of its emotions.

    Args:
        row: the stream.
        width: of the line.
        begin: stream seconds at which the line begins; negative when the call began before the stream.
        end: stream seconds at which it ends.
    """
    moods: list[Cell] = []
    initials: list[Cell] = []
    buckets = max((end - begin) / TREND_BUCKET_S, 1.0) / width
    steps = {step.number: step for step in row.trend}
    for column in range(width):
        first = floor(begin / TREND_BUCKET_S + column * buckets)
        behind = max(floor(begin / TREND_BUCKET_S + (column + 1) * buckets), first + 1)
        here = [steps[number] for number in range(first, behind) if number in steps]
        if not here:
            absent = behind <= 0 or (row.ended and first > row.end / TREND_BUCKET_S)
            moods.append((" " if absent else "·", DIM))
            initials.append((" ", PLAIN))
            continue
        worst = min(here, key=lambda step: step.valence)
        mean = sum(step.valence for step in here) / len(here)
        moods.append((bar((mean + 1) / 2), colour(worst.emotion)))
        initials.append((worst.emotion[0], colour(worst.emotion)))
    return moods, initials


def raised_line(alert: Alert, offset: float) -> list[Cell]:
    """A rule that is raised now.

    Args:
        alert: what raised it.
        offset: seconds of the call at which its stream began.
    """
    text = f"{mark(alert.severity)}{alert.rule} since {duration(offset + alert.start)}"
    return [("  ", PLAIN), (text, ALERT)]


def note_line(note: UtteranceEmotion | Alert | Mute, offset: float) -> list[Cell]:
    """An utterance, an alert or a muting of one call.

    Args:
        note: what is noted.
        offset: seconds of the call at which its stream began.
    """
    when = f"  {duration(offset + note.start):>6} {note.role:<8} "
    if isinstance(note, Mute):
        return [(when, PLAIN), (mute_text(note), BOLD)]
    if isinstance(note, Alert):
        what = f"{note.rule} {note.state} ({'+'.join(note.emotions)} {note.probability:.0%})"
        text = f"{mark(note.severity)}{what}"
        return [(when, PLAIN), (text, ALERT if note.state == "raised" else BOLD)]
    text = f"{face(note.emotion)} {note.emotion} {note.confidence:.0%}"
    return [(when, PLAIN), (f"{text}, {note.end - note.start:.1f} s", colour(note.emotion))]


def mark(severity: Severity) -> str:
    """Of an alert."""
    return SEVERITY_MARKS[rank(severity)]


def mute_text(mute: Mute) -> str:
    """What has become of a stream."""
    if mute.state == "muted":
        return "muted: no time to hear it"
    return f"heard again after {mute.end - mute.start:.1f} s"


def bar(share: float) -> str:
    """A share of 0 to 1 as a block."""
    return BLOCKS[max(1, min(8, round(share * 8)))]


def duration(seconds: float) -> str:
    """Minutes and seconds, or hours and minutes from an hour on."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}h{minutes % 60:02}m" if minutes >= 60 else f"{minutes}:{rest:02}"


def printable(text: str) -> str:
    """The text without characters that a terminal would obey: names come from elsewhere."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text
    )


@lru_cache(maxsize=64)
def colour(label: str) -> Style:
    """The style of an emotion."""
    return Style(color=colour_of(label))


def _widths(labels: Sequence[str], width: int) -> tuple[int, int]:
    """Of the columns call and mood, which share what the others leave; the call has little of it alone."""
    spare = width - (2 + 1 + 8 + 1 + 11 + 1 + 4 + 1 + len(labels) + 1 + 1 + 4 + 1 + 4 + 1 + 6)
    if spare < LEAST_SHARED:
        return max(LEAST_CALL, spare), 0
    call = min(max(8, spare // 2), 32)
    return call, spare - call


def _pad(raw: str, width: int) -> str:
    text = printable(raw)
    return set_cell_size(text, width) if cell_len(text) <= width else f"{set_cell_size(text, width - 1)}…"


def _percent(part: float, whole: float) -> str:
    return f"{part / whole:.0%}" if whole else "-"
