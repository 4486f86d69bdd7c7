"""What README.md and docs/ point at is there: links, files, commands, make targets, configuration keys."""

import argparse
import importlib.util
import re
import shlex
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import pytest

from serstream import cli, config
from serstream.classify import Verdict

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def prose(text: str) -> str:
    """A page without its code blocks."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def in_blocks(text: str) -> list[str]:
    """Lines of its code blocks."""
    blocks = re.findall(r"^```\w*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [line.removeprefix("$ ") for line in "".join(blocks).replace("\\\n", " ").splitlines()]


def inline(text: str) -> list[str]:
    """Its inline code."""
    return re.findall(r"`([^`\n]+)`", prose(text))


def anchors(text: str) -> set[str]:
    """Of its headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@page
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        where = urlsplit(link)
        if where.scheme:
            continue
        target = page.parent / where.path if where.path else page
        assert target.exists(), link
        assert not where.fragment or where.fragment in anchors(target.read_text()), link


@page
def test_every_file_that_is_named_exists(page: Path) -> None:
    rooms = "serstream|trainer|tests|benchmarks|config|systemd|docs"
    for name in re.findall(rf"(?<![\w/.-])(?:{rooms})/[\w/.-]+\.\w+", page.read_text()):
        assert (ROOT / name).exists(), name


@page
def test_every_module_that_is_run_exists(page: Path) -> None:
    for module in re.findall(r"python -m ((?:serstream|trainer)[\w.]*)", page.read_text()):
        assert importlib.util.find_spec(module), module


@page
def test_every_make_target_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for line in in_blocks(page.read_text()) + inline(page.read_text()):
        if wanted := re.match(r"(?:sudo )?make ([a-z-]+)", line):
            assert wanted[1] in targets, line


@page
def test_every_configuration_key_exists(page: Path) -> None:
    tables = {field.name: field.type for field in msgspec.structs.fields(config.Settings)}
    for text in inline(page.read_text()):
        key = re.fullmatch(r"(\w+)\.(\w+)(?: = .*)?", text)
        if key and key[1] in tables and not text.endswith((".conf", ".json", ".onnx")):
            kind = tables[key[1]]
            assert key[2] in (kind if isinstance(kind, type) else kind.__args__[0]).__struct_fields__, text


def commands(line: str) -> Iterator[list[str]]:
    """The commands of ours in a line of shell."""
    words = shlex.shlex(line, posix=True, punctuation_chars=True)
    words.whitespace_split = True
    for is_mark, group in groupby(words, lambda word: set(word) <= set("|&;<>()")):
        command = list(group)
        if not is_mark and command[0] in ("serstream", "serstream-train"):
            yield command


def parser_of(program: str) -> argparse.ArgumentParser:
    if program == "serstream":
        return cli._parser()
    trainer = pytest.importorskip("trainer.cli", reason="needs the trainer extra")
    parser: argparse.ArgumentParser = trainer._parser()
    return parser


def is_understood(program: str, *arguments: str) -> bool:
    """Whether the program takes these arguments; it is not run."""
    try:
        parser_of(program).parse_args(arguments)
    except SystemExit as end:
        return not end.code
    return True


def is_known(program: str, *arguments: str) -> bool:
    """Whether the program has this command, and the command these options, spelt out."""
    parser = parser_of(program)
    for argument in arguments:
        groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
        if argument.startswith("-"):
            if argument.partition("=")[0] not in parser._option_string_actions:
                return False
        elif groups:
            if argument not in groups[0].choices:
                return False
            parser = groups[0].choices[argument]
    return True


@page
def test_every_command_line_is_understood(page: Path) -> None:
    for line in in_blocks(page.read_text()):
        for command in commands(line) if "serstream" in line else ():
            assert is_understood(*command) and is_known(*command), line


@page
def test_every_command_that_is_spoken_of_exists(page: Path) -> None:
    for text in inline(page.read_text()):
        for command in commands(text) if text.startswith("serstream") else ():
            assert is_known(*command), text


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("serstream models canary", True),
        ("serstream models canary NAME@V --share 0.1", True),
        ("serstream models canari", False),
        ("serstream models canary --shares 0.1", False),
        ("serstream replay call.wav --out events", False),
        ("serstream replay call.wav --share 0.1", False),
    ],
)
def test_a_command_is_known_with_its_own_options_only(text: str, known: bool) -> None:
    assert is_known(*text.split()) == known


def test_every_field_of_a_verdict_is_explained() -> None:
    rows = re.findall(r"^\| (`.*?) \|", (ROOT / "docs" / "classify.md").read_text(), re.MULTILINE)
    assert re.findall(r"`(\w+)`", "".join(rows)) == list(Verdict.__struct_fields__)
