import sys

import pytest
from screens import console

from serstream.view.keyboard import Keyboard, split_keys
from serstream.view.live import LiveView


def test_keys() -> None:
    assert split_keys("q\x1b[A\x1b[B\r\x1bä\x7f") == ["q", "up", "down", "enter", "escape", "ä", "delete"]
    view = LiveView(console())
    view.press("q", 0.0)
    assert view.done


def test_a_key_that_has_no_name_is_not_escape() -> None:
    assert split_keys("\x1b[C\x1b[1;5A\x1bOP\x1b[15~x") == ["x"]
    assert split_keys("\x1bOA\x1bOB\x1b") == ["up", "down", "escape"]


def test_standard_input_that_is_closed_has_no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)  # as Python has it after 'serstream live <&-'
    with Keyboard() as keyboard:
        assert keyboard.keys() == []
