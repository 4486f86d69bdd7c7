"""The running sources: one thread each, opened, watched, exchanged and stopped together."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeAlias

from serstream.audio.file import FileSource
from serstream.config import FileSettings, MicrophoneSettings, RtpSettings, Settings
from serstream.errors import SerstreamError, SourceError
from serstream.rtp.datagrams import bind
from serstream.rtp.receiver import RtpSource
from serstream.service.intake import Intake
from serstream.service.systemd import SocketShelf
from serstream.types import Source, SourceEvent

log = logging.getLogger(__name__)

SourceSettings: TypeAlias = RtpSettings | MicrophoneSettings | FileSettings

STUCK_S = 10.0
"""A source that has not emitted for so long, not even an empty list, is stuck."""
STOP_TIMEOUT_S = 2.0
"""How long a reload waits for a source to end."""


@dataclass(slots=True)
class _Running:
    source: Source
    settings: SourceSettings
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
        self._base = base
        self._intake = intake
        self._shelf = shelf
        self.failed = False
        """Whether one ended in a way that nobody foresaw."""
        self._running = [_Running(self._open(wanted), wanted) for wanted in _wanted(settings)]

    def __len__(self) -> int:
        return len(self._running)

    def start(self) -> None:
        """Let all of them run."""
        for running in self._running:
            self._start(running)

    def stop(self) -> None:
        """Ask all of them to end; from any thread, more than once."""
        for running in self._running:
            running.source.stop()

    @property
    def alive(self) -> bool:
        """Whether one is still running."""
        return any(running.thread.is_alive() for running in self._running)

    def names(self) -> tuple[str, ...]:
        """Of those that run."""
        return tuple(running.thread.name for running in self._running if running.thread.is_alive())

    def rtp(self) -> list[RtpSource]:
        """The RTP ports."""
        return [running.source for running in self._running if isinstance(running.source, RtpSource)]

    def stuck(self, now: float) -> tuple[str, ...]:
        """Sources that live but have not been heard of for long.

        Args:
            now: monotonic seconds.
        """
        return tuple(
            running.thread.name
            for running in self._running
            if running.thread.is_alive() and now - running.heard > STUCK_S
        )

    def reload(self, settings: Settings) -> None:
        """Leave alone what is configured as before, end what is not, open what is new.

        A source that cannot be opened is logged and left out; the others are not disturbed.
        """
        wanted = _wanted(settings)
        gone = [running for running in self._running if running.settings not in wanted]
        for running in gone:
            running.source.stop()
        for running in gone:
            running.thread.join(STOP_TIMEOUT_S)
            if isinstance(running.settings, RtpSettings):
                self._release(running.settings)
        self._running = [running for running in self._running if running not in gone]
        kept = [running.settings for running in self._running]
        for one in wanted:
            if one in kept:
                kept.remove(one)
                continue
            try:
                running = _Running(self._open(one), one)
            except SerstreamError as error:
                log.error("reload: %s", error)
                continue
            self._running.append(running)
            self._start(running)

    def _start(self, running: _Running) -> None:
        running.thread = threading.Thread(
            target=self._run, args=(running,), name=_name(running.settings), daemon=True
        )
        running.thread.start()

    def _run(self, running: _Running) -> None:
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
            log.exception("source %s failed", running.thread.name)
            self.failed = True
            self.stop()

    def _open(self, settings: SourceSettings) -> Source:
        match settings:
            case RtpSettings():
                return RtpSource(settings, partial(self._shelf.open, bind=bind))
            case FileSettings():
                return FileSource(settings, self._base)
            case MicrophoneSettings():
                # An RTP-only server need not have PortAudio.
                from serstream.audio.microphone import MicrophoneSource

                return MicrophoneSource(settings)

    def _release(self, settings: RtpSettings) -> None:
        for port in (settings.port, settings.port + 1):
            self._shelf.release(settings.address, port)


def _wanted(settings: Settings) -> list[SourceSettings]:
    return [*settings.rtp, *settings.microphone, *settings.file]


def _name(settings: SourceSettings) -> str:
    match settings:
        case RtpSettings():
            return f"rtp:{settings.port}"
        case FileSettings():
            return f"file:{settings.path}"
        case MicrophoneSettings():
            return f"microphone:{settings.device if settings.device is not None else 'default'}"
