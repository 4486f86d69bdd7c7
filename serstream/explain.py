"""What is wrong with a TOML file, in its own words: the key, the value seen, the values wanted."""

from __future__ import annotations

import difflib
import re
from typing import Any

import msgspec
from msgspec import inspect


def explain(error: msgspec.ValidationError, tables: dict[str, Any], kind: type[msgspec.Struct]) -> str:
    """Msgspec's message with key names as TOML writes them, the value seen, and what would be right.

    Args:
        error: what converting ``tables`` to ``kind`` raised.
        tables: the file.
        kind: the struct of the whole file.
    """
    text, _, path = str(error).partition(" - at `$")
    steps = re.findall(r"[^.\[\]`]+", path)
    key = re.sub(r"^\.", "", path.rstrip("`"))
    wanted = _type_at(inspect.type_info(kind), steps)
    if unknown := re.search(r"unknown field `(.+)`", text):
        known = [field.name for field in wanted.fields] if isinstance(wanted, inspect.StructType) else []
        near = difflib.get_close_matches(unknown[1], known, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"known keys: {', '.join(known)}"
        return f"unknown key '{'.'.join(filter(None, (key, unknown[1])))}'; {hint}"
    if isinstance(wanted, inspect.LiteralType):
        text = f"wanted one of {', '.join(map(str, wanted.values))}"
    value = _value_at(tables, steps)
    if isinstance(value, dict):  # not shown: it is long, and may hold secrets
        if isinstance(wanted, inspect.VarTupleType):
            text = f"wanted a list of tables: write [[{key}]] for each"
        return f"{f'[{key}]' if key else 'top level'}: {text}"
    return f"{key or 'top level'} is {value!r}: {text}"


def _value_at(value: Any, steps: list[str]) -> Any:
    for step in steps:
        if isinstance(value, dict):
            value = value.get(step)
        elif isinstance(value, list | tuple) and step.isdigit():
            value = value[int(step)]
    return value


def _type_at(kind: inspect.Type, steps: list[str]) -> inspect.Type:
    for step in steps:
        if isinstance(kind, inspect.StructType):
            kind = next(field.type for field in kind.fields if field.name == step)
        elif isinstance(kind, inspect.VarTupleType):
            kind = kind.item_type
    return kind
