"""One thread for all RTP ports, and the pace of this package.

A thread for each port would wake as often as all of them together, and each time stand in line with the
others and with the pipeline for the interpreter.
"""

from __future__ import annotations

import os
import selectors
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence

from serstream.config import RtpSettings
from serstream.rtp.port import RtpPort
from serstream.rtp.status import PortStatus
from serstream.types import Emit, SourceEvent

TICK_S = 0.01
"""Pace at which the sockets are emptied: packets of many streams are cheaper together."""
REPORT_S = 1.0
"""How often status is taken; the longest sleep while all ports are idle."""

Open = Callable[[RtpSettings, Counter[str]], RtpPort]


class RtpReceiver:
    """A source: everything that comes to some RTP ports, which may change while it runs.

    Args:
        settings: of the ports.
        open_port: opens one of them; gets its settings and the numbers of `RtpPort`.

    Raises:
        SourceError: a port cannot be bound.
        ConfigError: payload types, SDP or keys of the configuration are not understood.
    """

    def __init__(self, settings: Sequence[RtpSettings], open_port: Open = RtpPort):
        self._open_port = open_port
        self._changing = threading.Lock()
        """Held while ports come and go, and while they are served."""
        self._selector = selectors.DefaultSelector()
        self._wake_receiver, self._wake_sender = os.pipe()
        self._selector.register(self._wake_receiver, selectors.EVENT_READ)
        self._stopped = False
        self._left: list[SourceEvent] = []
        """What the streams of closed ports still have to say."""
        self._ports: list[RtpPort] = []
        self._numbers: Counter[str] = Counter()
        """Outlive a port: the next one of its name counts on, so that no two streams are called the same."""
        self.cpu_s = 0.0
        """Processor seconds of the thread, about a second old."""
        for one in settings:
            self.open(one)

    @property
    def settings(self) -> list[RtpSettings]:
        """Of the open ports."""
        return [port.settings for port in self._ports]

    @property
    def status(self) -> tuple[PortStatus, ...]:
        """Counts of every port, about a second old; may be read from any thread."""
        return tuple(port.status for port in self._ports)

    def open(self, settings: RtpSettings) -> None:
        """Take one more port; from any thread.

        Raises:
            SourceError: it cannot be bound.
            ConfigError: payload types, SDP or keys are not understood.
        """
        port = self._open_port(settings, self._numbers)
        with self._changing:
            port.register(self._selector)
            self._ports.append(port)

    def close(self, settings: RtpSettings) -> None:
        """End the streams of a port and give it back; from any thread."""
        with self._changing:
            port = next(port for port in self._ports if port.settings == settings)
            self._ports.remove(port)
            port.unregister(self._selector)
            self._left += port.close()

    def run(self, emit: Emit) -> None:
        """Receive until stopped; ends every stream and closes the sockets."""
        next_report = 0.0
        while not self._stopped:
            began = time.monotonic()
            with self._changing:
                events = self._turn(emit)
                reports = began >= next_report
                if reports:
                    self._report()
                    next_report = began + REPORT_S
                idle = all(port.is_idle for port in self._ports)
            if events or reports:
                emit(events)  # nothing, once a second: says that the source lives, also while nothing arrives
            time.sleep(max(0.0, began + TICK_S - time.monotonic()))
            if idle:
                self._selector.select(REPORT_S)
        with self._changing:
            emit(self._left + [event for port in self._ports for event in port.close()])
        self._selector.close()
        os.close(self._wake_receiver)
        os.close(self._wake_sender)

    def stop(self) -> None:
        """Let `run` return within a tick."""
        if not self._stopped:
            # In this order: once stopped is true, `run` may close the pipe at any moment.
            os.write(self._wake_sender, b"\0")
            self._stopped = True

    def _turn(self, emit: Emit) -> list[SourceEvent]:
        """Empty the sockets of all ports, then release what is due: as much as possible at once."""
        if self._left:  # before the ports emit what fills a batch
            emit(self._left)
            self._left = []
        events: list[SourceEvent] = []
        readable: dict[RtpPort, bool] = {}
        for key, _ in self._selector.select(0):
            if key.data:
                port, rtcp = key.data
                readable[port] = readable.get(port, False) or rtcp
        for port, rtcp in readable.items():
            events += port.receive(emit, rtcp=rtcp)
        for port in self._ports:
            if not port.is_idle:
                events += port.release()
        return events

    def _report(self) -> None:
        for port in self._ports:
            port.report()
        self.cpu_s = time.thread_time()
