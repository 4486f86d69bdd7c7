"""``serstream bench capacity``: how many streams this machine bears."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from itertools import count
from typing import TYPE_CHECKING

from serstream.command_line import add_command, add_group
from serstream.errors import ConfigError

if TYPE_CHECKING:
    from serstream.command_line import Commands

FIRST, STRIDE = (50, 250, 500), 250
"""Streams of the first steps; then so many more each time."""


def add_parser(commands: Commands) -> None:
    """Add ``bench`` to ``serstream``."""
    capacity = add_command(
        add_group(commands, "bench", "measure what this machine bears"),
        "capacity",
        _capacity,
        "how many streams at once",
        "Start a daemon, send G.711 RTP streams of recorded speech to it, subscribe, and raise\n"
        "their number until a window is lost or the 99th percentile of the latency, from the packet that\n"
        "completes a window to its event at the subscriber, exceeds 150 ms. A line of progress a step; the\n"
        "last line is one JSON object. docs/capacity.md says how to read it.",
        "  serstream bench capacity\n  serstream bench capacity --streams 500,1000 --seconds 20",
    )
    capacity.add_argument(
        "--streams",
        type=_counts,
        default=None,
        metavar="N,…",
        help="numbers to try in turn (default: 50, 250, 500 and 250 more each time)",
    )
    capacity.add_argument(
        "--seconds", type=float, default=60.0, metavar="S", help="of each step that count (default: 60)"
    )
    capacity.add_argument(
        "--talk-share",
        type=float,
        default=0.5,
        metavar="SHARE",
        help="of the time that each stream talks (default: 0.5)",
    )
    capacity.add_argument(
        "--daemons",
        type=int,
        default=1,
        metavar="N",
        help="that share the streams and the cores, as instances of serstream@.service do (default: 1)",
    )
    capacity.add_argument(
        "--cores",
        type=_numbers,
        default=None,
        metavar="CORE,…",
        help="where the daemons may run (default: all but the last, on which generators and subscriber do)",
    )


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r}, wanted whole numbers with a comma between them, e.g. 1,2"
        ) from error


def _counts(text: str) -> tuple[int, ...]:
    if min(numbers := _numbers(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}, wanted at least one stream in each step, e.g. 500,1000")
    return numbers


def _steps() -> Iterator[int]:
    yield from FIRST
    yield from count(FIRST[-1] + STRIDE, STRIDE)


def _capacity(arguments: argparse.Namespace) -> int:
    import msgspec

    from serstream.bench.capacity import LATENCY_LIMIT_MS, Conditions, raise_load

    if not 0 < arguments.talk_share <= 1 or arguments.seconds <= 0:
        raise ConfigError(
            f"--talk-share is {arguments.talk_share} and --seconds {arguments.seconds}, "
            "wanted a share above 0 and up to 1, and more than 0 s"
        )
    if arguments.daemons < 1:
        raise ConfigError(f"--daemons is {arguments.daemons}, wanted at least 1")
    cores = sorted(os.sched_getaffinity(0))
    wanted = arguments.cores or tuple(cores[:-1] or cores)
    if not set(wanted) <= set(cores):
        raise ConfigError(f"--cores is {wanted}, this process may use {cores}")
    conditions = Conditions(
        seconds=arguments.seconds,
        talk_share=arguments.talk_share,
        daemons=arguments.daemons,
        daemon_cores=wanted,
        generator_cores=(cores[-1],),
    )
    steps = []
    for step in raise_load(arguments.streams or _steps(), conditions):
        steps.append(step)
        print(
            f"{step.streams} streams: {'sustained' if step.sustained else 'NOT SUSTAINED'}; "
            f"{step.windows} windows, {step.windows_lost} lost, {step.windows_shed} shed, "
            f"{step.streams_muted} streams muted; "
            f"median {step.median_ms} ms, p99 {step.p99_ms} ms; "
            f"{'daemons' if arguments.daemons > 1 else 'daemon'} {step.daemon_cpu:.2f} cores, "
            f"generator {step.generator_cpu:.2f}",
            file=sys.stderr,
            flush=True,
        )
    result = {
        "benchmark": "capacity",
        "streams_sustained": max((step.streams for step in steps if step.sustained), default=0),
        "p99_limit_ms": LATENCY_LIMIT_MS,
        "conditions": msgspec.to_builtins(conditions),
        "steps": msgspec.to_builtins(steps),
    }
    print(json.dumps(result))
    return 0
