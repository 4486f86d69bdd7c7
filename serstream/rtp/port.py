"""One RTP port: its sockets and its streams."""

from __future__ import annotations

import logging
import selectors
import time
from collections import Counter
from pathlib import Path

import msgspec

from serstream.config import RtpSettings
from serstream.errors import SourceError
from serstream.rtp.datagrams import TOO_LONG, Bind, UdpPort, bind
from serstream.rtp.status import PortStatus
from serstream.rtp.streams import Streams
from serstream.types import Emit, SourceEvent

log = logging.getLogger(__name__)

MAX_BATCHES = 64
"""Read at once from one socket before what is due is released."""
OVERFLOW_S = 1.0
"""So long after the socket's buffer was full, what is missing is taken for dropped there."""
RTCP_BUFFER_BYTES = 128 * 1024


class RtpPort:
    """Takes RTP from one UDP port and RTCP from the next.

    Args:
        settings: of the port.
        numbers: as for `Streams`.
        bind: opens its sockets.
        base: folder that a relative ``sdp`` starts from.

    Raises:
        SourceError: a port cannot be bound.
        ConfigError: payload types, SDP or keys of the configuration are not understood.
    """

    def __init__(
        self,
        settings: RtpSettings,
        numbers: Counter[str] | None = None,
        bind: Bind = bind,
        base: Path = Path(),
    ):
        self.settings = settings
        self._where = f"rtp {settings.address}:{settings.port}"
        self._streams = Streams(settings, _utc_offset(), numbers=numbers, base=base)
        self._rtp = UdpPort(settings.address, settings.port, settings.receive_buffer_kb * 1024, bind)
        self._rtcp: UdpPort | None = None
        if not settings.rtcp_mux:
            try:
                self._rtcp = UdpPort(settings.address, settings.port + 1, RTCP_BUFFER_BYTES, bind)
            except SourceError as error:
                self._rtp.close()
                raise SourceError(f"{error}; if no RTCP comes there, set rtcp_mux = true") from error
        self._overflowed_until = 0.0
        self.status: PortStatus = self._take_status()
        """Counts of the port, about a second old; may be read from any thread."""
        log.info("%s: receiving, socket buffer %d kB", self._where, self._rtp.buffer_bytes // 1024)

    @property
    def is_idle(self) -> bool:
        """Whether nothing falls due before the next packet."""
        return self._streams.is_idle

    def register(self, selector: selectors.BaseSelector) -> None:
        """Let a selector watch the sockets; its keys carry ``(port, whether it is the RTCP socket)``."""
        selector.register(self._rtp, selectors.EVENT_READ, (self, False))
        if self._rtcp:
            selector.register(self._rtcp, selectors.EVENT_READ, (self, True))

    def unregister(self, selector: selectors.BaseSelector) -> None:
        """Undo `register`."""
        selector.unregister(self._rtp)
        if self._rtcp:
            selector.unregister(self._rtcp)

    def receive(self, emit: Emit, *, rtcp: bool) -> list[SourceEvent]:
        """Empty the sockets.

        Args:
            emit: takes what fills a whole batch at once.
            rtcp: there is RTCP to read, too.

        Returns:
            The rest.
        """
        self._streams.utc_offset = _utc_offset()
        # RTCP is read first and heeded last: BYE must not overtake the sound that was sent before it.
        control = self._rtcp.receive() if rtcp and self._rtcp else None
        events: list[SourceEvent] = []
        for _ in range(MAX_BATCHES):
            drops = self._rtp.drops
            datagrams = self._rtp.receive()
            if self._rtp.drops != drops:
                self._overflowed_until = time.monotonic() + OVERFLOW_S
            overflowed = time.monotonic() < self._overflowed_until
            events += self._streams.receive(datagrams, overflowed=overflowed)
            if self._rtp.is_empty:
                break
            emit(events)
            events = []
        if control:
            events += self._streams.receive_rtcp(control)
        return events

    def release(self) -> list[SourceEvent]:
        """What is due now, see `Streams.release`."""
        return self._streams.release(time.monotonic())

    def close(self) -> list[SourceEvent]:
        """End every stream and close the sockets."""
        events = self._streams.close()
        self.report()
        self._rtp.close()
        if self._rtcp:
            self._rtcp.close()
        return events

    def report(self) -> None:
        """Renew `status`, and log what is new; call it about once a second."""
        self._streams.tell(time.monotonic())
        self.status = self._take_status()

    def _take_status(self) -> PortStatus:
        status = self._streams.status()
        too_long = self._rtp.truncated + (self._rtcp.truncated if self._rtcp else 0)
        return msgspec.structs.replace(
            status,
            dropped={**status.dropped, TOO_LONG: too_long} if too_long else status.dropped,
            receive_buffer_bytes=self._rtp.buffer_bytes,
            kernel_drops=self._rtp.drops,
        )


def _utc_offset() -> float:
    return time.time() - time.monotonic()
