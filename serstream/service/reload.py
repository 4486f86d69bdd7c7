"""What a reload cannot change, and why."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from serstream.config import Settings

FIXED = {
    "model": "a model is exchanged with 'serstream models activate', which checks it first",
    "feed": "subscribers are connected to its sockets (client keys are read again by themselves)",
    "control": "its socket is how the running daemon is found",
    "metrics": "its port is bound once",
}
"""Table to reason. Every other table is taken over: sources that are configured as before go on undisturbed,
new ones begin, others end; ``[quality]`` and ``[overload]`` hold at once; the rest for later streams.
"""


def fixed_changes(old: Settings, new: Settings) -> Iterator[tuple[str, str]]:
    """Keys that differ although a reload cannot change them, each with the reason."""
    for table, reason in FIXED.items():
        before, after = getattr(old, table), getattr(new, table)
        for key in before.__struct_fields__:
            if getattr(before, key) != getattr(after, key):
                yield f"{table}.{key}", reason


def without_fixed_changes(old: Settings, new: Settings) -> Settings:
    """The new settings, with the tables that a reload cannot change as they are."""
    return msgspec.structs.replace(new, **{table: getattr(old, table) for table in FIXED})
