"""Where text for people is written."""

from __future__ import annotations

from typing import Any

from rich.console import Console


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Leave it to `serstream.cli.main` what a closed pipe means; rich would exit with 1."""
        raise  # what print has just caught


def console(*, stderr: bool = False, **options: Any) -> Console:
    """A console whose closed pipe is a BrokenPipeError, as with any other writer.

    Args:
        stderr: write to standard error instead of standard output.
        options: of `rich.console.Console`.
    """
    return _Console(stderr=stderr, **options)
