"""The live view on a captured console of fixed size; golden screens lie beside this file."""

import io
import re
from pathlib import Path

import pytest
from rich.console import Console
from screens import console, picture
from scripted_feed import EPOCH, Script, call

from serstream.feed.messages import (
    NONE,
    Gap,
    Heartbeat,
    rfc3339,
)
from serstream.view.board import ENDED_FOR_S, ENDED_KEPT
from serstream.view.live import LiveView

GOLDEN = Path(__file__).parent / "golden"


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
    before = picture(view, 62.0).splitlines()
    view.press("p", 62.0)
    view.update(Script("call-new", "c").started(), 63.0)
    status, *paused, footer = picture(view, 64.0).splitlines()
    assert "PAUSED  4 calls" in status
    assert paused == before[1:-1]
    assert footer == "p go on  q quit"
    view.press("p", 64.0)
    assert "call-new" in picture(view, 64.0)


def test_a_pause_does_not_hide_that_the_feed_is_dead(view: LiveView) -> None:
    view.press("p", 62.0)
    picture(view, 62.0)
    view.silent = {"ipc://feed": 12.3}
    assert "STALE: nothing heard from ipc://feed for 12 s" in picture(view, 75.0)


def test_keys_do_nothing_unseen_during_a_pause(view: LiveView) -> None:
    before = picture(view, 62.0)
    for key in ("p", "s", "r", "down", "enter", "/", "escape", " "):
        view.press(key, 62.0)
    assert picture(view, 62.0) == before
    for key in ("p", "q"):
        view.press(key, 62.0)
    assert view.done


def test_keys_do_nothing_unseen_on_a_call_page(view: LiveView) -> None:
    picture(view, 62.0)
    view.press("up", 62.0)
    before = picture(view, 62.0)
    assert ">‼call-angry" in before, "the selection shows beside the alert"
    for key in ("down", "enter", "s", "r", "/", "escape", "up"):
        view.press(key, 62.0)
    assert picture(view, 62.0) == before


def test_a_stale_feed_is_said(view: LiveView) -> None:
    view.silent = {"ipc://other": 3.0, "ipc://feed": 12.3}
    assert "STALE: nothing heard from ipc://feed for 12 s" in picture(view, 62.0)


def heartbeat(end: float, utc: float) -> Heartbeat:
    header = Script(NONE, NONE, "unknown", source="serstream")._common(end, end)
    return Heartbeat(**header | {"time": rfc3339(utc)}, interval_s=1.0, positions=())


def shown(view: LiveView, call: str, now: float) -> str:
    """The line of a call."""
    (line,) = [line for line in picture(view, now).splitlines() if call in line]
    return line


def test_a_view_that_is_opened_later_tells_the_same_age() -> None:
    """To it, what has happened before comes at once."""
    script = Script("call-old", "c")
    messages = [script.started(), script.window(30.0, "sad"), heartbeat(90.0, EPOCH + 90.0)]
    early, late = LiveView(console()), LiveView(console())
    for message, now in zip(messages, (1000.0, 1030.0, 1090.0), strict=True):
        early.update(message, now)
        late.update(message, 5090.0)
    assert shown(early, "call-old", 1092.0).endswith("  1:32")
    assert shown(late, "call-old", 5092.0) == shown(early, "call-old", 1092.0)


def test_only_heartbeats_tell_what_the_clock_of_the_daemon_shows() -> None:
    """A recording that is played as fast as possible is ahead of it."""
    view = LiveView(console())
    view.update(Script("call-now", "c").started(), 10.0)
    view.update(Script("call-fast", "c").window(600.0, "sad"), 10.0)
    view.update(heartbeat(15.0, EPOCH + 5.0), 15.0)
    view.update(Script("call-fast", "c").window(900.0, "sad"), 16.0)
    assert shown(view, "call-now", 20.0).endswith("  0:10")
    assert shown(view, "call-fast", 20.0).endswith(" 15:00")


def test_a_stream_is_shown_as_it_is_while_it_is_silent() -> None:
    view = LiveView(console())
    script = Script("call-hold", "c")
    for end in range(4, 32, 5):
        view.update(script.window(end, "sad"), float(end))
    assert re.search(r" ▂▂▂▂▂▂  50%   1%   0:29$", shown(view, "call-hold", 29.0))
    assert re.search(r" ▂▂▂▂▂▂·····  25%   0%   0:58$", shown(view, "call-hold", 58.0))


def test_what_was_muted_counts_neither_as_silence_nor_as_heard() -> None:
    view = LiveView(console())
    script = Script("call-muted", "c")
    view.update(script.window(20.0, "sad"), 20.0)
    view.update(script.mute(20.0), 20.0)
    assert "  50%   1%   1:40" in shown(view, "call-muted", 100.0)
    view.update(script.mute(20.0, 100.0), 100.0)
    assert "  25%   0%   2:00" in shown(view, "call-muted", 120.0)


def test_an_emotion_of_long_ago_is_faint() -> None:
    view = LiveView(console())
    view.update(Script("call-hold", "c").window(10.0, "sad"), 10.0)

    def is_faint(now: float) -> bool:
        (cell,) = [s for line in view.lines(80, 24, now) for text, s in line if "😢 sad" in text]
        return bool(cell.dim)

    assert not is_faint(35.0)
    assert is_faint(45.0)


def two_parties(view: LiveView) -> None:
    """The agent joins after a minute and speaks; the customer has spoken at once."""
    customer, agent = Script("call-two", "c"), Script("call-two", "a", "agent", began=60.0)
    view.update(customer.started(), 0.0)
    view.update(customer.window(2.0, "sad"), 2.0)
    view.update(customer.alert(4.0, severity="critical"), 4.0)
    view.update(agent.started(), 60.0)
    view.update(agent.window(2.0, "happy"), 62.0)
    view.update(agent.utterance(0.0, 3.0, "happy"), 63.0)
    view.update(agent.alert(10.0, rule="haste", severity="information"), 70.0)
    view.update(customer.utterance(62.0, 66.0, "sad"), 66.0)
    view.update(customer.window(120.0, "sad"), 120.0)
    picture(view, 120.0)
    for key in ("down", "enter"):
        view.press(key, 120.0)


def test_a_party_that_joins_later_stands_at_its_place_in_the_call() -> None:
    view = LiveView(console())
    two_parties(view)
    page = picture(view, 120.0).splitlines()
    initials = [line for line in page if set(line) <= set(" ahns") and line.strip()]
    assert [line.index(line.strip()[0]) - 2 for line in initials] == [0, 38], "of 76 columns"
    moods = page[page.index(initials[1]) - 1]
    assert moods.startswith(" " * 40) and moods.endswith("·"), "before it came there was no silence"
    notes = [line.split()[:2] for line in page[page.index("  0:00" + "2:00".rjust(72)) + 1 : -1] if line]
    assert notes == [["0:00", "customer"], ["1:00", "agent"], ["1:02", "customer"], ["1:06", "agent"]]


def test_a_call_page_names_the_raised_rules_of_each_party() -> None:
    view = LiveView(console(height=12))
    two_parties(view)
    page = picture(view, 120.0).splitlines()
    for mark, role, rule in (("‼", "customer", "anger since 0:00"), ("·", "agent", "haste since 1:06")):
        (row,) = [i for i, line in enumerate(page) if line.startswith(f"{mark} call-two") and role in line]
        assert page[row + 1] == f"  {mark} {rule}"
    assert any(line.endswith("agent    · haste raised (angry 75%)") for line in page)


def test_a_call_page_stays_while_it_is_open(view: LiveView) -> None:
    picture(view, 62.0)
    for key in ("down", "enter"):
        view.press(key, 62.0)
    script = Script("call-angry", "c")
    script.sequence = 99
    view.update(script.ended(64.0), 64.0)
    view.update(Script("call-angry", NONE, "unknown").call_ended(64.0, {"c": "customer"}), 64.0)
    later = 64.0 + 10 * ENDED_FOR_S
    assert re.search(r"call-angry +customer 😠 angry .* 1:04\n", picture(view, later))
    assert "0:20 customer 😠 angry 75%, 10.0 s" in picture(view, later)
    view.press("escape", later)
    assert "call-angry" not in picture(view, later)


def test_the_next_call_of_a_name_is_another_one(view: LiveView) -> None:
    picture(view, 62.0)
    for key in ("down", "enter"):
        view.press(key, 62.0)
    view.update(Script("call-angry", NONE, "unknown").call_ended(64.0, {"c": "customer"}), 64.0)
    view.update(Script("call-angry", "d", began=70.0).started(), 70.0)
    assert len(re.findall(r"call-angry +customer", picture(view, 80.0))) == 1
    assert "\n  0:00" + "0:10".rjust(72) + "\n" in picture(view, 80.0)


def test_a_long_call_is_shown_from_where_it_is_known() -> None:
    view = LiveView(console())
    script = Script("call-long", "c")
    for end in range(4, 7204, 4):
        view.update(script.window(end, "sad"), float(end))
    picture(view, 7200.0)
    for key in ("down", "enter"):
        view.press(key, 7200.0)
    page = picture(view, 7200.0)
    assert "\n  1h00m" + "2h00m".rjust(71) + "\n" in page
    assert "\n  " + "s" * 76 + "\n" in page, "what is forgotten is no silence"


def test_what_is_hidden_counts(view: LiveView) -> None:
    for key in "/happy":
        view.press(key, 62.0)
    view.press("enter", 62.0)
    status, *_, footer = picture(view, 62.0).splitlines()
    assert "3 calls  4 streams  1 alerts" in status
    assert footer.startswith("1 of 3 calls shown  filter: happy")


def test_what_is_gone_raises_no_alarm(view: LiveView) -> None:
    """The daemon was restarted."""
    for stream in (NONE, "c"):
        view.update(Gap(call="call-angry", stream=stream, first=31, last=None), 62.0)
    assert re.search(r"^  call-angry", picture(view, 63.0), re.MULTILINE)
    assert "0 alerts" in picture(view, 63.0)
    assert "2 lost" in picture(view, 63.0)


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


def test_a_low_terminal_keeps_its_rows(view: LiveView) -> None:
    assert picture(view, 62.0, 30, 8).count("cal…") == 4


@pytest.mark.parametrize("size", [(80, 24), (40, 8), (200, 60), (20, 3)])
def test_a_screen_is_exactly_as_large_as_the_terminal(view: LiveView, size: tuple[int, int]) -> None:
    width, height = size
    paper = Console(file=io.StringIO(), width=width, height=height, color_system=None, _environ={})
    lines = paper.render_lines(view.renderable(62.0), paper.options.update_height(height))
    assert len(lines) == height
    assert {sum(segment.cell_length for segment in line) for line in lines} == {width}


def test_a_narrow_terminal_shows_the_counts_the_age_and_the_way_out(view: LiveView) -> None:
    view.press("r", 62.0)
    first, second, header, row, *_, footer = picture(view, 62.0, 60, 15).splitlines()
    assert first == "serstream  live  3 calls  4 streams  1 alerts"
    assert second.startswith("90 windows  30 unscored  0 lost  cnn-lstm@1")
    assert header.endswith("TALK LOSS    AGE") and "MOOD" not in header
    assert row.startswith("‼ call-a… customer 😠 angry") and row.endswith("1:02")
    assert "q quit" in footer


def test_no_color_is_honoured_and_nothing_is_said_by_colour_alone(view: LiveView) -> None:
    plain = Console(file=io.StringIO(), force_terminal=True, width=80, height=24, _environ={"NO_COLOR": "1"})
    plain.print(view.renderable(62.0), end="")
    assert isinstance(plain.file, io.StringIO)
    text = plain.file.getvalue()
    assert not re.search(r"\x1b\[[0-9;]*[34]8[;m]|\x1b\[[0-9;]*[39][0-7]m", text), "no colours"
    for word in ("‼", "angry", "sad", "happy"):
        assert word in text


def test_names_are_no_commands_to_the_terminal() -> None:
    view = LiveView(console(width=120), "tcp://\x1b[2J")
    view.update(Script("a\x1b]0;evil\x07\n2", "c").started(), 62.0)
    status, _, row, *_ = picture(view, 62.0, width=120).splitlines()
    assert status.endswith("tcp://�[2J")
    assert row.startswith("  a�]0;evil��2 ")
    for key in ("down", "enter"):
        view.press(key, 62.0)
    assert picture(view, 62.0).splitlines()[1] == "call a�]0;evil��2"


def test_a_call_of_ever_new_streams_is_bounded() -> None:
    """Strangers on a port whose calls have one name: one stream after the other, and many at once."""
    view = LiveView(console(), "")
    for number in range(300):
        script = Script("c1", f"s{number}")
        view.update(script.started(), float(number))
        view.update(script.window(2.0, "sad"), float(number))
        if number < 200:
            view.update(script.ended(3.0), float(number))
    assert len(view.board.call("c1").rows) == 100 + ENDED_KEPT
    picture(view, 300.0)
    view.press("down", 300.0)
    picture(view, 300.0)
    view.press("enter", 300.0)
    assert "and 103 more" in picture(view, 300.0)
