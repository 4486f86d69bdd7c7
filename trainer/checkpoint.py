"""What an interrupted training goes on from: all that changes while it runs, kept after every epoch."""

from __future__ import annotations

import errno
import logging
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

import torch

from trainer.device import CPU
from trainer.whole import BROKEN_WEIGHTS, write_weights

logger = logging.getLogger(__name__)

_KEYS = {"parts", "history", "torch_rng"}
"""Of every checkpoint."""


def save(
    path: Path,
    parts: Mapping[str, Mapping[str, Any]],
    history: Sequence[Any],
    device: torch.device,
    **more: str,
) -> None:
    """Keep a training, whole or not at all, with the states of torch's random numbers.

    Args:
        path: replaced.
        parts: their state dicts, by name.
        history: a dataclass for every epoch.
        device: of the training; CUDA has random numbers of its own.
        more: what else it goes on with.
    """
    rngs = {"torch_rng": torch.get_rng_state()}
    if device.type == "cuda":
        rngs["cuda_rng"] = torch.cuda.get_rng_state(device)
    write_weights(
        path, {"parts": dict(parts), "history": [astuple(epoch) for epoch in history], **rngs, **more}
    )


def load(path: Path) -> dict[str, Any] | None:
    """Read a training back: ``parts``, the fields of every epoch as ``history``, what else was kept by name.

    None where there is nothing to go on from; a file that a disk has spoilt, or that has another layout, is
    logged.
    """
    if not path.is_file():
        return None
    try:
        stored: dict[str, Any] = torch.load(path, weights_only=True, map_location=CPU)
        if missing := _KEYS.difference(stored):
            raise ValueError(f"it has no {', '.join(sorted(missing))}")
    except BROKEN_WEIGHTS as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # that is torch's, of cut files
            raise  # no damage: a training that began anew would replace it
        logger.warning("%s: cannot read it: %s; training begins anew", path, error)
        return None
    return stored


def restore_rng(stored: Mapping[str, Any], device: torch.device) -> None:
    """Go on with the random numbers of a training that was read back."""
    torch.set_rng_state(stored["torch_rng"])
    if device.type == "cuda" and "cuda_rng" in stored:
        torch.cuda.set_rng_state(stored["cuda_rng"], device)
