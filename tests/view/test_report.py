import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray
from scripted_feed import Script, call

from serstream.errors import FeedError
from serstream.feed.coding import encode
from serstream.feed.messages import Message
from serstream.view.emoji import COLOURS
from serstream.view.report import write_reports

CHROMIUM = shutil.which("chromium")
FFMPEG = shutil.which("ffmpeg")


def record(path: Path, messages: list[Message]) -> Path:
    path.write_bytes(b"\n".join(map(encode, messages)))
    return path


@pytest.fixture
def one_call(tmp_path: Path) -> Path:
    """The customer is angry for the first half and happy for the second; the agent is not analysed."""
    customer, agent = Script("a<b>", "c"), Script("a<b>", "g", "agent")
    messages: list[Message] = [customer.started(), agent.started()]
    for end in range(2, 61, 2):
        messages.append(customer.window(end, "angry" if end <= 30 else "happy"))
        messages.append(agent.unscored(end))
    messages += [customer.utterance(0, 29, "angry"), customer.alert(20), customer.utterance(31, 60, "happy")]
    messages += [customer.ended(60), agent.ended(60)]
    return record(tmp_path / "events.jsonl", messages)


def test_a_page_is_well_formed_and_loads_nothing(one_call: Path, tmp_path: Path) -> None:
    (page,) = write_reports(one_call, tmp_path / "call.html")
    text = page.read_text()
    open_tags: list[str] = []

    class Checker(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            if tag != "meta":
                open_tags.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert open_tags.pop() == tag

    Checker().feed(text)
    assert open_tags == []
    assert not re.search(r"\b(src|href|url|@import|<script)\b", text)
    assert "Call a&lt;b&gt;" in text, "names are escaped"


def test_the_page_says_what_happened(one_call: Path, tmp_path: Path) -> None:
    (page,) = write_reports(one_call, tmp_path / "call.html")
    text = page.read_text()
    assert text.count('class="utterance"') == 2
    assert text.count('class="alert"') == 1
    assert "<td>anger</td><td>warning</td><td>raised</td><td>angry</td><td>75% (threshold 60%)</td>" in text
    assert "not analysed" in text
    assert "30 s of 60 s" in text


def test_what_was_not_heard_is_grey_and_counted(tmp_path: Path) -> None:
    customer, agent = Script("a", "c"), Script("a", "g", "agent")
    end = msgspec.structs.replace(customer.ended(60), muted_s=12.0)
    messages: list[Message] = [
        customer.started(), agent.started(), customer.mute(10), customer.mute(10, 20), customer.mute(58), end,
        agent.mute(40),
    ]  # fmt: skip
    (page,) = write_reports(record(tmp_path / "events.jsonl", messages), tmp_path / "call.html")
    text = page.read_text()
    assert "30 s of 60 s, 12 s muted" in text
    grey = re.findall(r'class="muted" x="([\d.]+)" y="\d+" width="([\d.]+)"', text)
    assert [(float(x), float(width)) for x, width in grey] == [(240.0, 150.0), (960.0, 30.0), (690.0, 1.0)]


def test_a_party_that_came_later_is_drawn_where_it_came(tmp_path: Path) -> None:
    """The second agent comes at 5:00 and stays to 11:40: a second of the call is 900 / 700 units wide."""
    customer, agent = Script("a", "c"), Script("a", "g2", "agent", began=300.0)
    messages: list[Message] = [
        customer.alert(320), customer.ended(600),
        agent.utterance(1, 101, "angry"), agent.window(225, "happy"), agent.alert(50),
        agent.mute(120, 190), agent.ended(400),
    ]  # fmt: skip
    (page,) = write_reports(record(tmp_path / "events.jsonl", messages), tmp_path / "call.html")
    text = page.read_text()
    assert '<p class="sub">2026-01-01T00:00:00.000Z, 11:40, 2 alerts' in text
    assert "<title>5:01 angry 75%</title>" in text
    assert re.findall(r"<td>(\d+:\d\d)</td><td>(\w+)</td>", text) == [("5:20", "customer"), ("5:50", "agent")]
    scale = 900 / 700

    def drawn(pattern: str) -> list[float]:
        return [(float(x) - 90) / scale for x in re.findall(pattern, text)]

    assert drawn(r'class="utterance" x="([\d.]+)"') == pytest.approx([301], abs=0.1)
    assert drawn(r'class="muted" x="([\d.]+)"') == pytest.approx([420], abs=0.1)
    assert drawn(r'<polyline points="([\d.]+),') == pytest.approx([525], abs=0.1)
    corners = drawn(r'class="alert" d="M([\d.]+) ')
    assert [at + 7 / scale for at in corners] == pytest.approx([320, 350], abs=0.1)


def test_every_call_gets_a_page(tmp_path: Path) -> None:
    recording = record(tmp_path / "events.jsonl", [*call("one"), *call("two/../x")])
    pages = write_reports(recording, tmp_path / "call.html")
    assert [page.name for page in pages] == ["call-one.html", "call-two____x.html"]
    assert all(page.exists() for page in pages)


def test_no_call_writes_over_anothers_page(tmp_path: Path) -> None:
    recording = record(tmp_path / "events.jsonl", [*call("x.y"), *call("x/y"), *call("x_y-2")])
    pages = write_reports(recording, tmp_path / "r.html")
    assert [page.name for page in pages] == ["r-x_y.html", "r-x_y-2.html", "r-x_y-2-2.html"]


def test_a_recording_without_calls_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FeedError, match="holds no call"):
        write_reports(record(tmp_path / "events.jsonl", []), tmp_path / "call.html")


@pytest.mark.skipif(not CHROMIUM, reason="needs Debian's chromium")
@pytest.mark.skipif(not FFMPEG, reason="needs Debian's ffmpeg")
def test_a_browser_draws_it(one_call: Path, tmp_path: Path) -> None:
    """What is seen: anger left of joy, both in the customer's lane, a red alert within the anger."""
    (page,) = write_reports(one_call, tmp_path / "call.html")
    picture = tmp_path / "page.png"
    assert CHROMIUM and FFMPEG
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1200,900"]
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    subprocess.run(
        [CHROMIUM, *options, profile, f"--screenshot={picture}", page.as_uri()],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    raw = subprocess.run(
        [FFMPEG, "-v", "error", "-i", picture, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"],
        check=True, capture_output=True,
    )  # fmt: skip
    pixels = np.frombuffer(raw.stdout, np.uint8).reshape(900, 1200, 3)

    def where(colour: str) -> NDArray[np.intp]:
        rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        found = np.argwhere((np.abs(pixels.astype(int) - rgb) <= 3).all(axis=2))
        assert len(found) > 40, f"{colour} is not drawn"
        return found

    # The key above the drawing shows each colour once, in a small square: look at the large blocks only.
    def block(colour: str) -> tuple[float, float, float]:
        """Mean row, first and last column of rows in which the colour is wide."""
        found = where(colour)
        rows, counts = np.unique(found[:, 0], return_counts=True)
        wide = found[np.isin(found[:, 0], rows[counts > 100])]
        assert len(wide) > 5000, f"{colour} has no block"
        return float(wide[:, 0].mean()), float(wide[:, 1].min()), float(wide[:, 1].max())

    angry_row, angry_left, angry_right = block(COLOURS["angry"])
    happy_row, happy_left, happy_right = block(COLOURS["happy"])
    assert angry_row == pytest.approx(happy_row, abs=2)
    assert angry_left < angry_right < happy_left < happy_right
    assert angry_right - angry_left == pytest.approx(happy_right - happy_left, rel=0.02)
    alert = where("#b00020")
    assert angry_left < alert[:, 1].mean() < angry_right
