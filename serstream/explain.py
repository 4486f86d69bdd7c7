"""What is wrong with a TOML file, in its own words: the key, the value seen, the values wanted."""

from __future__ import annotations

import difflib
import re
from typing import Any

import msgspec
from msgspec import inspect

_WORDS = {
    "array": "a list",
    "bool": "true or false",
    "float": "a number",
    "int": "a whole number",
    "object": "a table",
    "str": "a string",
}
"""What msgspec calls it, and what TOML does."""


_SECRETS = {"srtp", "sdp"}
"""Keys whose values hold SRTP keys, which no log may show."""


def explain(error: msgspec.ValidationError, tables: dict[str, Any], kind: type[msgspec.Struct]) -> str:
    """Msgspec's message with key names as TOML writes them, the value seen, and what would be right.

    Args:
        error: what converting ``tables`` to ``kind`` raised.
        tables: the file.
        kind: the struct of the whole file.
    """
    text, _, path = str(error).partition(" - at `$")
    steps = re.findall(r"\.{3}|[^.\[\]`]+", path)
    key = re.sub(r"^\.", "", path.rstrip("`"))
    wanted = _type_at(inspect.type_info(kind), steps)
    value = _value_at(tables, steps)
    if unknown := re.search(r"unknown field `(.+)`", text):
        known = [field.name for field in wanted.fields] if isinstance(wanted, inspect.StructType) else []
        near = difflib.get_close_matches(unknown[1], known, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"known keys: {', '.join(known)}"
        return f"unknown key '{'.'.join(filter(None, (key, unknown[1])))}'; {hint}"
    if isinstance(value, dict) and isinstance(wanted, inspect.VarTupleType):
        return f"[{key}]: wanted a list of tables: write [[{key}]] for each"
    if isinstance(value, list) and isinstance(wanted, inspect.StructType):
        return f"[[{key}]]: wanted one table: write [{key}] once"
    if choices := _choices(wanted):
        text = f"wanted one of {', '.join(choices)}"
    elif missing := re.fullmatch(r"Object missing required field `(.+)`", text):
        text = f"the key '{missing[1]}' is missing"
    elif expected := re.fullmatch(r"Expected `(.+?)`(?:, got .*)?(.*)", text):
        names = (_WORDS.get(name, name) for name in expected[1].split(" | ") if name != "null")
        text = f"wanted {' or '.join(names)}{expected[2]}"
    if isinstance(value, dict) and isinstance(wanted, inspect.StructType):
        return f"{f'[{key}]' if key else 'top level'}: {text}"  # the table is long, and may hold secrets
    if _SECRETS & set(steps):
        return f"{key}: {text}"
    return f"{key} is {value!r}: {text}"


def _value_at(value: Any, steps: list[str]) -> Any:
    for step in steps:
        if isinstance(value, dict):
            value = value.get(step, value)
        elif isinstance(value, list | tuple) and step.isdigit():
            value = value[int(step)]
    return value


def _type_at(kind: inspect.Type, steps: list[str]) -> inspect.Type:
    for step in steps:
        kind = _when_there(kind)
        if isinstance(kind, inspect.StructType):
            kind = next(field.type for field in kind.fields if field.name == step)
        elif isinstance(kind, inspect.VarTupleType):
            kind = kind.item_type
        elif isinstance(kind, inspect.DictType):
            kind = kind.value_type
    return _when_there(kind)


def _when_there(kind: inspect.Type) -> inspect.Type:
    """The table that an optional one is; others as they are."""
    kinds = kind.types if isinstance(kind, inspect.UnionType) else ()
    tables = [one for one in kinds if isinstance(one, inspect.StructType)]
    return tables[0] if len(tables) == 1 else kind


def _choices(kind: inspect.Type) -> list[str]:
    """What stands for itself; nothing when other values are allowed as well."""
    kinds = kind.types if isinstance(kind, inspect.UnionType) else (kind,)
    literals = [one for one in kinds if isinstance(one, inspect.LiteralType)]
    return [str(value) for one in literals for value in one.values] if len(literals) == len(kinds) else []
