"""Keys of a terminal, one at a time, as they are pressed."""

from __future__ import annotations

import codecs
import os
import select
import sys
import termios
import tty
from types import TracebackType

ARROWS = {"\x1b[A": "up", "\x1b[B": "down", "\x1b[5~": "page up", "\x1b[6~": "page down"}


class Keyboard:
    """Reads standard input key by key while the context lasts; does nothing where that is no terminal."""

    def __init__(self) -> None:
        self._file = sys.stdin.fileno() if sys.stdin.isatty() else None
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
            termios.tcsetattr(self._file, termios.TCSADRAIN, self._before)

    def keys(self, timeout_s: float = 0.0) -> list[str]:
        """Keys pressed since the last call: characters, and the names in `split_keys`.

        Args:
            timeout_s: how long to wait for one.
        """
        if self._file is None or not select.select([self._file], [], [], timeout_s)[0]:
            return []
        return split_keys(self._decoder.decode(os.read(self._file, 1024)))


def split_keys(text: str) -> list[str]:
    """What a terminal sent, as key names."""
    keys: list[str] = []
    while text:
        for sequence, name in ARROWS.items():
            if text.startswith(sequence):
                keys.append(name)
                text = text[len(sequence) :]
                break
        else:
            named = {"\r": "enter", "\n": "enter", "\x1b": "escape", "\x7f": "delete", "\b": "delete"}
            keys.append(named.get(text[0], text[0]))
            text = text[1:]
    return keys
