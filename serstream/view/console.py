"""The terminal, or what standard output is piped into."""

from __future__ import annotations

from typing import Any

import rich.console


class _Console(rich.console.Console):
    def on_broken_pipe(self) -> None:
        """Let `serstream.cli.main` decide; rich would end the process with exit code 1."""
        raise  # rich calls this while it handles the BrokenPipeError


def console(*, stderr: bool = False, **options: Any) -> rich.console.Console:
    """A console that raises BrokenPipeError when its reader has gone, as print does.

    Args:
        stderr: write to standard error.
        options: others of rich's Console.
    """
    return _Console(stderr=stderr, **options)
