"""UDP sockets that outlive the process: sd_listen_fds(3) and systemd's file descriptor store."""

from __future__ import annotations

import ipaddress
import logging
import os
import re
import socket
from collections.abc import Mapping, MutableMapping
from typing import TypeAlias

from serstream.rtp.datagrams import Bind
from serstream.service.notifier import Notifier

log = logging.getLogger(__name__)

LISTEN_FDS_START = 3
"""First file descriptor that systemd passes (sd_listen_fds(3))."""

Address: TypeAlias = tuple[str, int]
"""Local IP address, as getsockname(2) writes it, and port."""


class SocketShelf:
    """The UDP sockets that outlive the process: systemd holds them and passes them to the next start.

    They come from a socket unit, or from the store where `open` has put them.

    Args:
        notifier: through which new sockets are stored.
        inherited: as `inherited_sockets` gives them.
    """

    def __init__(self, notifier: Notifier, inherited: Mapping[Address, tuple[str, socket.socket]]):
        self._notifier = notifier
        self._waiting = {_address(*key): passed for key, passed in inherited.items()}
        """Name and socket of what `open` shall find."""
        self._opened: dict[Address, tuple[str, socket.socket]] = {}

    def open(self, address: str, port: int, bind: Bind) -> socket.socket:
        """The waiting socket of an address, or else a new one, which is stored.

        Args:
            address: IP address, however it is written.
            port: UDP port.
            bind: makes the new one.

        Raises:
            SourceError: as ``bind`` raises it.
        """
        key = _address(address, port)
        if found := self._waiting.pop(key, None):
            self._opened[key] = found
            log.info("took over the UDP socket %s:%d with what waits in it", *key)
            return found[1]
        opened = bind(address, port)
        name = f"udp-{re.sub('[^0-9a-f]', '-', key[0])}-{port}"
        self._opened[key] = name, opened
        self._notifier.store(name, opened)
        return opened

    def keep(self, address: str, port: int) -> None:
        """Whoever opened the socket is about to close it, the next one to open its address shall get it."""
        key = _address(address, port)
        name, opened = self._opened.pop(key)
        self._waiting[key] = name, opened.dup()

    def release(self, address: str, port: int) -> None:
        """The socket is no longer used: a later start shall not get it."""
        key = _address(address, port)
        if waiting := self._waiting.pop(key, None):
            waiting[1].close()
        if released := waiting or self._opened.pop(key, None):
            self._notifier.forget(released[0])

    def close_unused(self) -> None:
        """Let go of inherited sockets that nobody opened: their queues would fill for ever."""
        if self._waiting:
            log.warning(
                "systemd: passed the UDP sockets %s, but no [[rtp]] uses them; make serstream.socket and the "
                "configuration agree",
                ", ".join(f"{address}:{port}" for address, port in self._waiting),
            )
        for address, port in list(self._waiting):
            self.release(address, port)


def _address(address: str, port: int) -> Address:
    return str(ipaddress.ip_address(address)), port


def inherited_sockets(
    environment: MutableMapping[str, str], pid: int
) -> dict[Address, tuple[str, socket.socket]]:
    """Name and socket of each UDP socket that systemd has passed, by address; the variables are taken out.

    Args:
        environment: with ``LISTEN_FDS``, ``LISTEN_FDNAMES`` and ``LISTEN_PID``.
        pid: our own; sockets for another process are left alone.
    """
    n = int(environment.pop("LISTEN_FDS", "0"))
    names = environment.pop("LISTEN_FDNAMES", "").split(":")
    found: dict[Address, tuple[str, socket.socket]] = {}
    if environment.pop("LISTEN_PID", "") != str(pid):
        return found
    for i in range(n):
        descriptor = LISTEN_FDS_START + i
        os.set_inheritable(descriptor, False)
        passed = socket.socket(fileno=descriptor)
        address: Address = passed.getsockname()[:2] if passed.type == socket.SOCK_DGRAM else ("", 0)
        name = names[i] if i < len(names) else "unknown"
        if passed.family not in (socket.AF_INET, socket.AF_INET6) or not address[1] or address in found:
            log.warning("systemd: passed %s (%s), wanted one UDP socket per address", name, passed)
            passed.close()
            continue
        passed.setblocking(False)
        found[address] = (name, passed)
    return found
