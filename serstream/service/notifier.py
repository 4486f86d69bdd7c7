"""What systemd is told: sd_notify(3), its watchdog and its file descriptor store; without systemd nothing."""

from __future__ import annotations

import logging
import re
import socket
import struct
from collections.abc import MutableMapping

log = logging.getLogger(__name__)


class Notifier:
    """Tells systemd how the daemon is.

    Args:
        environment: ``NOTIFY_SOCKET`` and ``WATCHDOG_USEC`` are taken out of it, so that no child process
            inherits them.
    """

    def __init__(self, environment: MutableMapping[str, str]):
        self._address = re.sub("^@", "\0", environment.pop("NOTIFY_SOCKET", ""))
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) if self._address else None
        watchdog_s = int(environment.pop("WATCHDOG_USEC", "0")) / 1e6
        self._ping_s = watchdog_s / 4
        self._next_ping = 0.0
        self._status = ""

    def ready(self) -> None:
        """Start-up or a reload is over."""
        self._send("READY=1")

    def reloading(self, now: float) -> None:
        """A reload begins; `ready` ends it.

        Args:
            now: monotonic seconds.
        """
        self._send("RELOADING=1", f"MONOTONIC_USEC={round(now * 1e6)}")

    def stopping(self) -> None:
        """The shutdown begins."""
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        """One line for ``systemctl status``; sent when it changes."""
        if text != self._status:
            self._status = text
            self._send(f"STATUS={text}")

    def progress(self, now: float) -> None:
        """Feed the watchdog, if there is one; call it only when something has really advanced.

        Args:
            now: monotonic seconds.
        """
        if self._ping_s and now >= self._next_ping:
            self._next_ping = now + self._ping_s
            self._send("WATCHDOG=1")

    def store(self, name: str, kept: socket.socket) -> None:
        """Let systemd hold a socket, so that the next start of the service gets it with all it has queued."""
        self._send("FDSTORE=1", f"FDNAME={name}", "FDPOLL=0", kept=kept)

    def forget(self, name: str) -> None:
        """Take a socket out of the store."""
        self._send("FDSTOREREMOVE=1", f"FDNAME={name}")

    def _send(self, *assignments: str, kept: socket.socket | None = None) -> None:
        if self._socket is None:
            return
        message = "\n".join(assignments).encode()
        descriptors = (
            [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", kept.fileno()))] if kept else []
        )
        try:
            # Not connected: systemd may start anew behind the same address (send_fds ignores its address).
            self._socket.sendmsg([message], descriptors, 0, self._address)
        except OSError as error:
            log.warning("systemd: cannot notify it of %s: %s", assignments[0], error)
