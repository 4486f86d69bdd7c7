import socket
import struct
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator

import msgspec
import pytest
from waiting import until

from serstream.errors import SourceError
from serstream.service import metrics as metrics_module
from serstream.service.health import Health, PortHealth
from serstream.service.metrics import (
    HOST,
    MAX_REQUESTS,
    STALE_S,
    Metrics,
    MetricsServer,
)
from serstream.service.status import CanaryStatus, ModelStatus, ShadowStatus, Status

STATUS = Status(
    pid=1,
    started="2026-01-01T00:00:00.000Z",
    uptime_s=1.0,
    feed="tcp://127.0.0.1:5556",
    streams=3,
    model=ModelStatus(name="cnn-lstm@1", path="", labels=("happy",), providers=("CPUExecutionProvider",)),
    health=Health(
        sources=("rtp:127.0.0.1:5004", "rtp:::1:5004"),
        windows={"scored": 7, "loss": 2},
        ports=tuple(
            PortHealth(
                address=address,
                port=5004,
                dropped={"not allowed": 4},
                streams=[],
                kernel_drops=5,
                packets={"lost": 6},
            )
            for address in ("127.0.0.1", "::1")
        ),
    ),
)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def server(metrics: Metrics) -> Iterator[MetricsServer]:
    running = MetricsServer(metrics, 0)
    yield running
    running.close()


def get(server: MetricsServer, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_prometheus_reads_the_status(metrics: Metrics, server: MetricsServer) -> None:
    metrics.update(STATUS, 0.0)
    metrics.observe_latency(0.02)
    metrics.observe_wait(0.004)
    with metrics.stage("score"):
        pass
    code, text = get(server, "/metrics")
    assert code == 200
    for line in (
        "serstream_streams 3.0",
        'serstream_windows_total{outcome="loss"} 2.0',
        'serstream_windows_total{outcome="overload"} 0.0',
        'serstream_rtp_dropped_total{address="127.0.0.1",port="5004",reason="not allowed"} 4.0',
        'serstream_rtp_packets_total{address="127.0.0.1",fate="lost",port="5004"} 6.0',
        'serstream_rtp_kernel_drops_total{address="::1",port="5004"} 5.0',
        'serstream_stage_seconds_count{stage="score"} 1.0',
        'serstream_window_latency_seconds_bucket{le="0.025"} 1.0',
        'serstream_wait_seconds_bucket{le="0.005"} 1.0',
        'serstream_model_info{model="cnn-lstm@1",provider="CPUExecutionProvider",version="0.1.0"} 1.0',
    ):
        assert line in text
    assert get(server, "/metrics?name=x")[0] == 200
    series = [line.rpartition(" ")[0] for line in text.splitlines() if not line.startswith("#")]
    assert len(set(series)) == len(series)


def test_prometheus_reads_how_the_candidates_do(metrics: Metrics) -> None:
    metrics.update(STATUS, 0.0)
    assert "cnn-lstm@2" not in metrics.text().decode()
    figures = {"windows": 40, "agreement": 0.75, "confidence_shift": -0.1, "latency_ms": 2.0}
    model = msgspec.structs.replace(
        STATUS.model,
        shadow=ShadowStatus(name="cnn-lstm@4", skipped=6, **figures),
        canary=CanaryStatus(name="cnn-lstm@2", share=0.1, calls=5, errors=1, **figures),
    )
    metrics.update(msgspec.structs.replace(STATUS, model=model), 0.0)
    text = metrics.text().decode()
    for line in (
        'serstream_candidate_windows_total{model="cnn-lstm@4",purpose="shadow"} 40.0',
        'serstream_candidate_agreement_ratio{model="cnn-lstm@2",purpose="canary"} 0.75',
        'serstream_candidate_confidence_shift{model="cnn-lstm@2",purpose="canary"} -0.1',
        'serstream_candidate_window_seconds{model="cnn-lstm@4",purpose="shadow"} 0.002',
        'serstream_shadow_skipped_total{model="cnn-lstm@4"} 6.0',
        'serstream_canary_calls_total{model="cnn-lstm@2"} 5.0',
        'serstream_canary_errors_total{model="cnn-lstm@2"} 1.0',
    ):
        assert line in text


def test_live_while_the_status_is_fresh_and_nothing_is_stuck(metrics: Metrics) -> None:
    assert not metrics.live(0.0)
    metrics.update(STATUS, 0.0)
    assert metrics.live(STALE_S - 0.1)
    assert not metrics.live(STALE_S)
    stuck = msgspec.structs.replace(STATUS, health=Health(stuck=("rtp:5004",)))
    metrics.update(stuck, 0.0)
    assert not metrics.live(0.0)


def test_ready_only_while_the_daemon_says_so(metrics: Metrics, server: MetricsServer) -> None:
    assert get(server, "/readyz")[0] == 503
    metrics.ready = True
    assert get(server, "/readyz") == (200, "ok\n")
    assert get(server, "/nothing")[0] == 404


def n_request_threads() -> int:
    return sum("process_request_thread" in thread.name for thread in threading.enumerate())


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server hangs up on nobody for saying nothing."""
    monkeypatch.setattr(metrics_module, "REQUEST_TIMEOUT_S", 3600.0)


@pytest.mark.usefixtures("patient")
def test_idle_connections_hold_up_nobody(metrics: Metrics, server: MetricsServer) -> None:
    metrics.ready = True
    idle = [socket.create_connection((HOST, server.port)) for _ in range(MAX_REQUESTS - 1)]
    assert get(server, "/readyz") == (200, "ok\n")
    # With more of them, whoever comes takes the place of the oldest.
    idle += [socket.create_connection((HOST, server.port)) for _ in range(MAX_REQUESTS)]
    assert get(server, "/readyz") == (200, "ok\n")
    idle[0].settimeout(10)
    assert idle[0].recv(1) == b""
    assert until(lambda: n_request_threads() < MAX_REQUESTS)
    for connection in idle:
        connection.close()


def test_a_connection_that_is_reset_is_no_news(
    server: MetricsServer, capfd: pytest.CaptureFixture[str]
) -> None:
    for _ in range(10):
        with socket.create_connection((HOST, server.port)) as rude:
            rude.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            rude.sendall(b"GET /metrics HT")
    assert get(server, "/readyz")[0] == 503
    assert until(lambda: not n_request_threads())
    assert capfd.readouterr().err == ""


def test_a_port_in_use_is_named(server: MetricsServer) -> None:
    with pytest.raises(SourceError, match=rf"metrics 127\.0\.0\.1:{server.port}: cannot bind"):
        MetricsServer(Metrics(), server.port)
