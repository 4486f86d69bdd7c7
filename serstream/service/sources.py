"""The running sources, opened, watched, exchanged and stopped together.

Each has a thread, and all RTP ports have one.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeAlias

import msgspec

from serstream.audio.file import FileSource
from serstream.audio.microphone import MicrophoneSource
from serstream.config import FileSettings, MicrophoneSettings, RtpSettings, Settings
from serstream.errors import SerstreamError, SourceError
from serstream.rtp.datagrams import bind
from serstream.rtp.port import RtpPort
from serstream.rtp.receiver import RtpReceiver
from serstream.service.health import PortHealth
from serstream.service.intake import Intake
from serstream.service.shelf import SocketShelf
from serstream.types import Source, SourceEvent

log = logging.getLogger(__name__)

OwnThread: TypeAlias = MicrophoneSettings | FileSettings

STUCK_S = 10.0
"""A source that has not emitted for so long, not even an empty list, is stuck."""
LOOK_S = 1.0
"""Between two looks for stuck sources at most so much counts as their silence."""
STOP_TIMEOUT_S = 2.0
"""How long a source that a reload opens waits for those that it ends, all together."""


@dataclass(slots=True, eq=False)
class _Running:
    source: Source
    name: str
    settings: OwnThread | None = None
    """None: the RTP ports, which have theirs."""
    thread: threading.Thread = field(init=False)
    heard: float = field(default_factory=time.monotonic)
    """Monotonic time of the last emit, at first of the start; time that does not count is added."""


class Sources:
    """Runs the sources of a configuration.

    Args:
        settings: what to open.
        base: folder of the configuration file.
        intake: where their events go.
        shelf: holds the sockets that outlive the process.

    Raises:
        SerstreamError: a source cannot be opened.
    """

    def __init__(self, settings: Settings, base: Path, intake: Intake, shelf: SocketShelf):
        self._settings = settings
        self._base = base
        self._intake = intake
        self._shelf = shelf
        self.stopped = False
        """Whether all were asked to end."""
        self.failed = False
        """Whether one ended in a way that nobody foresaw; the others shall end then, too."""
        self._receiver = RtpReceiver(settings.rtp, self._open_port)
        self._rtp = _Running(self._receiver, "rtp")
        self._running = [self._open(wanted) for wanted in _wanted(settings)]
        """All but RTP."""
        self._ending: list[_Running] = []
        """What a reload has ended may still have last words."""
        self._looked: float | None = None
        """When `stuck` was last asked, monotonic."""

    def __len__(self) -> int:
        return len(self._receiver.settings) + len(self._running)

    def start(self) -> None:
        """Let all of them run."""
        for running in (self._rtp, *self._running):
            self._start(running)

    def stop(self) -> None:
        """Ask all of them to end, for good."""
        self.stopped = True
        for running in (self._rtp, *self._running):
            running.source.stop()

    @property
    def alive(self) -> bool:
        """Whether there is something to wait for.

        A source that runs; or, until all are stopped, a port or microphone that is configured: if none of
        them is open, the next reload may mend that.
        """
        if not self.stopped and (self._settings.rtp or self._settings.microphone):
            return True
        if self.stopped and self._rtp.thread.is_alive():  # without ports it ends only when it is stopped
            return True
        return any(running.thread.is_alive() for running in self._running + self._ending)

    def names(self) -> tuple[str, ...]:
        """Of those that run; an RTP port counts alone."""
        ports = self._receiver.settings if self._rtp.thread.is_alive() else []
        others = [running.name for running in self._running if running.thread.is_alive()]
        return (*(port.label for port in ports), *others)

    @property
    def ports(self) -> tuple[PortHealth, ...]:
        """Counts of the RTP ports."""
        return tuple(
            PortHealth(address=settings.address, **msgspec.structs.asdict(status))
            for settings, status in zip(self._receiver.settings, self._receiver.status, strict=True)
        )

    @property
    def microphone_lost_s(self) -> dict[str, float]:
        """Seconds of sound that each device lost to overflows."""
        lost: defaultdict[str, float] = defaultdict(float)
        for running in self._running:
            if isinstance(running.source, MicrophoneSource):
                lost[running.name] += running.source.lost_s
        return {name: round(seconds, 3) for name, seconds in lost.items()}

    @property
    def receive_cpu_s(self) -> float:
        """Processor seconds that RTP took so far."""
        return self._receiver.cpu_s

    def stuck(self, now: float) -> tuple[str, ...]:
        """Sources that live but have not been heard of for long; ``rtp`` stands for all ports.

        To be asked again and again: while the one who asks stood still, in a process or a machine that was
        stopped, the sources may have stood still with it, and have not had their turn yet.

        Args:
            now: monotonic seconds.
        """
        stopped_s = 0.0 if self._looked is None else now - self._looked - LOOK_S
        self._looked = now
        every = (self._rtp, *self._running)
        if stopped_s > 0:
            for running in every:
                running.heard = min(running.heard + stopped_s, now)
        return tuple(
            running.name for running in every if running.thread.is_alive() and now - running.heard > STUCK_S
        )

    def reload(self, settings: Settings) -> list[str]:
        """Leave alone what is configured as before, end what is not, open what is new.

        A source that cannot be opened is left out; the others are not disturbed. Not once all are stopped.

        Returns:
            Why sources were left out.
        """
        faults: list[str] = []
        self._settings = settings
        self._ending = [running for running in self._ending if running.thread.is_alive()]
        new = _wanted(settings)
        for running in list(self._running):
            if running.settings in new:
                new.remove(running.settings)
            else:
                running.source.stop()
                self._running.remove(running)
                self._ending.append(running)
        used = {key for port in settings.rtp for key in port.sockets}
        for port in [port for port in self._receiver.settings if port not in settings.rtp]:
            for ip, number in port.sockets:
                # Bound anew it might still be in use: systemd closes its copy when it gets round to it.
                keep_or_release = self._shelf.keep if (ip, number) in used else self._shelf.release
                keep_or_release(str(ip), number)
            self._receiver.close(port)
        for port in [port for port in settings.rtp if port not in self._receiver.settings]:
            with _noted(faults):
                self._receiver.open(port)
        for one in new:
            with _noted(faults):
                running = self._open(one)
                self._running.append(running)
                self._start(running)
        return faults

    def _start(self, running: _Running) -> None:
        before = [ending.thread for ending in self._ending]
        running.thread = threading.Thread(
            target=self._run, args=(running, before), name=running.name, daemon=True
        )
        running.thread.start()

    def _run(self, running: _Running, before: Iterable[threading.Thread]) -> None:
        # It may be one of them with other settings: the same device, or streams of the same names.
        until = time.monotonic() + STOP_TIMEOUT_S
        for ending in before:
            ending.join(max(0.0, until - time.monotonic()))
        running.heard = time.monotonic()  # to wait is not to be stuck
        # A file can wait and so loses nothing.
        put: Callable[[list[SourceEvent]], None] = (
            self._intake.put_patiently if isinstance(running.source, FileSource) else self._intake.put
        )

        def emit(events: list[SourceEvent]) -> None:
            if events:
                put(events)
            running.heard = time.monotonic()

        try:
            running.source.run(emit)
        except SourceError as error:
            log.error("%s", error)
        except Exception:  # a defect of ours: end in order, with a trace, instead of running on deaf
            log.exception("source %s failed", running.name)
            self.failed = True

    def _open_port(self, settings: RtpSettings, numbers: Counter[str]) -> RtpPort:
        try:
            return RtpPort(settings, numbers, bind=partial(self._shelf.open, bind=bind), base=self._base)
        except SerstreamError:
            for ip, number in settings.sockets:  # one of two may be open already
                self._shelf.release(str(ip), number)
            raise

    def _open(self, settings: OwnThread) -> _Running:
        source: Source
        match settings:
            case FileSettings():
                source = FileSource(settings, self._base)
            case MicrophoneSettings():
                source = MicrophoneSource(settings)
        return _Running(source, settings.label, settings)


def _wanted(settings: Settings) -> list[OwnThread]:
    return [*settings.microphone, *settings.file]


@contextmanager
def _noted(faults: list[str]) -> Iterator[None]:
    """Take down why a source cannot be opened, and go on."""
    try:
        yield
    except SerstreamError as error:
        faults.append(str(error))
