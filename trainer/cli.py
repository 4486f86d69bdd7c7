"""Command line of the trainer."""

from __future__ import annotations


def main() -> int:
    """Entry point of ``serstream-train``."""
    raise SystemExit("serstream-train: being written")
