"""Which call a stream belongs to, and who speaks in it."""

from __future__ import annotations

import ipaddress
from collections import Counter

from serstream.config import RtpSettings
from serstream.rtp.datagrams import Sender, address_of
from serstream.types import Role


class Parties:
    """Names the call and the role of each stream of one port, as ``call``, ``parties`` and ``roles`` say.

    Args:
        settings: of the port.
        name: what the names of calls begin with.
        numbers: as for `serstream.rtp.streams.Streams`.
    """

    def __init__(self, settings: RtpSettings, name: str, numbers: Counter[str]):
        self._settings = settings
        self._name = f"{name}-call"
        self._numbers = numbers
        self._by_ssrc: dict[int, Role] = {}
        by_network = []
        for key, role in settings.roles.items():
            if key.startswith("0x"):
                self._by_ssrc[int(key, 16)] = role
            else:
                by_network.append((ipaddress.ip_network(key), role))
        self._by_network = sorted(by_network, key=lambda entry: -entry[0].prefixlen)
        self._present: dict[str, Role] = {}
        """Live streams with their roles; the members of the current call where ``parties`` pairs them."""

    def join(self, stream: str, sender: Sender, ssrc: int) -> tuple[str, Role]:
        """Call and role of a stream that begins."""
        if self._settings.parties and not self._present:
            self._numbers[self._name] += 1
        role = self._role(sender, ssrc)
        self._present[stream] = role
        if self._settings.call:
            return self._settings.call, role
        if self._settings.parties:
            return f"{self._name}-{self._numbers[self._name]}", role
        return stream, role

    def leave(self, stream: str) -> None:
        """The stream is over."""
        del self._present[stream]

    def may_be(self, stream: str, sender: Sender, ssrc: int) -> bool:
        """Whether an SSRC may be the party of a live stream: its role is the same, or nothing says which."""
        return self._role(sender, ssrc) in ("unknown", self._present[stream])

    def _role(self, sender: Sender, ssrc: int) -> Role:
        """Of a stream that begins."""
        return self._stated(sender, ssrc) or self._vacant() or self._settings.role

    def _stated(self, sender: Sender, ssrc: int) -> Role | None:
        """What ``roles`` says: an SSRC wins over a network, a narrow network over a wide one."""
        if ssrc in self._by_ssrc:
            return self._by_ssrc[ssrc]
        if not self._by_network:
            return None
        ip, _ = address_of(sender)
        return next((role for network, role in self._by_network if ip in network), None)

    def _vacant(self) -> Role | None:
        """The first of ``parties`` that nobody on the port has."""
        taken = list(self._present.values())
        return next((role for role in self._settings.parties if role not in taken), None)
