"""The daemon: the only place that owns threads and signals.

One thread per source puts sound into the intake; the main thread takes it out, runs the pipeline and
publishes. Shutdown goes with the flow: sources end their streams, the pipeline scores their last windows and
says goodbye, then the feed closes.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from pathlib import Path
from types import FrameType

from serstream.audio.file import FileSource
from serstream.config import Settings
from serstream.emotion.loading import load_model
from serstream.errors import ConfigError, SourceError
from serstream.feed.messages import rfc3339
from serstream.feed.publisher import Publisher
from serstream.pipeline import Pipeline
from serstream.rtp.receiver import RtpSource
from serstream.service.control import (
    Accepted,
    Activate,
    ControlServer,
    Reply,
    Request,
    Rollback,
    SetShadow,
    Status,
    StatusRequest,
    socket_path,
)
from serstream.service.intake import Intake
from serstream.service.models import Models
from serstream.types import Source

log = logging.getLogger(__name__)

INTAKE_CAPACITY_S = 600.0
"""Seconds of sound, over all streams, that may wait for the pipeline."""

TAKE_TIMEOUT_S = 0.1
"""How long the main loop waits for sound before it looks after the feed and the sources."""


class Daemon:
    """Everything that `serstream run` runs.

    Raises:
        SerstreamError: from the constructor, when a source, the model or the feed cannot be opened.
    """

    def __init__(self, settings: Settings, base: Path):
        if not (settings.rtp or settings.microphone or settings.file):
            raise ConfigError(
                "no source: the configuration needs at least one [[rtp]], [[microphone]] or [[file]]"
            )
        self._settings = settings
        self._started = time.time()
        self._models = Models(settings.model, base, load_model(settings.model, base), time.monotonic())
        self._pipeline = Pipeline(settings, self._models)
        self._publisher = Publisher(settings.feed, directory=base)
        self._control = ControlServer(socket_path(settings.control.socket, base))
        self._intake = Intake(INTAKE_CAPACITY_S)
        self._sources = _open_sources(settings, base)
        self._failed = False
        self._reload = False
        model = self._models.active
        log.info(
            "ready: %d source(s), model %s on %s, feed %s",
            len(self._sources),
            model.reference,
            model.providers[0],
            settings.feed.endpoint,
        )
        if settings.privacy.analyse_agents:
            log.warning(
                "privacy.analyse_agents is set: the emotions of agents are inferred, "
                "which the EU prohibits at work"
            )
        else:
            log.info("streams with role agent are not scored (privacy.analyse_agents is false)")

    def run(self) -> int:
        """Work until SIGINT, SIGTERM or the end of all sources.

        Returns:
            The exit code: 0, or 1 if a source failed in a way that nobody foresaw.
        """
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGHUP, self._ask_to_reload)
        threads = [
            threading.Thread(target=self._listen, args=(source,), name=f"source-{i}", daemon=True)
            for i, source in enumerate(self._sources)
        ]
        for thread in threads:
            thread.start()
        self._publisher.publish([self._models.announce(time.monotonic(), time.time())])
        try:
            while any(thread.is_alive() for thread in threads):
                self._turn(TAKE_TIMEOUT_S)
            self._turn(0)
        finally:
            self._control.close()
            self._models.close()
            self._publisher.close()
        return 1 if self._failed else 0

    def _turn(self, timeout_s: float) -> None:
        events = self._intake.take(timeout_s)
        self._publisher.publish(self._pipeline.feed(events))
        if self._reload:
            self._reload = False
            self._models.reread_pointer()
        now, utc = time.monotonic(), time.time()
        self._publisher.publish(self._models.poll(now, utc))
        self._publisher.poll(now, utc)
        self._control.poll(self._answer)

    def _answer(self, request: Request) -> Reply:
        match request:
            case StatusRequest():
                return self._status()
            case Activate(model):
                return Accepted(self._models.activate(model))
            case Rollback():
                return Accepted(self._models.rollback())
            case SetShadow(model):
                return Accepted(self._models.set_shadow(model))

    def _status(self) -> Status:
        return Status(
            pid=os.getpid(),
            started=rfc3339(self._started),
            uptime_s=round(time.time() - self._started, 3),
            feed=self._settings.feed.endpoint,
            streams=self._pipeline.n_streams,
            model=self._models.status(),
        )

    def _listen(self, source: Source) -> None:
        emit = self._intake.put_patiently if isinstance(source, FileSource) else self._intake.put
        try:
            source.run(emit)
        except SourceError as error:
            log.error("%s", error)
        except Exception:  # a defect of ours: end in order, with a trace, instead of running on deaf
            log.exception("source %s failed", type(source).__name__)
            self._failed = True
            self._stop_sources()

    def _stop(self, number: int, _frame: FrameType | None) -> None:
        log.info("%s: ending all streams", signal.Signals(number).name)
        self._stop_sources()

    def _ask_to_reload(self, _number: int, _frame: FrameType | None) -> None:
        self._reload = True

    def _stop_sources(self) -> None:
        for source in self._sources:
            source.stop()


def _open_sources(settings: Settings, base: Path) -> list[Source]:
    sources: list[Source] = [RtpSource(rtp) for rtp in settings.rtp]
    sources += [FileSource(file, base) for file in settings.file]
    if settings.microphone:  # an RTP-only server need not have PortAudio
        from serstream.audio.microphone import MicrophoneSource

        sources += [MicrophoneSource(microphone) for microphone in settings.microphone]
    return sources
