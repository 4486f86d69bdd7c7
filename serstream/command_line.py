"""What the commands have in common: how they are added, their configuration, the roles of recordings."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from serstream import config
from serstream.overrides import from_everywhere
from serstream.types import Role

TABLE_WIDTH = 1000
"""Columns where there is no terminal; a table takes as many as it needs."""

if TYPE_CHECKING:
    from rich.console import Console

    Commands: TypeAlias = argparse._SubParsersAction[argparse.ArgumentParser]


def add_command(
    commands: Commands,
    name: str,
    run: Callable[[argparse.Namespace], int],
    help: str,
    text: str = "",
    examples: str = "",
) -> argparse.ArgumentParser:
    """Add a command.

    Args:
        commands: where to.
        name: what the user types.
        run: does it; returns the exit code.
        help: one line, for the list of commands.
        text: what it does; empty: ``help`` says it all.
        examples: lines of shell.
    """
    command = _add(commands, name, help, text, examples)
    command.set_defaults(command=run)
    return command


def add_group(commands: Commands, name: str, help: str, text: str = "", examples: str = "") -> Commands:
    """Add a command that has commands of its own; the arguments are those of `add_command`."""
    group = _add(commands, name, help, text, examples)
    return group.add_subparsers(title="commands", required=True, metavar="COMMAND")


def _add(commands: Commands, name: str, help: str, text: str, examples: str) -> argparse.ArgumentParser:
    return commands.add_parser(
        name,
        help=help,
        description=text or help,
        epilog=f"examples:\n{examples}" if examples else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_configuration(
    command: argparse.ArgumentParser,
    help: str = "serstream.toml (default: all defaults)",
    required: bool = False,
) -> None:
    """Give a command ``-c`` and ``--set``, for `configuration`."""
    command.add_argument("-c", "--config", type=Path, required=required, metavar="FILE", help=help)
    add_set(command)


def add_set(command: argparse.ArgumentParser) -> None:
    """Give a command ``--set``; its configuration is named otherwise."""
    command.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="one key of the configuration, e.g. feed.history=1000 or rtp[0].port=6000; may be repeated. "
        "SERSTREAM_FEED__HISTORY=1000 and SERSTREAM_RTP__0__PORT=6000 in the environment do the same",
    )


def configuration(arguments: argparse.Namespace, only: Sequence[str] = ()) -> tuple[config.Settings, Path]:
    """What ``config``, the environment and ``--set`` say, and the folder that relative paths start from.

    Args:
        arguments: of a command with `add_configuration`.
        only: as of `serstream.config.load`.

    Raises:
        ConfigError: the file or an override is not understood.
    """
    settings = config.load(arguments.config, from_everywhere(arguments.set), only)
    return settings, arguments.config.parent if arguments.config else Path()


def add_roles(command: argparse.ArgumentParser) -> None:
    """Give a command ``--roles``, for `channel_roles`."""
    command.add_argument(
        "--roles", default="", metavar="ROLE,…", help="one role per channel: customer, agent or unknown"
    )


def channel_roles(arguments: argparse.Namespace) -> tuple[Role, ...]:
    """One for each channel; empty: not said.

    Raises:
        ConfigError: one of them is none.
    """
    named = tuple(filter(None, arguments.roles.split(",")))
    (file,) = config.parse({"file": [{"path": "", "roles": named}]}, "--roles").file
    return file.roles


def table_console() -> Console:
    """Standard output for tables: as wide as the terminal; off one nothing is wrapped."""
    from serstream.view.console import console

    return console(width=None if sys.stdout.isatty() else TABLE_WIDTH)
