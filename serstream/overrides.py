"""Single keys set from outside the file: ``--set feed.history=9`` and ``SERSTREAM_FEED__HISTORY=9``.

A value is read as TOML, and taken for a string when it is not TOML. ``rtp[0].port`` names a key of the first
``[[rtp]]``; in the environment that is ``SERSTREAM_RTP__0__PORT``. An index one past the end appends a table.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serstream.errors import ConfigError

PREFIX = "SERSTREAM_"
NESTING = "__"
"""Between the parts of a key in a variable's name; variables without it are none of ours."""


@dataclass(frozen=True, slots=True)
class Override:
    """One key and the value it gets."""

    origin: str
    """Where it was given, for errors."""
    key: tuple[str | int, ...]
    value: Any


def from_everywhere(assignments: Iterable[str]) -> list[Override]:
    """Credentials, the environment and the assignments of ``--set``, the last of which win.

    Raises:
        ConfigError: one of them is none.
    """
    credentials = os.environ.get("CREDENTIALS_DIRECTORY", "")
    return [
        *(from_credentials(Path(credentials)) if credentials else ()),
        *from_environment(os.environ),
        *from_arguments(assignments),
    ]


def from_arguments(assignments: Iterable[str]) -> list[Override]:
    """What ``--set key=value`` was given.

    Raises:
        ConfigError: an assignment has no ``=`` or its key is none.
    """
    pairs = (text.partition("=") for text in assignments)
    # The value may be a key of SRTP, which no error shows.
    return [_override(f"--set {key}", key, value, given=bool(sign)) for key, sign, value in pairs]


def from_environment(environment: Mapping[str, str]) -> list[Override]:
    """What variables like ``SERSTREAM_FEED__ENDPOINT`` set, sorted by name.

    Raises:
        ConfigError: a variable's name is no key.
    """
    return [
        _override(name, name.removeprefix(PREFIX).lower().replace(NESTING, "."), environment[name])
        for name in sorted(environment)
        if name.startswith(PREFIX) and NESTING in name.removeprefix(PREFIX)
    ]


def from_credentials(directory: Path) -> list[Override]:
    """What systemd's credentials set: a file's name is a key like ``rtp.0.srtp``, its content the value.

    Files whose name has no dot are none of ours.

    Raises:
        ConfigError: a file cannot be read, or its name is no key.
    """
    try:
        contents = {path.name: path.read_text().strip() for path in sorted(directory.glob("*.*"))}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"credentials {directory}: cannot read them: {error}") from error
    return [_override(f"credential {name}", name, content) for name, content in contents.items()]


def apply(overrides: Iterable[Override], tables: dict[str, Any]) -> None:
    """Lay the overrides over TOML tables, in place and in order.

    Raises:
        ConfigError: a key leads through something that is not a table, or names an index too high.
    """
    for override in overrides:
        *path, last = override.key
        here: Any = tables
        for step, following in zip(path, override.key[1:], strict=True):
            here = _enter(here, step, [] if isinstance(following, int) else {}, override)
        _enter(here, last, None, override)
        here[last] = override.value


def _override(origin: str, key: str, value: str, given: bool = True) -> Override:
    steps = [int(step) if step.isdigit() else step for step in re.findall(r"[a-z_0-9]+", key)]
    if not given or not re.fullmatch(r"[a-z_]+((\.[a-z_0-9]+)|(\[[0-9]+\]))+", key.strip()):
        raise ConfigError(f"{origin}: wanted KEY=VALUE with a key like feed.endpoint or rtp[0].port")
    return Override(origin, tuple(steps), _value(value))


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _enter(here: Any, step: str | int, missing: Any, override: Override) -> Any:
    """What lies at ``here[step]``; ``missing`` is put there when there is nothing."""
    if isinstance(step, int) and isinstance(here, list):
        if step > len(here):
            raise ConfigError(f"{override.origin}: there are {len(here)} of them, wanted an index up to that")
        if step == len(here):
            here.append(missing)
    elif isinstance(step, str) and isinstance(here, dict):
        here.setdefault(step, missing)
    else:
        wanted = "a key" if isinstance(here, dict) else "an index" if isinstance(here, list) else "no more"
        raise ConfigError(f"{override.origin}: {step!r} stands where {wanted} is expected")
    return here[step]
