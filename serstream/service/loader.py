"""The one thread in which models are loaded and let go, beside the calls."""

from __future__ import annotations

import os
import queue
import sys
import threading
from collections.abc import Callable
from typing import Any

from serstream.service.allocator import return_free_memory

NICENESS = 10
"""The calls come first."""


class Loader:
    """Does what it is given, one after the other; never raises.

    One thread, and always the same: glibc gives every thread an arena, and what a model leaves behind in one
    is used again by the next model only if it is loaded there too.
    """

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="loader", daemon=True).start()

    def submit(self, job: Callable[[], object]) -> None:
        """Do this when everything before it is done; it must not raise."""
        self._jobs.put(job)

    def release(self, last: list[Any]) -> None:
        """Let go of what only this list refers to: to destroy a session takes longer than calls should wait.

        The list is empty afterwards.
        """
        self._jobs.put(last.clear)

    def _run(self) -> None:
        if sys.platform == "linux":  # where a thread has a niceness of its own
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        while True:
            self._jobs.get()()
            return_free_memory()
