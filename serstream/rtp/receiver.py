"""The sockets of one RTP port, and the only clock of this package."""

from __future__ import annotations

import os
import selectors
import socket
import time

from serstream.config import RtpSettings
from serstream.errors import SourceError
from serstream.rtp.streams import Streams
from serstream.types import Emit, SourceEvent

TICK_S = 0.01
"""Pace at which the sockets are emptied while streams live."""
MAX_DATAGRAM = 2048


class RtpSource:
    """Takes RTP from one UDP port and RTCP from the next.

    Raises:
        SourceError: a port cannot be bound.
    """

    def __init__(self, settings: RtpSettings):
        self._settings = settings
        self._rtp = _bind(settings.address, settings.port)
        try:
            self._rtcp = _bind(settings.address, settings.port + 1)
        except SourceError:
            self._rtp.close()
            raise
        self._wake_receiver, self._wake_sender = os.pipe()
        self._stopped = False
        self._streams = Streams(settings, time.time() - time.monotonic())

    def run(self, emit: Emit) -> None:
        """Receive until stopped; ends every stream and closes the sockets."""
        with self._rtp, self._rtcp, selectors.DefaultSelector() as selector:
            for readable in (self._rtp, self._rtcp, self._wake_receiver):
                selector.register(readable, selectors.EVENT_READ)
            while not self._stopped:
                if not len(self._streams):
                    selector.select()
                began = time.monotonic()
                events = self._receive()
                events += self._streams.release(time.monotonic())
                if events:
                    emit(events)
                time.sleep(max(0.0, began + TICK_S - time.monotonic()))
            emit(self._streams.close())

    def stop(self) -> None:
        """Let `run` return within a tick."""
        self._stopped = True
        os.write(self._wake_sender, b"\0")

    def _receive(self) -> list[SourceEvent]:
        events: list[SourceEvent] = []
        for is_rtp, udp in ((True, self._rtp), (False, self._rtcp)):
            while True:
                try:
                    datagram, address = udp.recvfrom(MAX_DATAGRAM)
                except BlockingIOError:
                    break
                if is_rtp:
                    events += self._streams.receive(datagram, address, time.monotonic())
                else:
                    events += self._streams.receive_rtcp(datagram, address)
        return events


def _bind(address: str, port: int) -> socket.socket:
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        udp.bind((address, port))
    except OSError as error:
        udp.close()
        raise SourceError(
            f"rtp {address}:{port}: cannot bind the UDP port: {error.strerror}; "
            f"choose another port or stop the program that uses it ('ss -lupn sport = :{port}' names it)"
        ) from error
    return udp
