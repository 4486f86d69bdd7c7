"""The daemon: what runs in which thread, and what ends when.

One thread for all RTP ports and one for each other source put sound into the intake; the main thread takes it
out, runs the pipeline and publishes. Shutdown goes with the flow: sources end their streams, the pipeline
scores their last windows and says goodbye, then the feed closes.
"""

from __future__ import annotations

import logging
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from serstream.config import Settings
from serstream.emotion import compiled
from serstream.emotion.loading import load_or_fall_back
from serstream.errors import ControlError, SerstreamError
from serstream.feed.messages import Message, ModelChanged, rfc3339
from serstream.feed.publisher import Publisher
from serstream.pacing import ALWAYS
from serstream.pipeline import Pipeline
from serstream.service.allocator import Ebb, keep_working_memory
from serstream.service.check import check_endpoints, check_sources, tell_who_is_analysed, warn_of_idle_alerts
from serstream.service.control import (
    Accepted,
    Activate,
    ControlServer,
    Reload,
    Reply,
    Request,
    Rollback,
    SetCanary,
    SetShadow,
    StatusRequest,
)
from serstream.service.control_path import socket_path
from serstream.service.health import Health
from serstream.service.intake import Intake, mean_age_s
from serstream.service.losses import Losses
from serstream.service.metrics import Metrics, MetricsServer
from serstream.service.models import Models
from serstream.service.notifier import Notifier
from serstream.service.overload import Capacity, StreamLimit
from serstream.service.reload import fixed_changes, without_fixed_changes
from serstream.service.shelf import SocketShelf, inherited_sockets
from serstream.service.signals import Signals
from serstream.service.sources import Sources
from serstream.service.status import Status
from serstream.types import SourceEvent, SpeechWindow

log = logging.getLogger(__name__)

INTAKE_CAPACITY_S = 2000.0
"""Seconds of sound, over all streams, that may wait for the pipeline."""

REPORT_S = 1.0
"""How often status is renewed and losses are warned of."""

MEASURED_WINDOWS = 32
"""Windows of silence that are scored at start-up, to know what one costs."""

TAKE_TIMEOUT_S = 0.1
"""How long the main loop waits for sound before it looks after the feed and the sources."""


class Daemon:
    """Everything that `serstream run` runs.

    Args:
        load: reads the configuration; called again at every reload.
        base: folder that relative paths of the configuration start from.
        signals: what it is told from outside.

    Raises:
        SerstreamError: from the constructor, when a source, the model or the feed cannot be opened.
    """

    def __init__(self, load: Callable[[], Settings], base: Path, signals: Signals):
        settings = load()
        check_sources(settings, base)
        check_endpoints(settings, base)
        keep_working_memory()
        _allow_descriptors()
        self._ebb = Ebb()
        self._settings = settings
        self._load = load
        self._base = base
        self._signals = signals
        self._notifier = Notifier(os.environ)
        self._shelf = SocketShelf(self._notifier, inherited_sockets(os.environ, os.getpid()))
        self._started, self._began = time.time(), time.monotonic()
        first, refusal = load_or_fall_back(settings.model, base)
        self._models = Models(settings.model, base, first, time.monotonic(), refusal)
        self._pipeline = Pipeline(settings, self._models)
        self._publisher = Publisher(settings.feed, directory=base)
        self._control = ControlServer(socket_path(settings.control.socket, base))
        self._intake = Intake(INTAKE_CAPACITY_S)
        self._sources = Sources(settings, base, self._intake, self._shelf)
        self._shelf.close_unused()
        self._capacity = Capacity(settings.overload.max_delay_ms / 1000)
        self._stream_limit = StreamLimit(settings.overload.max_delay_ms / 1000)
        self._measure()
        self._metrics = Metrics()
        self._metrics_server = (
            MetricsServer(self._metrics, settings.metrics.port) if settings.metrics.port else None
        )
        self._next_report = 0.0
        self._losses = Losses()
        self._reloads = 0
        self._reload_error = ""
        model = self._models.active
        log.info(
            "ready: %d source(s), model %s (licence %s) on %s, feed %s",
            len(self._sources),
            model.reference,
            model.metadata.licence,
            model.providers[0],
            settings.feed.endpoint,
        )
        tell_who_is_analysed(settings)

    def _measure(self) -> None:
        """What a window costs on this machine, before the first one comes."""
        model = self._models.active
        silence = np.zeros((MEASURED_WINDOWS, model.metadata.feature_spec.n_samples), np.float32)
        began = time.monotonic()
        model.score_samples(silence)
        taken = time.monotonic() - began
        self._capacity.observe(MEASURED_WINDOWS, taken)
        log.info(
            "a window takes %.1f ms to score, MFCC %s",
            1000 * taken / MEASURED_WINDOWS,
            "in C" if compiled.is_there() else "by numpy: no C compiler when this was installed",
        )

    def run(self) -> int:
        """Work until SIGINT, SIGTERM or the end of all sources.

        Returns:
            The exit code: 0, or 1 if a source failed in a way that nobody foresaw.
        """
        self._sources.start()
        self._publish_about_models([self._models.announce(time.monotonic(), time.time())])
        try:
            self._turn(0)
            self._metrics.ready = True
            self._notifier.ready()
            while self._sources.alive or not self._intake.is_empty:
                self._heed_signals()
                self._turn(TAKE_TIMEOUT_S)
        finally:
            if self._metrics_server:
                self._metrics_server.close()
            self._control.close()
            self._models.close()
            self._publisher.close()
        return 1 if self._sources.failed else 0

    def _heed_signals(self) -> None:
        if self._sources.stopped:
            return
        if reason := self._signals.stop or ("a source failed" if self._sources.failed else ""):
            log.info("%s: ending all streams", reason)
            self._metrics.ready = False
            self._notifier.stopping()
            self._sources.stop()
        elif self._signals.reload:
            self._signals.reload = False
            self._reread()

    def _turn(self, timeout_s: float) -> None:
        events = self._intake.take(timeout_s)
        if events:
            self._score(events)
        now, utc = time.monotonic(), time.time()
        self._report(now)
        self._publish_about_models(self._models.poll(now, utc))
        self._publisher.poll(now, utc)
        self._control.poll(self._answer)

    def _score(self, events: list[SourceEvent]) -> None:
        taken, heard_s = time.monotonic(), self._pipeline.heard_s
        if age_s := mean_age_s(events, taken):
            self._metrics.observe_wait(age_s)
        with self._metrics.stage("segment"):
            steps = self._pipeline.segment(events)
        arrivals = [step.arrived for _, step in steps if isinstance(step, SpeechWindow) and step.arrived]
        limit = self._capacity.limit
        began = time.monotonic()
        with self._metrics.stage("score"):
            messages = self._pipeline.tell(steps, limit)
        scored = self._metrics.windows["scored"]
        self._metrics.count(messages)
        self._capacity.observe(self._metrics.windows["scored"] - scored, time.monotonic() - began)
        with self._metrics.stage("publish"):
            self._publisher.publish(messages)
        now = time.monotonic()
        for arrived in arrivals:
            self._metrics.observe_latency(now - arrived)
        self._stream_limit.observe(
            self._pipeline.heard_s - heard_s, age_s, now - taken, self._pipeline.n_streams, now
        )
        self._pipeline.stream_limit = self._stream_limit.streams

    def _publish_about_models(self, messages: list[Message]) -> None:
        if any(isinstance(message, ModelChanged) for message in messages):
            warn_of_idle_alerts(self._settings.alert, self._models.active)
        self._publisher.publish(messages)

    def _report(self, now: float) -> None:
        """Once a second: feed the watchdog, renew what is shown, warn of what was lost, stay reachable."""
        stuck = self._sources.stuck(now)
        if not stuck:
            self._notifier.progress(now)
        if now < self._next_report:
            return
        self._next_report = now + REPORT_S
        self._ebb.watch(self._pipeline.n_streams)
        self._control.look_after_file()
        status = self._status()
        self._metrics.update(status, now)
        self._notifier.status(status.health.line(status.streams, status.model.name))
        self._losses.report(status.health, now)
        if stuck:
            log.error("stuck, the watchdog is not fed any more: %s", ", ".join(stuck))

    def _reread(self) -> None:
        """Reload: everything or, if anything in the file is wrong, nothing.

        What the file cannot know, a port that somebody else has, concerns that source alone.
        """
        self._notifier.reloading(time.monotonic())
        try:
            settings = self._load()
            check_sources(settings, self._base)
        except (SerstreamError, OSError, ValueError) as error:  # no path in a file may end the calls
            self._reload_error = str(error)
            log.error("reload refused, everything stays as it was: %s", error, extra=ALWAYS)
        else:
            if fixed := dict(fixed_changes(self._settings, settings)):
                told = "; ".join(f"{key}: {reason}" for key, reason in fixed.items())
                log.warning("reload: changed only by a restart: %s", told, extra=ALWAYS)
            settings = without_fixed_changes(self._settings, settings)
            faults = self._sources.reload(settings)
            self._pipeline.settings = settings
            self._capacity.max_delay_s = settings.overload.max_delay_ms / 1000
            self._stream_limit.max_delay_s = settings.overload.max_delay_ms / 1000
            self._settings = settings
            if fault := self._models.reread_pointer():
                faults.append(fault)
            self._reloads += 1
            self._reload_error = f"reloaded, but without {'; '.join(faults)}" if faults else ""
            if self._reload_error:
                log.error("%s", self._reload_error, extra=ALWAYS)
            log.info("reloaded: %d source(s)", len(self._sources))
            warn_of_idle_alerts(settings.alert, self._models.active)
            tell_who_is_analysed(settings)
        self._notifier.ready()

    def _answer(self, request: Request) -> Reply:
        match request:
            case StatusRequest():
                return self._status()
            case Activate(model):
                return self._accepted(self._models.activate(model))
            case Rollback():
                return self._accepted(self._models.rollback())
            case SetCanary(model, share):
                return self._accepted(self._models.set_canary(model, share))
            case SetShadow(model):
                return self._accepted(self._models.set_shadow(model))
            case Reload():
                if self._sources.stopped:
                    raise ControlError("reload refused: the daemon is ending; start it again")
                self._reread()
                if self._reload_error:
                    raise ControlError(self._reload_error)
                return self._status()

    def _accepted(self, model: str) -> Accepted:
        return Accepted(model, self._models.refusals)

    def _status(self) -> Status:
        return Status(
            pid=os.getpid(),
            started=rfc3339(self._started),
            uptime_s=round(time.monotonic() - self._began, 3),
            feed=self._settings.feed.endpoint,
            streams=self._pipeline.n_streams,
            model=self._models.status(),
            health=self._health(),
        )

    def _health(self) -> Health:
        feed = self._publisher.counters
        cpu_s = {"receive": self._sources.receive_cpu_s, **self._metrics.cpu_s}
        return Health(
            sources=self._sources.names(),
            stuck=self._sources.stuck(time.monotonic()),
            windows=dict(self._metrics.windows),
            cpu_s={stage: round(seconds, 3) for stage, seconds in cpu_s.items()},
            waiting_s=round(self._intake.waited_s, 3),
            dropped_s=round(self._intake.dropped_s, 3),
            window_limit=self._capacity.limit or 0,
            muted=self._pipeline.n_muted,
            muted_s=round(self._pipeline.muted_s, 3),
            published=feed.published,
            overflowed=feed.overflowed,
            repeated=dict(feed.repeated),
            subscribers=feed.subscribers,
            snapshots=feed.snapshots,
            refused_clients=feed.refused,
            feed_full=feed.full,
            reloads=self._reloads,
            reload_error=self._reload_error,
            ports=self._sources.ports,
            microphone_lost_s=self._sources.microphone_lost_s,
        )


def _allow_descriptors() -> None:
    """As many as the process may have: a shell gives 1,024, which the ports of 500 calls would use up."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
