"""Log records as systemd's journal wants them, with a priority and fields (its native protocol)."""

from __future__ import annotations

import logging
import os
import socket
import struct
import sys
from collections.abc import Mapping

SOCKET = "/run/systemd/journal/socket"
_PRIORITIES = ((logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
"""Lowest level to syslog priority, RFC 5424; below all of them: debug."""


def under_journal(environment: Mapping[str, str]) -> bool:
    """Whether stderr goes to the journal (systemd.exec(5), ``JOURNAL_STREAM``)."""
    try:
        status = os.fstat(sys.stderr.fileno())
    except OSError:
        return False
    return environment.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


class JournalHandler(logging.Handler):
    """Sends each record as one datagram; what the journal does not take goes to stderr."""

    def __init__(self, address: str = SOCKET):
        super().__init__()
        self._address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record."""
        fields = {
            "MESSAGE": self.format(record),
            "PRIORITY": str(next((p for level, p in _PRIORITIES if record.levelno >= level), 7)),
            "SYSLOG_IDENTIFIER": "serstream",
            "LOGGER": record.name,
            "THREAD": record.threadName or "",
            "CODE_FILE": record.pathname,
            "CODE_LINE": str(record.lineno),
        }
        try:
            self._socket.sendto(b"".join(map(_field, fields, fields.values())), self._address)
        except OSError:
            print(fields["MESSAGE"], file=sys.stderr)


def _field(name: str, value: str) -> bytes:
    """One field; the form with a length, which any value fits into."""
    encoded = value.encode("utf-8", "replace")
    return name.encode() + b"\n" + struct.pack("<Q", len(encoded)) + encoded + b"\n"
