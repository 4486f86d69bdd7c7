"""The live view on a captured console of fixed size; golden screens lie beside this file."""

import io
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console
from scripted_feed import Script, call

from serstream.feed.messages import NONE, CanaryReport, Gap, ModelChanged, ModelRefused
from serstream.view.board import CANDIDATE_FOR_S, ENDED_FOR_S
from serstream.view.keyboard import split_keys
from serstream.view.live import LiveView

GOLDEN = Path(__file__).parent / "golden"


def console(width: int = 80, height: int = 24, **options: bool) -> Console:
    return Console(
        file=io.StringIO(), force_terminal=True, width=width, height=height, color_system="truecolor",
        _environ={}, **options,
    )  # fmt: skip


def picture(view: LiveView, now: float, width: int = 80, height: int = 24) -> str:
    """The screen as text without styles."""
    paper = Console(file=io.StringIO(), width=width, height=height, color_system=None, _environ={})
    paper.print(view.renderable(now), end="")
    assert isinstance(paper.file, io.StringIO)
    return "\n".join(line.rstrip() for line in paper.file.getvalue().splitlines())


@pytest.fixture
def view() -> LiveView:
    """Three calls: one alarms, one goes well and its agent is not analysed, one is bad but quiet."""
    view = LiveView(console(), "tcp://127.0.0.1:5556")
    angry, sad = Script("call-angry", "c"), Script("call-sad", "c")
    happy, agent = Script("call-happy", "c"), Script("call-happy", "a", "agent")
    for script in (happy, agent, sad, angry):
        view.update(script.started(), 0.0)
    for end in range(2, 62, 2):
        view.update(happy.window(end, "happy" if end > 30 else "neutral"), float(end))
        view.update(agent.unscored(end), float(end))
        view.update(sad.window(end, "sad"), float(end))
        view.update(angry.window(end, "angry" if end > 20 else "neutral", 0.9), float(end))
    view.update(angry.utterance(20, 30, "angry"), 60.0)
    view.update(angry.alert(40.0, severity="critical"), 60.0)
    return view


@pytest.mark.parametrize(
    ("name", "keys", "size"),
    [
        ("list-80x24", "", (80, 24)),
        ("list-120x12", "", (120, 12)),
        ("call-80x24", "down enter", (80, 24)),
        ("filter-80x24", "/ s a d enter", (80, 24)),
        ("agents-80x24", "r r", (80, 24)),
    ],
)
def test_screens_are_as_drawn_before(view: LiveView, name: str, keys: str, size: tuple[int, int]) -> None:
    picture(view, 62.0)
    for key in keys.split():
        view.press(key, 62.0)
    golden = GOLDEN / f"{name}.txt"
    assert picture(view, 62.0, *size) == golden.read_text(encoding="utf-8").rstrip("\n")


def order(view: LiveView, now: float = 62.0) -> list[str]:
    return re.findall(r"^..(call-\w+)", picture(view, now), re.MULTILINE)


def test_alerts_come_first_then_bad_moods(view: LiveView) -> None:
    assert order(view)[:2] == ["call-angry", "call-sad"]


def test_rows_can_be_sorted_by_call(view: LiveView) -> None:
    view.press("s", 62.0)
    assert order(view) == ["call-angry", "call-happy", "call-happy", "call-sad"]
    assert "sort: call" in picture(view, 62.0)


def test_a_cleared_alert_is_gone(view: LiveView) -> None:
    assert "1 alerts" in picture(view, 62.0)
    script = Script("call-angry", "c")
    script.sequence = 99
    view.update(script.alert(62.0, "cleared"), 62.0)
    assert "0 alerts" in picture(view, 62.0)


def test_a_muted_stream_is_told_from_a_silent_one(view: LiveView) -> None:
    script = Script("call-angry", "c")
    script.sequence = 99
    view.update(script.mute(62.0), 62.0)
    assert re.search(r"‼ call-angry +customer muted: overload +[^a-z]+\n", picture(view, 62.0))
    assert "1 alerts  1 muted" in picture(view, 62.0), "what was raised is not taken back"
    view.update(script.mute(62.0, 74.5), 74.5)
    assert "muted" not in picture(view, 75.0)
    assert order(view, 75.0)[0] == "call-angry"
    for key in ("down", "enter"):
        view.press(key, 75.0)
    assert re.search(
        r"1:02 customer muted: no time to hear it\n +1:02 customer heard again after 12\.5 s",
        picture(view, 75.0),
    )


def test_pause_keeps_the_picture_and_loses_nothing(view: LiveView) -> None:
    view.press("p", 62.0)
    before = picture(view, 62.0)
    assert "PAUSED" in before
    view.update(Script("call-new", "c").started(), 63.0)
    assert picture(view, 64.0) == before
    view.press("p", 64.0)
    assert "call-new" in picture(view, 64.0)


def test_a_stale_feed_is_said(view: LiveView) -> None:
    view.silent = ("ipc://feed", 12.3)
    assert "STALE: nothing heard from ipc://feed for 12 s" in picture(view, 62.0)


def test_a_stream_that_ended_stays_for_a_moment(view: LiveView) -> None:
    for message in call("call-done"):
        view.update(message, 100.0)
    assert "call-done" in order(view, 101.0)
    assert "call-done" not in order(view, 101.0 + ENDED_FOR_S)


def test_a_gap_is_counted_and_ends_what_is_gone(view: LiveView) -> None:
    view.update(Gap(call="call-sad", stream="c", first=31, last=35), 62.0)
    assert "5 lost" in picture(view, 62.0)
    view.update(Gap(call="call-sad", stream="c", first=36, last=None), 62.0)
    assert order(view)[-1] == "call-sad"


@pytest.mark.parametrize("size", [(80, 24), (40, 8), (200, 60), (20, 3)])
def test_a_screen_is_exactly_as_large_as_the_terminal(view: LiveView, size: tuple[int, int]) -> None:
    width, height = size
    paper = Console(file=io.StringIO(), width=width, height=height, color_system=None, _environ={})
    lines = paper.render_lines(view.renderable(62.0), paper.options.update_height(height))
    assert len(lines) == height
    assert {sum(segment.cell_length for segment in line) for line in lines} == {width}


def test_no_color_is_honoured_and_nothing_is_said_by_colour_alone(view: LiveView) -> None:
    plain = Console(file=io.StringIO(), force_terminal=True, width=80, height=24, _environ={"NO_COLOR": "1"})
    plain.print(view.renderable(62.0), end="")
    assert isinstance(plain.file, io.StringIO)
    text = plain.file.getvalue()
    assert not re.search(r"\x1b\[[0-9;]*[34]8[;m]|\x1b\[[0-9;]*[39][0-7]m", text), "no colours"
    for word in ("‼", "angry", "sad", "happy"):
        assert word in text


def test_off_a_terminal_it_prints_lines() -> None:
    paper = Console(file=io.StringIO(), force_terminal=False, width=80, _environ={})
    with LiveView(paper) as view:
        for message in call("a"):
            view.update(message, 0.0)
        view.refresh(0.0)
    assert isinstance(paper.file, io.StringIO)
    text = paper.file.getvalue()
    assert "\x1b" not in text
    assert "2026-01-01T00:00:06.000Z a customer: warning anger raised" in text
    assert "2026-01-01T00:00:10.000Z a customer: muted: no time to hear it" in text
    assert text.splitlines()[-1] == "2026-01-01T00:00:21.000Z a: call over"


def test_keys() -> None:
    assert split_keys("q\x1b[A\x1b[B\r\x1bä\x7f") == ["q", "up", "down", "enter", "escape", "ä", "delete"]
    view = LiveView(console())
    view.press("q", 0.0)
    assert view.done


def canary(view: LiveView, now: float, **fields: Any) -> None:
    header = Script(NONE, NONE, "unknown", source="serstream")._common(0, 0)
    figures = {"windows": 0, "agreement": 0.0, "confidence_shift": 0.0, "latency_ms": 0.0, "emotions": {}}
    view.update(
        CanaryReport(**header, candidate="cnn-lstm@2", share=0.1, calls=1, errors=0, **(figures | fields)),
        now,
    )


def test_a_candidate_is_shown_while_there_is_one(view: LiveView) -> None:
    assert "canary" not in picture(view, 62.0)
    canary(view, 62.0)
    assert "1 alerts  canary cnn-lstm@2 (10% of calls)\n" in picture(view, 62.0), "at 80 columns, too"
    canary(view, 63.0, windows=40, agreement=0.85)
    assert "canary cnn-lstm@2 (10% of calls) agrees 85%  90 windows" in picture(view, 63.0, width=120)
    assert "canary" not in picture(view, 63.0 + CANDIDATE_FOR_S)


@pytest.mark.parametrize("fate", ["becomes active", "is refused"])
def test_a_candidate_goes_with_the_word_about_it(view: LiveView, fate: str) -> None:
    canary(view, 62.0)
    header = Script(NONE, NONE, "unknown", source="serstream")._common(0, 0)
    if fate == "is refused":
        view.update(ModelRefused(**header, candidate="cnn-lstm@2", reason="collapsed"), 62.0)
    else:
        view.update(ModelChanged(**header | {"model": "cnn-lstm@2"}, previous="cnn-lstm@1"), 62.0)
    assert "canary" not in picture(view, 62.0)


def test_models_of_other_labels_at_the_same_time_share_the_columns(view: LiveView) -> None:
    """As with a canary; the columns do not change with whoever spoke last."""
    before = picture(view, 62.0)
    assert "adfhns MOOD" in before
    other = Script("call-canary", "c").window(62.0, "calm")
    other = msgspec.structs.replace(
        other,
        model="cnn-lstm@2",
        smoothed={"calm": 0.9, "angry": 0.1},
        probabilities={"calm": 0.9, "angry": 0.1},
    )
    view.update(other, 62.0)
    assert "acdfhns MOOD" in picture(view, 62.0)
    (row,) = [line for line in picture(view, 62.0).splitlines() if "call-canary" in line]
    assert " ▁▇     " in row
    assert view.board.model == "cnn-lstm@1", "the active one is named, not the canary"
