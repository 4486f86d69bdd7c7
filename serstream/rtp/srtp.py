"""Secure RTP (RFC 3711) with keys from SDP security descriptions (RFC 4568)."""

from __future__ import annotations

import base64
import re
import struct
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from serstream.errors import ConfigError
from serstream.rtp.rtcp import is_rtcp

if TYPE_CHECKING:
    import pylibsrtp

SUITES = {
    "AES_CM_128_HMAC_SHA1_80": ("SRTP_PROFILE_AES128_CM_SHA1_80", 30),
    "AES_CM_128_HMAC_SHA1_32": ("SRTP_PROFILE_AES128_CM_SHA1_32", 30),
    "AEAD_AES_128_GCM": ("SRTP_PROFILE_AEAD_AES_128_GCM", 28),
    "AEAD_AES_256_GCM": ("SRTP_PROFILE_AEAD_AES_256_GCM", 44),
}
"""Crypto suite to the name of its profile in pylibsrtp and the length of master key and salt, bytes."""
SILENT_SENDERS = 1024
"""Senders whose state is kept beside that of the live streams. With four times as many, libsrtp takes three
times as long to find one."""
MAX_ROLLOVERS = 32
"""So often a sender's sequence may have wrapped before its first packet is heard: 11.6 hours of 20 ms. To try
them all takes 2 ms for each key."""
MAX_TRIES = 20
"""Senders of a port that are tried in vain within `RETRY_S`: what a flood of forged packets can cost."""
RETRY_S = 10.0
"""A sender that was tried in vain is tried again after so long; the packet may have been a stranger's."""

_OWN_PACKET = struct.Struct("!BBHI4s")
_THIRDS = (0, 0x5555, 0xAAAA)
"""Of the way round the sequence numbers; libsrtp takes a packet for a later one up to half the way ahead."""


class Refused(StrEnum):
    """Why a packet did not pass."""

    UNAUTHENTICATED = "not authenticated"
    REPLAYED = "replayed"
    TOO_LONG = "longer than libsrtp takes"


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
        suite, parameters = [*crypto.split(maxsplit=1), "", ""][:2]
        if suite not in SUITES:
            # Where the suite was left out its place is the key's.
            seen = repr(suite) if re.fullmatch(r"[A-Z0-9_]{0,40}", suite) else "not shown: it may be the key"
            raise ConfigError(f"{where}: crypto suite {seen}, wanted one of {', '.join(SUITES)}")
        method, _, value = parameters.partition(":")
        encoded, *options = value.split()[0].split("|") if value.strip() else [""]
        if method != "inline" or any(":" in option for option in options):
            raise ConfigError(f"{where}: wanted '{suite} inline:KEY' with one key and no MKI")
        try:
            secret = base64.b64decode(encoded, validate=True)
        except ValueError as error:
            raise ConfigError(f"{where}: the key behind 'inline:' is not base64") from error
        length = SUITES[suite][1]
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
        self._keys = keys
        self._sessions = [_session(key) for key in keys]
        self._senders: OrderedDict[bytes, bool] = OrderedDict()
        """SSRCs as on the wire, the one last heard of last, and whether RTP of theirs has passed."""
        self._max_senders = max_streams + SILENT_SENDERS
        self._tried: dict[bytes, float] = {}
        """SSRCs that were tried in vain of late, and when."""

    def plain(self, datagram: bytes, now: float) -> bytes | Refused:
        """What `rtp` or `rtcp` makes of it."""
        return self.rtcp(datagram) if is_rtcp(datagram) else self.rtp(datagram, now)

    def rtp(self, datagram: bytes, now: float) -> bytes | Refused:
        """The plain packet, by the first key that fits.

        Args:
            datagram: as received.
            now: monotonic seconds.
        """
        ssrc = datagram[8:12]
        result = self._try((session.unprotect for session in self._sessions), datagram)
        if result is Refused.UNAUTHENTICATED and self._may_join(ssrc, now):
            result = self._join(datagram)
            if result is Refused.UNAUTHENTICATED:
                self._tried[ssrc] = now
        if not isinstance(result, Refused):
            self._remember(ssrc, has_rtp=True)
        return result

    def rtcp(self, datagram: bytes) -> bytes | Refused:
        """The plain compound packet, by the first key that fits."""
        ssrc = datagram[4:8]
        result = self._try((session.unprotect_rtcp for session in self._sessions), datagram)
        if not isinstance(result, Refused):
            self._remember(ssrc, has_rtp=self._senders.get(ssrc, False))
        return result

    def _try(self, unprotects: Iterable[Callable[[bytes], bytes]], datagram: bytes) -> bytes | Refused:
        refused = Refused.UNAUTHENTICATED
        for unprotect in unprotects:
            try:
                return unprotect(datagram)
            except self._error as error:
                if "replay" in str(error):
                    refused = Refused.REPLAYED
            except ValueError:
                return Refused.TOO_LONG
        return refused

    def _may_join(self, ssrc: bytes, now: float) -> bool:
        """Whether the sender may have begun long before we listened, and there is time to find out."""
        if len(ssrc) < 4 or self._senders.get(ssrc):
            return False
        self._tried = {tried: at for tried, at in self._tried.items() if now - at < RETRY_S}
        return ssrc not in self._tried and len(self._tried) < MAX_TRIES

    def _join(self, datagram: bytes) -> bytes | Refused:
        """The plain packet of a sender whose sequence has wrapped unheard, by the first key that fits.

        libsrtp begins with rollover counter 0 and cannot be told another; own packets move it on.
        """
        for key, session in zip(self._keys, self._sessions, strict=True):
            own = self._own_packets(key, datagram)
            if own:
                for packet in own:
                    session.unprotect(packet)
                return session.unprotect(datagram)
        return Refused.UNAUTHENTICATED

    def _own_packets(self, key: Key, datagram: bytes) -> list[bytes]:
        """What a session must hear before it takes the datagram; nothing if none would help.

        They are tried in a session of their own, because libsrtp cannot take back what it has heard.
        """
        sender, receiver = _session(key, outbound=True), _session(key)
        number, ssrc = int.from_bytes(datagram[2:4], "big"), datagram[8:12]
        own: list[bytes] = []
        for _ in range(MAX_ROLLOVERS):
            for ahead in _THIRDS:
                own.append(sender.protect(_OWN_PACKET.pack(0x80, 0, number + ahead & 0xFFFF, 0, ssrc)))
                receiver.unprotect(own[-1])
            if not isinstance(self._try([receiver.unprotect], datagram), Refused):
                return own
        return []

    def _remember(self, ssrc: bytes, *, has_rtp: bool) -> None:
        """There is state of this sender; drop that of the one silent for longest when there is too much."""
        self._senders[ssrc] = has_rtp
        self._senders.move_to_end(ssrc)
        if len(self._senders) <= self._max_senders:
            return
        silent, _ = self._senders.popitem(last=False)
        for session in self._sessions:
            try:
                session.remove_stream(int.from_bytes(silent, "big"))
            except self._error:  # it has another key
                continue


def _session(key: Key, *, outbound: bool = False) -> pylibsrtp.Session:
    """For every SSRC."""
    from pylibsrtp import Policy, Session

    return Session(
        Policy(
            key=key.secret,
            ssrc_type=Policy.SSRC_ANY_OUTBOUND if outbound else Policy.SSRC_ANY_INBOUND,
            srtp_profile=getattr(Policy, SUITES[key.suite][0]),
        )
    )
