"""Who has a socket file. ZeroMQ would wait in silence for a dead one, and bind over a living one."""

from __future__ import annotations

import errno
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


def check_free(path: Path) -> None:
    """Look before ZeroMQ binds: it would remove whatever has the path.

    Raises:
        OSError: EEXIST, something has it that is no socket; EADDRINUSE, somebody listens there.
    """
    if not path.exists():
        return
    if not path.is_socket():
        raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))
    if not isinstance(connect_error(path), ConnectionRefusedError):
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
