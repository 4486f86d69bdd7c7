"""Where a network is trained."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch

from serstream.errors import ConfigError

Device: TypeAlias = Literal["auto", "cpu", "cuda"]
CPU = torch.device("cpu")


def choose(wanted: Device) -> torch.device:
    """The device itself; ``auto`` is CUDA where there is any.

    Raises:
        ConfigError: CUDA is wanted and torch cannot use it.
    """
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return CPU
    if not torch.cuda.is_available():
        raise ConfigError(
            f"device cuda: torch {torch.__version__} finds no CUDA device here; look at 'nvidia-smi', or "
            "train with --device cpu"
        )
    return torch.device("cuda")
