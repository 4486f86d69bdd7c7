"""The live view on a console of fixed size, and what it shows."""

import io

from rich.console import Console

from serstream.view.live import LiveView


def console(width: int = 80, height: int = 24, **options: bool) -> Console:
    return Console(
        file=io.StringIO(), force_terminal=True, width=width, height=height, color_system="truecolor",
        _environ={}, **options,
    )  # fmt: skip


def picture(view: LiveView, now: float, width: int = 80, height: int = 24) -> str:
    """The screen as text without styles."""
    paper = Console(file=io.StringIO(), width=width, height=height, color_system=None, _environ={})
    paper.print(view.renderable(now), end="")
    assert isinstance(paper.file, io.StringIO)
    return "\n".join(line.rstrip() for line in paper.file.getvalue().splitlines())
