"""Where the control socket's file is, for the daemon that makes it and for the commands that look for it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from serstream.errors import ControlError

SERVICE_SOCKET = Path("/run/serstream/control")
"""Of the installed service."""

MAX_PATH_BYTES = 107
"""Room for a path in ``sockaddr_un``, its final zero left out."""


def socket_path(configured: str, base: Path = Path()) -> Path:
    """Where the endpoint is.

    Args:
        configured: ``control.socket``, relative to ``base``. Empty: ``control`` in systemd's runtime
            directory; without systemd in /run/serstream for root, else in ``$XDG_RUNTIME_DIR/serstream``,
            else in a directory of the user's own among the temporary files.
        base: folder of the configuration file.
    """
    if configured:
        return (base / configured).absolute()
    if directory := os.environ.get("RUNTIME_DIRECTORY"):
        return Path(directory.partition(":")[0], "control")
    if os.getuid() == 0:
        return SERVICE_SOCKET
    if directory := os.environ.get("XDG_RUNTIME_DIR"):
        return Path(directory, "serstream", "control")
    return Path(tempfile.gettempdir(), f"serstream-{os.getuid()}", "control")


def find_socket(configured: str, base: Path = Path()) -> Path:
    """Where a command asks: at `socket_path`, else, if none is configured, the service that is installed.

    The service's own user has no ``$RUNTIME_DIRECTORY`` in a shell, and would take it for stopped.
    """
    path = socket_path(configured, base)
    if configured or os.path.exists(path) or not os.path.exists(SERVICE_SOCKET):
        return path
    return SERVICE_SOCKET


def make_private_directory(directory: Path) -> None:
    """The socket's directory, ours alone if it must be made.

    Raises:
        ControlError: it cannot be made, or belongs to a stranger.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = directory.stat()
    except OSError as error:
        raise ControlError(
            f"control socket: cannot make {directory}: {error.strerror}; set control.socket"
        ) from error
    if status.st_uid not in (0, os.getuid()):
        raise ControlError(
            f"control socket: {directory} belongs to user {status.st_uid}, not to us; set control.socket"
        )
