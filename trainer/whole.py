"""Files that are there as a whole or not at all, wherever a command is interrupted."""

from __future__ import annotations

import io
import os
import pickle  # nosec B403 # for the name of its error
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

BROKEN_ARRAYS = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    ValueError,
    KeyError,
    SyntaxError,
    tokenize.TokenError,
)
"""What numpy raises about an .npy or .npz file that a disk has cut or spoilt."""
BROKEN_WEIGHTS = (
    OSError,
    EOFError,
    RuntimeError,
    pickle.UnpicklingError,
    LookupError,
    TypeError,
    ValueError,
)
"""What torch raises about such a file of weights."""


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Where to write what becomes ``path`` at the end of the block.

    An exception in the block leaves ``path`` as it was. Several processes may write the same file.
    """
    unfinished = path.with_name(f"{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        yield unfinished
        with unfinished.open("rb") as written:
            os.fsync(written.fileno())  # else a power cut may leave the new name with nothing in it
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_weights(path: Path, stored: Mapping[str, Any]) -> None:
    """Keep what `torch.load` reads back, whole or not at all.

    Raises:
        OSError: the disk is full; torch itself would raise a RuntimeError that does not say so.
    """
    serialised = io.BytesIO()
    torch.save(dict(stored), serialised)
    with whole(path) as unfinished:
        unfinished.write_bytes(serialised.getbuffer())
