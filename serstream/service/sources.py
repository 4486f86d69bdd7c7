"""The running sources, opened, watched, exchanged and stopped together.

Each has a thread, and all RTP ports have one.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeAlias, TypeVar

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

T = TypeVar("T")

STUCK_S = 10.0
"""A source that has not emitted for so long, not even an empty list, is stuck."""
STOP_TIMEOUT_S = 2.0
"""How long a source that a reload opens waits for each of those that it ends."""


@dataclass(slots=True, eq=False)
class _Running:
    source: Source
    name: str
    settings: OwnThread | None
    """None: the RTP ports, which have theirs."""
    thread: threading.Thread = field(init=False)
    heard: float = field(default_factory=time.monotonic)
    """Monotonic time of the last emit."""


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
        self._running = [_Running(self._receiver, "rtp", None)]
        self._running += [self._open(wanted) for wanted in _wanted(settings)]
        self._ending: list[_Running] = []
        """What a reload has ended may still have last words."""

    def __len__(self) -> int:
        return len(self._receiver.settings) + len(self._running) - 1

    def start(self) -> None:
        """Let all of them run."""
        for running in self._running:
            self._start(running)

    def stop(self) -> None:
        """Ask all of them to end, for good."""
        self.stopped = True
        for running in self._running:
            running.source.stop()

    @property
    def alive(self) -> bool:
        """Whether there is something to wait for.

        A source that runs; or, until all are stopped, a port or microphone that is configured: if none of
        them is open, the next reload may mend that.
        """
        if not self.stopped and (self._settings.rtp or self._settings.microphone):
            return True
        return any(
            running.thread.is_alive()
            for running in self._running + self._ending
            if running.settings or self.stopped  # RTP without ports ends only when it is stopped
        )

    def names(self) -> tuple[str, ...]:
        """Of those that run; an RTP port counts alone."""
        names: list[str] = []
        for running in self._running:
            if running.thread.is_alive():
                names += (
                    [running.name] if running.settings else [port.label for port in self._receiver.settings]
                )
        return tuple(names)

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

        Args:
            now: monotonic seconds.
        """
        return tuple(
            running.name
            for running in self._running
            if running.thread.is_alive() and now - running.heard > STUCK_S
        )

    def reload(self, settings: Settings) -> list[str]:
        """Leave alone what is configured as before, end what is not, open what is new.

        A source that cannot be opened is left out; the others are not disturbed. Not once all are stopped.

        Returns:
            Why sources were left out.
        """
        faults: list[str] = []
        self._settings = settings
        wanted = _wanted(settings)
        self._ending = [running for running in self._ending if running.thread.is_alive()]
        for running in [each for each in self._running if each.settings and each.settings not in wanted]:
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
        for port in _without(settings.rtp, self._receiver.settings):
            with _noted(faults):
                self._receiver.open(port)
        for one in _without(wanted, [running.settings for running in self._running]):
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
        for ending in before:
            ending.join(STOP_TIMEOUT_S)
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


def _without(wanted: Sequence[T], there: Iterable[object]) -> list[T]:
    """What of the wanted is not there; what is wanted twice must be there twice."""
    left = list(there)
    missing: list[T] = []
    for one in wanted:
        if one in left:
            left.remove(one)
        else:
            missing.append(one)
    return missing


@contextmanager
def _noted(faults: list[str]) -> Iterator[None]:
    """Take down why a source cannot be opened, and go on."""
    try:
        yield
    except SerstreamError as error:
        faults.append(str(error))
