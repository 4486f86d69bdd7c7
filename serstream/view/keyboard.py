"""Keys of a terminal, one at a time, as they are pressed."""

from __future__ import annotations

import codecs
import os
import re
import select
import sys
import termios
import tty
from contextlib import suppress
from types import TracebackType

PRESSED = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1bO.|.", re.DOTALL)
"""What a terminal sends for one key: a sequence that CSI or SS3 begins (ECMA-48, 5.4), or a character."""
NAMES = {
    "\x1b[A": "up",
    "\x1b[B": "down",
    "\x1bOA": "up",
    "\x1bOB": "down",
    "\x1b[5~": "page up",
    "\x1b[6~": "page down",
    "\r": "enter",
    "\n": "enter",
    "\x1b": "escape",
    "\x7f": "delete",
    "\b": "delete",
}


class Keyboard:
    """Reads standard input key by key while the context lasts; does nothing where that is no terminal."""

    def __init__(self) -> None:
        self._file = sys.stdin.fileno() if has_keys() else None
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def __enter__(self) -> Keyboard:
        if self._file is not None:
            self._before = termios.tcgetattr(self._file)
            tty.setcbreak(self._file)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            with suppress(termios.error):  # the terminal is gone
                termios.tcsetattr(self._file, termios.TCSADRAIN, self._before)

    def keys(self, timeout_s: float = 0.0) -> list[str]:
        """Keys pressed since the last call: characters, and the names in `NAMES`.

        Args:
            timeout_s: how long to wait for one.

        Raises:
            KeyboardInterrupt: the terminal is gone.
        """
        if self._file is None or not select.select([self._file], [], [], timeout_s)[0]:
            return []
        sent = b""
        with suppress(OSError):  # EIO
            sent = os.read(self._file, 1024)
        if not sent:
            raise KeyboardInterrupt
        return split_keys(self._decoder.decode(sent))


def has_keys() -> bool:
    """Whether standard input is a terminal; it may have been closed by whoever started us."""
    return sys.stdin is not None and sys.stdin.isatty()


def split_keys(text: str) -> list[str]:
    """What a terminal sent, as key names; sequences without a name are left out."""
    pressed: list[str] = PRESSED.findall(text)
    return [NAMES.get(key, key) for key in pressed if len(key) == 1 or key in NAMES]
