"""Secure RTP (RFC 3711) with keys from SDP security descriptions (RFC 4568)."""

from __future__ import annotations

import base64
import binascii
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from serstream.errors import ConfigError
from serstream.rtp.datagrams import Datagrams, Source
from serstream.rtp.rtcp import is_rtcp

_PROFILES = {
    "AES_CM_128_HMAC_SHA1_80": ("SRTP_PROFILE_AES128_CM_SHA1_80", 30),
    "AES_CM_128_HMAC_SHA1_32": ("SRTP_PROFILE_AES128_CM_SHA1_32", 30),
    "AEAD_AES_128_GCM": ("SRTP_PROFILE_AEAD_AES_128_GCM", 28),
    "AEAD_AES_256_GCM": ("SRTP_PROFILE_AEAD_AES_256_GCM", 44),
}
"""Crypto suite to the name of its profile in pylibsrtp and the length of master key and salt, bytes."""
SILENT_SENDERS = 1024
"""Senders whose state is kept beside that of the live streams. With four times as many, libsrtp takes three
times as long to find one."""


class Refused(StrEnum):
    """Why a packet did not pass."""

    UNAUTHENTICATED = "not authenticated"
    REPLAYED = "replayed"


@dataclass(frozen=True, slots=True)
class Key:
    """Master key and salt with their crypto suite."""

    suite: str
    secret: bytes

    def __repr__(self) -> str:
        return f"Key({self.suite}, ...)"

    @staticmethod
    def of(crypto: str, where: str) -> Key:
        """Read ``SUITE inline:BASE64[|lifetime][|MKI:length]``, the value of ``a=crypto`` behind its tag.

        Raises:
            ConfigError: unknown suite, or a key that does not fit it. The key itself is never shown.
        """
        suite, _, parameters = crypto.strip().partition(" ")
        if suite not in _PROFILES:
            raise ConfigError(f"{where}: crypto suite {suite!r}, wanted one of {', '.join(_PROFILES)}")
        method, _, value = parameters.strip().partition(":")
        encoded, *options = value.split()[0].split("|") if value.strip() else [""]
        if method != "inline" or any(":" in option for option in options):
            raise ConfigError(f"{where}: wanted '{suite} inline:KEY' with one key and no MKI")
        try:
            secret = base64.b64decode(encoded, validate=True)
        except binascii.Error as error:
            raise ConfigError(f"{where}: the key behind 'inline:' is not base64") from error
        length = _PROFILES[suite][1]
        if len(secret) != length:
            raise ConfigError(f"{where}: {suite} wants a key and salt of {length} bytes, got {len(secret)}")
        return Key(suite, secret)


class Unprotector:
    """Authenticates and decrypts what comes in on one port.

    libsrtp keeps a rollover counter and a replay list per SSRC. They outlive its streams (RFC 3711, section
    3.3.1): the sender counts on after a hold, and a recorded call must not pass as another.

    Args:
        keys: of the senders.
        max_streams: state is kept of so many senders and `SILENT_SENDERS` more, those heard last.
    """

    def __init__(self, keys: Sequence[Key], max_streams: int):
        import pylibsrtp  # only where a port has keys

        self._error = pylibsrtp.Error
        self._sessions = [
            pylibsrtp.Session(
                pylibsrtp.Policy(
                    key=key.secret,
                    ssrc_type=pylibsrtp.Policy.SSRC_ANY_INBOUND,
                    srtp_profile=getattr(pylibsrtp.Policy, _PROFILES[key.suite][0]),
                )
            )
            for key in keys
        ]
        self._senders: OrderedDict[bytes, None] = OrderedDict()
        """SSRCs as on the wire, the one last heard of last."""
        self._max_senders = max_streams + SILENT_SENDERS

    def datagrams(self, datagrams: Datagrams) -> tuple[Datagrams, Counter[Refused]]:
        """Those of RTP and RTCP that pass, plain, and how many did not, by reason."""
        plain: list[tuple[bytes, Source, float]] = []
        refused: Counter[Refused] = Counter()
        for i in range(len(datagrams)):
            datagram = datagrams.datagram(i)
            result = self.rtcp(datagram) if is_rtcp(datagram) else self.rtp(datagram)
            if isinstance(result, Refused):
                refused[result] += 1
            else:
                plain.append((result, datagrams.source(i), float(datagrams.arrived[i])))
        return Datagrams.of(plain), refused

    def rtp(self, datagram: bytes) -> bytes | Refused:
        """The plain packet, by the first key that fits."""
        return self._try([session.unprotect for session in self._sessions], datagram, datagram[8:12])

    def rtcp(self, datagram: bytes) -> bytes | Refused:
        """The plain compound packet, by the first key that fits."""
        return self._try([session.unprotect_rtcp for session in self._sessions], datagram, datagram[4:8])

    def _try(
        self, unprotects: list[Callable[[bytes], bytes]], datagram: bytes, ssrc: bytes
    ) -> bytes | Refused:
        refused = Refused.UNAUTHENTICATED
        for unprotect in unprotects:
            try:
                plain = unprotect(datagram)
                self._remember(ssrc)
                return plain
            except self._error as error:
                if "replay" in str(error):
                    refused = Refused.REPLAYED
            except ValueError:  # longer than libsrtp's largest packet
                continue
        return refused

    def _remember(self, ssrc: bytes) -> None:
        """There is state of this sender; drop that of the one silent for longest when there is too much."""
        self._senders[ssrc] = None
        self._senders.move_to_end(ssrc)
        if len(self._senders) <= self._max_senders:
            return
        silent, _ = self._senders.popitem(last=False)
        for session in self._sessions:
            try:
                session.remove_stream(int.from_bytes(silent, "big"))
            except self._error:  # it has another key
                continue
