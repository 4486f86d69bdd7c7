"""Every error serstream raises on purpose.

A message names the thing (key, file, device), the value seen, the value wanted and what to do.
"""

import os
from pathlib import Path
from unicodedata import category

import msgspec

UNDECODABLE = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError)
"""What msgspec raises for bytes that it cannot decode: the second for those nested a thousand deep, the third
for strings that are not UTF-8."""


class SerstreamError(Exception):
    """Root of all errors that a user can mend; the command line turns it into exit code 2."""

    def __str__(self) -> str:
        """The message; control characters of what it quotes do not reach a terminal, lines stay lines."""
        return "".join(_escaped(c) if category(c) == "Cc" and c != "\n" else c for c in super().__str__())


class ConfigError(SerstreamError):
    """The configuration cannot be read or holds a key or value that is not allowed."""


class SourceError(SerstreamError):
    """A file, microphone or socket cannot be opened or delivers something unusable."""


class ModelError(SerstreamError):
    """A model file is broken or does not fit its own metadata."""


class FeedError(SerstreamError):
    """The ZeroMQ feed cannot be bound, reached or understood."""


class ControlError(SerstreamError):
    """The daemon's control endpoint cannot be bound or reached, or refuses a request."""


class NotRunningError(ControlError):
    """No daemon listens at the control endpoint."""


def readable(path: Path) -> str:
    r"""A path for people and messages: bytes that are not UTF-8, and control characters, as ``\x1b``."""
    text = os.fsencode(path).decode(errors="backslashreplace")
    return "".join(_escaped(c) if category(c)[0] == "C" else c for c in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()
