"""``serstream-train compare``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from serstream.errors import ConfigError
from trainer import corpora, device
from trainer.comparison import paper, system
from trainer.comparison.cells import Cell, Plan
from trainer.comparison.learning import Epoch
from trainer.comparison.splits import PROTOCOLS, shared
from trainer.comparison.table import table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes beside ``--data``, ``--runs`` and ``--device``."""
    parser.add_argument(
        "system", nargs="*", metavar="SYSTEM", help=f"by default all: {', '.join(system.names())}"
    )
    parser.add_argument(
        "--corpus",
        action="append",
        required=True,
        help="may be given several times; ravdess+savee is one corpus of both",
    )
    parser.add_argument(
        "--across",
        action="append",
        default=[],
        metavar="CORPORA",
        help="train systems that say so on one and test on another: emo-db+ravdess; may be given several "
        "times",
    )
    parser.add_argument(
        "--protocol", action="append", choices=PROTOCOLS, help="may be given several times (all)"
    )
    parser.add_argument(
        "--full",
        action="store_true",
        help="all epochs, copies and splits of the studies; by default what a recipe's [short] says",
    )
    parser.add_argument("--seed", type=int, default=0, help="of weights and draws (%(default)s)")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("docs/comparison.md"),
        help="written from all results that are there, with a folder of pictures beside it (%(default)s)",
    )


def compare(arguments: argparse.Namespace) -> None:
    """Run the cells that have no result yet, then write the page.

    Raises:
        ConfigError: the seed is negative.
    """
    if arguments.seed < 0:
        raise ConfigError(f"--seed is {arguments.seed}, wanted 0 or more")
    plan, folder = Plan(arguments.full, arguments.seed), arguments.runs / "comparison"
    everything = {name: system.load(name) for name in system.names()}
    wanted = {name: system.load(name) for name in arguments.system} or everything
    clips = {corpus: corpora.read_all(corpus.split("+"), arguments.data) for corpus in arguments.corpus}
    both = {names: shared(corpora.read_all(names.split("+"), arguments.data)) for names in arguments.across}
    cells = [
        Cell(name, chosen, corpus, clips[corpus], protocol, plan, folder)
        for name, chosen in wanted.items()
        for corpus in clips
        for protocol in arguments.protocol or PROTOCOLS
    ]
    cells += [
        Cell(name, chosen, names, both[names], "corpora", plan, folder)
        for name, chosen in wanted.items()
        if chosen.across
        for names in both
    ]
    computer = device.choose(arguments.device)
    progress = Progress(console=Console(stderr=True), disable=not sys.stderr.isatty())
    with progress:
        task = progress.add_task("", total=len(cells))

        def tell(title: str, number: int, epoch: Epoch) -> None:
            line = f"{title}: epoch {number}, loss {epoch.loss:.3f}, validation {epoch.valid_loss:.3f}"
            if progress.disable:
                print(line, file=sys.stderr, flush=True)
            progress.update(task, description=line)

        for cell in cells:
            cell.run(computer, tell)
            progress.advance(task)
    tables = [table(everything, corpus, clips[corpus], PROTOCOLS, plan, folder) for corpus in clips]
    across = [table(everything, names, both[names], ("corpora",), plan, folder) for names in both]
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    paper.write(tables, across, plan, arguments.output)
    print(arguments.output)
