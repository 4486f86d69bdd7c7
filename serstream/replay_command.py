"""``serstream replay -o``: a folder of recordings, with progress."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from serstream.config import Settings
from serstream.offline import find_jobs, score_all
from serstream.types import Role
from serstream.view.console import console

LINE_S = 10.0
"""Seconds between two lines of progress where there is no terminal."""


def replay_into(
    output: Path,
    paths: Sequence[Path],
    settings: Settings,
    base: Path,
    roles: tuple[Role, ...],
    processes: int,
) -> int:
    """Score recordings into one file of events each.

    Returns:
        0, or 2 if a recording could not be read; the others have their events all the same.

    Raises:
        SourceError: a path does not exist, or no recording was found.
    """
    jobs = find_jobs(paths, output)
    missing = [job for job in jobs if not os.path.exists(job.events)]
    errors = console(stderr=True)
    progress = Progress(
        TextColumn("scoring"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        console=errors,
        disable=not errors.is_terminal,
    )
    began, seconds, failed, next_line = time.monotonic(), 0.0, 0, LINE_S
    with progress:
        task = progress.add_task("", total=len(jobs), completed=len(jobs) - len(missing), rate="")
        for n, done in enumerate(score_all(missing, settings, base, roles, processes), 1):
            if done.error:
                failed += 1
                told = f"serstream: error: {done.error}"
                progress.console.print(told, markup=False, highlight=False, soft_wrap=True)
            seconds += done.seconds
            elapsed = time.monotonic() - began
            rate = f"{seconds / 60 / max(elapsed, 1e-9):.1f} h of sound a minute"
            progress.update(task, advance=1, rate=rate)
            if not errors.is_terminal and elapsed >= next_line:
                print(f"{n} of {len(missing)} recordings, {rate}", file=sys.stderr)
                next_line = elapsed + LINE_S
    kept = len(jobs) - len(missing)
    print(
        f"{len(missing) - failed} scored, {kept} already there, {failed} failed; "
        f"{seconds / 3600:.2f} h of sound in {time.monotonic() - began:.1f} s, events in {output}",
        file=sys.stderr,
    )
    return 2 if failed else 0
