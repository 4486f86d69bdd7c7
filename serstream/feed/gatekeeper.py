"""Who may listen: the ZAP handler (RFC 27) that checks the keys of those who connect."""

from __future__ import annotations

import logging

import zmq
from zmq.utils import z85

from serstream.feed.keys import ServerKeys
from serstream.pacing import ALWAYS, Pacing

logger = logging.getLogger(__name__)

REREAD_INTERVAL_S = 1.0
"""How long a new or revoked key takes at most to have an effect."""
NAMED_CLIENTS = 10
"""Refused clients that one line names; others are named when they come again."""
REMEMBERED_REFUSALS = 1000
"""Refused clients that are logged only once; beyond that many the memory starts anew."""


class Gatekeeper:
    """Makes sockets demand CURVE and answers ZeroMQ's question who may connect.

    ZeroMQ has one ZAP handler a context. The answer waits for the next ``poll``, only the client that shakes
    hands waits for it.

    Args:
        context: of the sockets to guard.
        keys: the daemon's keys directory.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], keys: ServerKeys):
        self.refused = 0
        """Handshakes that were turned away."""
        self._strangers = 0
        """Those of clients without keys, or with another daemon's, since the last line about them: ZeroMQ
        does not tell who they are."""
        self._stranger_pacing = Pacing()
        self._keys = keys
        self._handler = context.socket(zmq.REP)
        self._handler.linger = 0
        self._handler.bind("inproc://zeromq.zap.01")
        self._read_at = 0.0
        self._stamp = keys.stamp()
        self._allowed = keys.clients()
        self._admitted: set[bytes] = set()
        self._logged: set[tuple[str, bytes]] = set()
        self._to_name: list[str] = []
        self._naming_pacing = Pacing()

    def guard(self, socket: zmq.Socket[bytes]) -> None:
        """Make a socket admit allowed clients only; before it binds."""
        socket.zap_domain = b"serstream"
        socket.curve_server = True
        socket.curve_publickey = self._keys.public.encode()
        socket.curve_secretkey = self._keys.secret.encode()

    def poll(self, now: float, strangers: int) -> bool:
        """Answer handshakes and notice changes of the allow-list.

        Args:
            now: monotonic seconds.
            strangers: handshakes that have failed since the last call, without a question who it was.

        Returns:
            Whether the key of a client that was admitted is no longer allowed.
        """
        revoked = now >= self._read_at + REREAD_INTERVAL_S and self._reread(now)
        while self._handler.poll(0):
            self._handler.send_multipart(self._judge(self._handler.recv_multipart()))
        if self._to_name and self._naming_pacing.is_due(now):
            self._naming_pacing.tell(now)
            logger.warning(
                "feed: refused keys that are not allowed ('serstream keys new NAME' makes one that is): %s",
                ", ".join(self._to_name),
                extra=ALWAYS,
            )
            self._to_name = []
        self.refused += strangers
        self._strangers += strangers
        if self._strangers and self._stranger_pacing.is_due(now):
            self._stranger_pacing.tell(now)
            logger.warning(
                "feed: refused %s connections without keys or with keys of another daemon",
                self._strangers,
                extra=ALWAYS,
            )
            self._strangers = 0
        return revoked

    def close(self) -> None:
        """Let go of the handler's endpoint."""
        self._handler.close()

    def _reread(self, now: float) -> bool:
        self._read_at = now
        try:
            stamp = self._keys.stamp()
        except OSError as error:  # without descriptors left, say: nobody is revoked for that
            logger.warning("feed: the allow-list cannot be read, it stays as it was: %s", error)
            return False
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        self._allowed = self._keys.clients()
        gone = self._admitted - self._allowed.keys()
        self._admitted -= gone
        logger.info("feed: %s client keys are allowed now, %s revoked", len(self._allowed), len(gone))
        return bool(gone)

    def _judge(self, question: list[bytes]) -> list[bytes]:
        """ZAP 1.0: version, request id, domain, address, identity, mechanism, credentials."""
        version, request, _domain, address, _identity, _mechanism, *credentials = question
        key = credentials[0] if credentials else b""
        name = self._allowed.get(key)
        if name is not None:
            self._admitted.add(key)
            return [version, request, b"200", b"OK", name.encode(), b""]
        self._refuse(address.decode("ascii", "replace"), key)
        return [version, request, b"400", b"unknown key", b"", b""]

    def _refuse(self, address: str, key: bytes) -> None:
        self.refused += 1
        if (address, key) in self._logged or len(self._to_name) == NAMED_CLIENTS:
            return
        if len(self._logged) >= REMEMBERED_REFUSALS:
            self._logged.clear()
        self._logged.add((address, key))
        self._to_name.append(f"{z85.encode(key).decode() if len(key) == 32 else key!r} of {address}")
