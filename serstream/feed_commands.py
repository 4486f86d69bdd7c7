"""``serstream keys``, ``report`` and ``export``: what is done with the feed apart from listening to it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from serstream import config
from serstream.command_line import add_command, add_group, table_console
from serstream.errors import ConfigError
from serstream.overrides import from_everywhere

if TYPE_CHECKING:
    from serstream.command_line import Commands


def add_parsers(commands: Commands) -> None:
    """Add the commands to the main parser."""
    keys = add_group(
        commands,
        "keys",
        "keys for subscribers",
        "Make a key for a client of a feed that can be reached from other machines, and one for the daemon\n"
        "if it has none. Hand the client's file over a safe way. A running daemon accepts the new key\n"
        "within a second; to revoke it remove DIR/clients/NAME.public.",
        "  serstream keys new wallboard\n"
        "  serstream keys new wallboard --keys /etc/serstream/keys -o wallboard.toml",
    )
    new = add_command(keys, "new", _new_key, "make a key for a client")
    new.add_argument("name", metavar="NAME", help="the client's name, for the logs")
    new.add_argument(
        "--keys", type=Path, default=Path("keys"), metavar="DIR", help="feed.keys (default: %(default)s)"
    )
    new.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="file for the client (default: NAME.toml)"
    )

    report = add_command(
        commands,
        "report",
        _report,
        "a page for each recorded call",
        "Draw recorded events as HTML: a timeline of both parties, alerts and a summary on one page per\n"
        "call that needs nothing but a browser. With several calls each file's name gets the call's.",
        "  serstream replay call.wav --roles customer,agent > events.jsonl\n"
        "  serstream report events.jsonl -o call.html",
    )
    report.add_argument("recording", type=Path, metavar="FILE", help="JSON lines of listen or replay")
    report.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="page to write")

    export = add_command(
        commands,
        "export",
        _export,
        "recorded events in another format",
        "Print recorded events in a standard format: EmotionML 1.0 of the W3C, one emotion per utterance.",
        "  serstream export --emotionml events.jsonl > call.xml",
    )
    export.add_argument("recording", type=Path, metavar="FILE", help="JSON lines of listen or replay")
    export.add_argument("--emotionml", action="store_true", required=True, help="EmotionML 1.0")


def print_trials(arguments: argparse.Namespace) -> int:
    """Print what the alert rules of a configuration would have raised per hour of recorded events."""
    from rich.table import Table

    from serstream.emotion.trial import try_rules

    alerts = config.load(arguments.rules, from_everywhere(arguments.set)).alert
    if not alerts:
        raise ConfigError(f"configuration {arguments.rules}: has no [[alert]], wanted the rules to try")
    table = Table("rule", "role", "severity", "raised", "per hour", "share of time")
    for trial in try_rules(arguments.file, alerts):
        share = trial.raised_s / 3600 / trial.hours if trial.hours else 0.0
        rule = trial.rule
        table.add_row(
            rule.name, rule.role, rule.severity, str(trial.raised), f"{trial.per_hour:.1f}", f"{share:.1%}"
        )
    table_console().print(table)
    return 0


def _new_key(arguments: argparse.Namespace) -> int:
    from serstream.feed.keys import new_client

    to = arguments.output or Path(f"{arguments.name}.toml")
    new_client(arguments.keys, arguments.name, to)
    print(
        f"{to}: hand it to {arguments.name}, then delete it here; the daemon needs "
        f'feed.keys = "{arguments.keys}"'
    )
    return 0


def _report(arguments: argparse.Namespace) -> int:
    from serstream.view.report import write_reports

    for path in write_reports(arguments.recording, arguments.output):
        print(path)
    return 0


def _export(arguments: argparse.Namespace) -> int:
    from serstream.feed.emotionml import export

    sys.stdout.buffer.write(export(arguments.recording).encode())
    return 0
