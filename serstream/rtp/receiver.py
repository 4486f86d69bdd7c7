"""The sockets of one RTP port, and the only clock of this package."""

from __future__ import annotations

import logging
import os
import selectors
import time
from collections import Counter

import msgspec

from serstream.config import RtpSettings
from serstream.errors import SourceError
from serstream.rtp.datagrams import BATCH, Bind, UdpPort, bind
from serstream.rtp.status import PortStatus
from serstream.rtp.streams import Streams
from serstream.types import Emit, SourceEvent

log = logging.getLogger(__name__)

TICK_S = 0.01
"""Pace at which the sockets are emptied: packets of many streams are cheaper together."""
REPORT_S = 1.0
"""How often status is taken and drops are warned of; the longest sleep of an idle port."""
MAX_BATCHES = 64
"""Read at once from one socket before what is due is released."""
OVERFLOW_S = 1.0
"""So long after the socket's buffer was full, what is missing is taken for dropped there."""
RTCP_BUFFER_BYTES = 128 * 1024


class RtpSource:
    """Takes RTP from one UDP port and RTCP from the next.

    Args:
        settings: of the port.
        bind: opens its sockets.

    Raises:
        SourceError: a port cannot be bound.
        ConfigError: payload types, SDP or keys of the configuration are not understood.
    """

    def __init__(self, settings: RtpSettings, bind: Bind = bind):
        self._where = f"rtp {settings.address}:{settings.port}"
        self._streams = Streams(settings, _utc_offset())
        self._rtp = UdpPort(settings.address, settings.port, settings.receive_buffer_kb * 1024, bind)
        self._rtcp: UdpPort | None = None
        if not settings.rtcp_mux:
            try:
                self._rtcp = UdpPort(settings.address, settings.port + 1, RTCP_BUFFER_BYTES, bind)
            except SourceError as error:
                self._rtp.close()
                raise SourceError(f"{error}; if no RTCP comes there, set rtcp_mux = true") from error
        self._wake_receiver, self._wake_sender = os.pipe()
        self._stopped = False
        self._overflowed_until = 0.0
        self._reported: Counter[str] = Counter()
        self.status: PortStatus = self._take_status()
        """Counts of the port, about a second old; may be read from any thread."""
        log.info("%s: receiving, socket buffer %d kB", self._where, self._rtp.buffer_bytes // 1024)

    def run(self, emit: Emit) -> None:
        """Receive until stopped; ends every stream and closes the sockets."""
        with selectors.DefaultSelector() as selector:
            for readable in (self._rtp, self._rtcp, self._wake_receiver):
                if readable is not None:
                    selector.register(readable, selectors.EVENT_READ)
            next_report = 0.0
            while not self._stopped:
                began = time.monotonic()
                self._turn(emit)
                if began >= next_report:
                    self._report()
                    emit([])  # says that the source lives, also while nothing arrives
                    next_report = began + REPORT_S
                time.sleep(max(0.0, began + TICK_S - time.monotonic()))
                if not len(self._streams):
                    selector.select(REPORT_S)
        _send(self._streams.close(), emit)
        self._report()
        self._rtp.close()
        if self._rtcp:
            self._rtcp.close()
        os.close(self._wake_receiver)
        os.close(self._wake_sender)

    def stop(self) -> None:
        """Let `run` return within a tick."""
        if not self._stopped:
            # In this order: once stopped is true, `run` may close the pipe at any moment.
            os.write(self._wake_sender, b"\0")
            self._stopped = True

    def _turn(self, emit: Emit) -> None:
        """Empty the sockets, then release what is due."""
        self._streams.utc_offset = _utc_offset()
        # RTCP is read first and heeded last: BYE must not overtake the sound that was sent before it.
        control = self._rtcp.receive() if self._rtcp else None
        for _ in range(MAX_BATCHES):
            drops = self._rtp.drops
            datagrams = self._rtp.receive()
            if self._rtp.drops != drops:
                self._overflowed_until = time.monotonic() + OVERFLOW_S
            overflowed = time.monotonic() < self._overflowed_until
            _send(self._streams.receive(datagrams, overflowed=overflowed), emit)
            if len(datagrams) < BATCH:
                break
        if control:
            _send(self._streams.receive_rtcp(control), emit)
        _send(self._streams.release(time.monotonic()), emit)

    def _take_status(self) -> PortStatus:
        return msgspec.structs.replace(
            self._streams.status(),
            receive_buffer_bytes=self._rtp.buffer_bytes,
            kernel_drops=self._rtp.drops,
            truncated=self._rtp.truncated,
        )

    def _unreported(self) -> Counter[str]:
        """Datagrams dropped since the last warning, by reason."""
        dropped = Counter(self._streams.dropped)
        dropped["by the kernel (its buffer was full: raise receive_buffer_kb)"] = self._rtp.drops
        dropped["longer than any RTP packet"] = self._rtp.truncated
        return dropped - self._reported

    def _report(self) -> None:
        self.status = msgspec.structs.replace(self._take_status(), cpu_s=time.thread_time())
        news = self._unreported()
        if news:
            self._reported += news
            told = ", ".join(f"{count} {reason}" for reason, count in news.items())
            log.warning("%s: datagrams dropped: %s", self._where, told)


def _send(events: list[SourceEvent], emit: Emit) -> None:
    if events:
        emit(events)


def _utc_offset() -> float:
    return time.time() - time.monotonic()
