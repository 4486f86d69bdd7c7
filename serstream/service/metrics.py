"""Metrics for Prometheus and the two health checks, over HTTP on loopback.

=========  ==================================================================================
/metrics   Prometheus text; labels never name a call or a stream
/livez     200 while the pipeline advances and no source is stuck, else 503
/readyz    200 between the end of start-up and the begin of shutdown, else 503
=========  ==================================================================================
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, get_args

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from serstream.errors import SourceError
from serstream.feed.messages import Message, UnscoredReason, WindowEmotion, WindowUnscored
from serstream.service.status import ModelStatus, Status

log = logging.getLogger(__name__)

HOST = "127.0.0.1"
BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
STALE_S = 10.0
"""A status older than this means that the main loop does not turn."""
REQUEST_TIMEOUT_S = 2.0
"""A client that says nothing for so long is hung up on."""
MAX_REQUESTS = 64
"""Answered at the same time; for whoever comes then the oldest is hung up on, even if it still asks."""


class Metrics(Collector):
    """What is measured. Written by the daemon's main thread, read by the HTTP thread."""

    def __init__(self) -> None:
        self.windows: Counter[str] = Counter()
        """``scored``, and what is not scored by reason."""
        self.cpu_s: defaultdict[str, float] = defaultdict(float)
        """Processor time of the main thread, by stage."""
        self.ready = False
        self._status: tuple[Status, float] | None = None
        self._registry = CollectorRegistry()
        self._stage = Histogram(
            "serstream_stage_seconds",
            "Duration of one turn's stage",
            ["stage"],
            buckets=BUCKETS_S,
            registry=self._registry,
        )
        self._wait = Histogram(
            "serstream_wait_seconds",
            "Mean age of the sound that a turn takes: in the socket, the jitter buffer and the intake",
            buckets=BUCKETS_S,
            registry=self._registry,
        )
        self._latency = Histogram(
            "serstream_window_latency_seconds",
            "From the arrival of a window's last sample to its publication",
            buckets=BUCKETS_S,
            registry=self._registry,
        )
        self._registry.register(self)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure what is done inside."""
        began = time.thread_time()
        with self._stage.labels(name).time():
            yield
        self.cpu_s[name] += time.thread_time() - began

    def observe_wait(self, seconds: float) -> None:
        """A turn took sound that had arrived so long before, on average."""
        self._wait.observe(seconds)

    def observe_latency(self, seconds: float) -> None:
        """A window was published so long after its last sample had arrived."""
        self._latency.observe(seconds)

    def count(self, messages: Iterable[Message]) -> None:
        """Count the windows among published messages."""
        for message in messages:
            if isinstance(message, WindowEmotion):
                self.windows["scored"] += 1
            elif isinstance(message, WindowUnscored):
                self.windows[message.reason] += 1

    def update(self, status: Status, now: float) -> None:
        """Show this status from now on (monotonic seconds)."""
        self._status = status, now

    def live(self, now: float) -> bool:
        """Whether the daemon advances."""
        status = self._status
        return status is not None and now - status[1] < STALE_S and not status[0].health.stuck

    def text(self) -> bytes:
        """Everything in the Prometheus text format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """The status as metrics; prometheus_client calls this."""
        if self._status is None:
            return
        status, health, model = self._status[0], self._status[0].health, self._status[0].model
        yield _gauge("uptime_seconds", "Since the start", status.uptime_s)
        yield _gauge("streams", "Streams alive", status.streams)
        yield _gauge("sources", "Sources that run", len(health.sources))
        yield _gauge("sources_stuck", "Sources that are not heard of any more", len(health.stuck))
        yield _gauge("intake_waiting_seconds", "Sound that waits for the pipeline", health.waiting_s)
        yield _counter("intake_dropped_seconds", "Sound dropped because of overload", health.dropped_s)
        yield _gauge(
            "window_limit", "Windows that a turn has time for (0: not measured)", health.window_limit
        )
        yield _gauge("streams_muted", "Streams that there is no time to hear", health.muted)
        yield _counter("muted_seconds", "Sound of muted streams", health.muted_s)
        yield _gauge("feed_subscribers", "Subscribers connected", health.subscribers)
        yield _counter("feed_messages", "Messages published", health.published)
        yield _counter("feed_overflows", "Messages met by a full subscriber queue", health.overflowed)
        yield _counter("feed_repeated", "Messages sent again", sum(health.repeated.values()))
        yield _counter("feed_snapshots", "Snapshots sent to subscribers", health.snapshots)
        yield _counter("feed_refused", "Connections refused for their keys", health.refused_clients)
        yield _counter("feed_full", "Times that all connections were cut, as too many", health.feed_full)
        yield _counter("reloads", "Configuration reloads", health.reloads)
        yield _gauge(
            "reload_failed",
            "1 when the last reload was refused, or a source or the active model could not be opened",
            bool(health.reload_error),
        )
        yield _counter("model_swaps", "Models exchanged", model.swaps)
        yield _counter("model_refusals", "Models refused", model.refusals)
        yield _gauge(
            "model_fallback",
            "1 while the model before scores, as the one that should could not be loaded or failed",
            model.fallback,
        )
        info = GaugeMetricFamily(
            "serstream_model_info", "The model in use", labels=["model", "provider", "version"]
        )
        info.add_metric([model.name, model.providers[0], status.version], 1)
        yield info
        windows = CounterMetricFamily(
            "serstream_windows", "Speech windows by outcome: scored, or why not", labels=["outcome"]
        )
        for outcome in ("scored", *get_args(UnscoredReason)):
            # All from the start on: Prometheus cannot see the first increase of a counter that was not there.
            windows.add_metric([outcome], health.windows.get(outcome, 0))
        yield windows
        microphones = CounterMetricFamily(
            "serstream_microphone_lost_seconds", "Sound lost to overflows", labels=["source"]
        )
        for source, seconds in health.microphone_lost_s.items():
            microphones.add_metric([source], seconds)
        yield microphones
        yield from _candidates(model)
        yield from _packets(status)


def _candidates(model: ModelStatus) -> Iterator[Metric]:
    """The shadow and the canary, while there are any; their counts begin anew with the active model."""
    labels = ["purpose", "model"]
    windows = CounterMetricFamily(
        "serstream_candidate_windows", "Windows on which a candidate was compared", labels=labels
    )
    agreement = GaugeMetricFamily(
        "serstream_candidate_agreement_ratio",
        "Share of them on which it had the active model's winner",
        labels=labels,
    )
    shift = GaugeMetricFamily(
        "serstream_candidate_confidence_shift",
        "How much more confident it is than the active model, on average",
        labels=labels,
    )
    seconds = GaugeMetricFamily(
        "serstream_candidate_window_seconds", "How long it takes for a window, on average", labels=labels
    )
    skipped = CounterMetricFamily(
        "serstream_shadow_skipped", "Windows that the shadow had no time for", labels=["model"]
    )
    calls = CounterMetricFamily("serstream_canary_calls", "Calls that the canary was given", labels=["model"])
    errors = CounterMetricFamily(
        "serstream_canary_errors", "Windows that the canary failed on", labels=["model"]
    )
    if model.shadow:
        skipped.add_metric([model.shadow.name], model.shadow.skipped)
    if model.canary:
        calls.add_metric([model.canary.name], model.canary.calls)
        errors.add_metric([model.canary.name], model.canary.errors)
    for purpose, candidate in (("shadow", model.shadow), ("canary", model.canary)):
        if candidate:
            where = [purpose, candidate.name]
            windows.add_metric(where, candidate.windows)
            agreement.add_metric(where, candidate.agreement)
            shift.add_metric(where, candidate.confidence_shift)
            seconds.add_metric(where, candidate.latency_ms / 1000)
    yield from (windows, agreement, shift, seconds, skipped, calls, errors)


def _packets(status: Status) -> Iterator[Metric]:
    labels = ["address", "port"]
    dropped = CounterMetricFamily(
        "serstream_rtp_dropped", "Datagrams that no stream got, by reason", labels=[*labels, "reason"]
    )
    kernel = CounterMetricFamily(
        "serstream_rtp_kernel_drops", "Datagrams dropped by a full socket buffer", labels=labels
    )
    streams = GaugeMetricFamily("serstream_rtp_streams", "Streams alive on a port", labels=labels)
    packets = CounterMetricFamily(
        "serstream_rtp_packets", "Packets of streams, by fate", labels=[*labels, "fate"]
    )
    for port in status.health.ports:
        where = [port.address, str(port.port)]
        streams.add_metric(where, len(port.streams))
        kernel.add_metric(where, port.kernel_drops)
        for reason, count in port.dropped.items():
            dropped.add_metric([*where, reason], count)
        for fate, count in port.packets.items():
            packets.add_metric([*where, fate], count)
    yield from (dropped, kernel, streams, packets)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"serstream_{name}", text, value=value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"serstream_{name}", text, value=value)


class _Server(ThreadingHTTPServer):
    block_on_close = False
    request_queue_size = MAX_REQUESTS

    def __init__(self, *arguments: Any):
        self._latest: deque[socket.socket] = deque()
        """Sockets of the last `MAX_REQUESTS` requests, oldest first; most are answered and closed."""
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        if len(self._latest) == MAX_REQUESTS:
            with suppress(OSError):  # it is closed already
                self._latest.popleft().shutdown(socket.SHUT_RDWR)  # wakes its thread, which closes it
        self._latest.append(request)
        super().process_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("metrics: request of %s:%d failed", *client_address, exc_info=True)


class MetricsServer:
    """Answers on loopback, every request in a thread of its own.

    Raises:
        SourceError: the port cannot be bound.
    """

    def __init__(self, metrics: Metrics, port: int):
        class Handler(BaseHTTPRequestHandler):
            timeout = REQUEST_TIMEOUT_S

            def do_GET(self) -> None:
                code, kind, body = _answer(metrics, self.path)
                self.send_response(code)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                log.debug(format, *args)

        try:
            self._server = _Server((HOST, port), Handler)
        except OSError as error:
            raise SourceError(
                f"metrics {HOST}:{port}: cannot bind the TCP port: {error.strerror}; set another "
                "metrics.port, or 0 for no metrics"
            ) from error
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _answer(metrics: Metrics, path: str) -> tuple[int, str, bytes]:
    match path.partition("?")[0]:
        case "/metrics":
            return 200, CONTENT_TYPE_LATEST, metrics.text()
        case "/livez":
            good = metrics.live(time.monotonic())
        case "/readyz":
            good = metrics.ready
        case _:
            return 404, "text/plain", b"there are /metrics, /livez and /readyz\n"
    return (200, "text/plain", b"ok\n") if good else (503, "text/plain", b"not ok\n")
