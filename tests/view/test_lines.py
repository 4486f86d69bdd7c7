"""The live view off a terminal: lines."""

import io
import re

import pytest
from rich.console import Console
from scripted_feed import Script, call

from serstream.feed.messages import NONE, Gap
from serstream.view.lines import LineView, plain_line
from serstream.view.live import LiveView, view_on


def console(terminal: bool = False, **environment: str) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=80, _environ=environment)


def text(view: LineView) -> str:
    assert isinstance(view.console.file, io.StringIO)
    return view.console.file.getvalue()


@pytest.fixture
def view() -> LineView:
    return LineView(console())


def test_lines_are_for_where_no_screen_can_be_drawn() -> None:
    assert isinstance(view_on(console()), LineView)
    assert isinstance(view_on(console(terminal=True, TERM="dumb")), LineView)
    assert isinstance(view_on(console(terminal=True, TERM="xterm")), LiveView)


def test_what_happens_is_printed(view: LineView) -> None:
    for message in call("a"):
        view.update(message, 0.0)
    assert "\x1b" not in text(view)
    assert "2026-01-01T00:00:06.000Z a customer: warning anger raised" in text(view)
    assert "2026-01-01T00:00:10.000Z a customer: muted: no time to hear it" in text(view)
    assert text(view).splitlines()[-1] == "2026-01-01T00:00:21.000Z a: call over"


def test_names_are_no_commands_to_the_terminal(view: LineView) -> None:
    view.update(Script("evil\x1b]0;title\x07\nsecond line", "c").started(), 0.0)
    assert text(view) == "2026-01-01T00:00:00.000Z evil�]0;title��second line customer: began (rtp:5004)\n"


def test_a_feed_that_dies_and_comes_back_is_told_once_each(view: LineView) -> None:
    for seconds in (0.5, 2.0, 3.1, 4.0, 5.0):
        view.silent = {"ipc://one": seconds}
        view.refresh(0.0)
    view.silent = {}
    view.refresh(0.0)
    view.refresh(0.0)
    died, back = text(view).splitlines()
    assert re.fullmatch(r"20\S+Z nothing heard from ipc://one for 3 s", died)
    assert re.fullmatch(r"20\S+Z ipc://one is heard again", back)


@pytest.mark.parametrize(
    ("gap", "line"),
    [
        (Gap(call=NONE, stream=NONE, first=1, last=None), "the daemon was restarted"),
        (Gap(call="a", stream="c", first=7, last=None), "call a, stream c: its end was lost"),
        (Gap(call="a", stream=NONE, first=1, last=None), "call a: its end was lost"),
        (Gap(call="a", stream="c", first=7, last=9), "call a, stream c: 3 messages were lost"),
    ],
)
def test_what_was_lost_is_said_in_words(gap: Gap, line: str) -> None:
    assert re.fullmatch(rf"20\S+Z {line}", plain_line(gap))
