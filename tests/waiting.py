"""Waiting for what another process or thread does."""

import time
from collections.abc import Callable
from typing import TypeVar

Answer = TypeVar("Answer")


def until(ask: Callable[[], Answer], timeout_s: float = 60.0) -> Answer:
    """The first answer that is true; when none was in time, the last one."""
    deadline = time.monotonic() + timeout_s
    while not (answer := ask()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return answer
