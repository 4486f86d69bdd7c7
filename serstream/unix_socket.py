"""Who has a socket file. ZeroMQ would wait in silence for a dead one, and bind over a living one."""

from __future__ import annotations

import os
import socket
from pathlib import Path


def connect_error(path: Path) -> OSError | None:
    """Why nobody can be reached there, or None: somebody listens."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(os.fspath(path))
        except OSError as error:
            return error
    return None
