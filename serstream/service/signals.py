"""What is asked of the daemon by signals; it looks between two turns, when nothing is half done.

Made before what takes long to import or to open: a signal that comes early is heeded a little later.
"""

from __future__ import annotations

import signal
from types import FrameType


class Signals:
    """Catches SIGINT, SIGTERM and SIGHUP from now on; belongs to the main thread."""

    def __init__(self) -> None:
        self.stop = ""
        """Name of the signal that asks for the end."""
        self.reload = False
        """Whether the configuration shall be read again; whoever does it takes this back first."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGHUP, self._reload)

    def _stop(self, number: int, _frame: FrameType | None) -> None:
        self.stop = signal.Signals(number).name

    def _reload(self, _number: int, _frame: FrameType | None) -> None:
        self.reload = True
