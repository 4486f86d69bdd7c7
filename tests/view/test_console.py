"""The console of all commands."""

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import TextIO

import pytest

from serstream.view.console import console


@pytest.fixture
def closed_pipe() -> Iterator[TextIO]:
    reader, writer = os.pipe()
    os.close(reader)
    file = open(writer, "w")
    yield file
    with suppress(BrokenPipeError):
        file.close()


def test_a_closed_pipe_is_an_error_like_any_other(closed_pipe: TextIO) -> None:
    with pytest.raises(BrokenPipeError):
        console(file=closed_pipe).print("a line")


def test_it_writes_to_standard_error_if_asked() -> None:
    assert console(stderr=True).file is sys.stderr
    assert console().file is sys.stdout
