"""The dashboard and the alert rules ask for metrics that exist."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest

from serstream.service.health import Health, PortHealth
from serstream.service.metrics import Metrics
from serstream.service.status import CanaryStatus, ModelStatus, ShadowStatus, Status
from serstream.view.status import describe

DOCS = Path(__file__).parent.parent.parent / "docs"
ALERTS, DASHBOARD = DOCS / "prometheus-alerts.yml", DOCS / "grafana-dashboard.json"


def exported() -> str:
    metrics = Metrics()
    model = ModelStatus(
        name="m@1",
        path="",
        labels=(),
        providers=("CPUExecutionProvider",),
        shadow=ShadowStatus(name="m@2"),
        canary=CanaryStatus(name="m@3", share=0.1),
    )
    port = PortHealth(address="::1", port=1, dropped={"x": 1}, streams=[], packets={"lost": 1})
    health = Health(windows={"scored": 1}, ports=(port,), microphone_lost_s={"microphone:USB": 1.5})
    metrics.update(
        Status(pid=1, started="", uptime_s=1.0, feed="", streams=0, model=model, health=health), 0.0
    )
    with metrics.stage("score"):
        metrics.observe_latency(0.1)
    return metrics.text().decode()


@pytest.mark.parametrize("path", [ALERTS, DASHBOARD], ids=["alerts", "dashboard"])
def test_every_metric_that_is_asked_for_exists(path: Path) -> None:
    have = set(re.findall(r"^(serstream_\w+)", exported(), re.MULTILINE))
    asked = set(re.findall(r"serstream_\w+", path.read_text()))
    assert asked
    assert asked <= have


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.name)
def test_every_metric_that_is_written_of_exists(page: Path) -> None:
    have = re.findall(r"^(serstream_\w+)", exported(), re.MULTILINE)
    for name in re.findall(r"`(serstream_\w+)", page.read_text()):
        assert any(metric.startswith(name) for metric in have), name


def test_the_manual_says_of_every_alarm_what_to_do() -> None:
    alarms = set(re.findall(r"- alert: (\w+)", ALERTS.read_text()))
    told = set(re.findall(r"^\| (Serstream\w+) \|", (DOCS / "operations.md").read_text(), re.MULTILINE))
    assert alarms == told


def test_what_an_alarm_is_about_is_on_the_dashboard() -> None:
    asked, shown = (set(re.findall(r"serstream_\w+", path.read_text())) for path in (ALERTS, DASHBOARD))
    assert asked <= shown


def promtool(*arguments: str | Path, given: str = "") -> subprocess.CompletedProcess[str]:
    tool = shutil.which("promtool")
    if tool is None:
        pytest.skip("promtool is not installed (Debian package prometheus)")
    return subprocess.run([tool, *arguments], input=given, capture_output=True, text=True)


def test_promtool_accepts_the_rules() -> None:
    done = promtool("check", "rules", ALERTS)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alarm_is_raised_by_what_it_is_for_and_by_nothing_else() -> None:
    cases = Path(__file__).with_name("prometheus-alerts.test.yml")
    assert set(re.findall(r"- alert: (\w+)", ALERTS.read_text())) == set(
        re.findall(r"alertname: (\w+)", cases.read_text())
    )
    done = promtool("test", "rules", cases)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_accepts_the_metrics() -> None:
    done = promtool("check", "metrics", given=exported())
    assert not re.search("error while linting|parse error", done.stderr), done.stderr


def test_the_dashboard_is_json_with_panels() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert all(target["expr"] for panel in panels for target in panel["targets"])


def test_no_metric_is_labelled_with_a_call_or_stream() -> None:
    labels = set(re.findall(r'[{,](\w+)="', exported()))
    assert labels <= {
        *("le", "stage", "outcome", "address", "port", "reason", "fate"),
        *("model", "provider", "version", "purpose", "source"),
    }


def test_the_status_line_changes_only_when_something_happens() -> None:
    health = Health(windows={"scored": 5, "loss": 1, "overload": 2})
    assert health.line(3, "m@1") == "3 streams; 5 windows scored, 3 not; m@1"
    stuck = msgspec.structs.replace(health, stuck=("rtp:1",), reload_error="x")
    assert stuck.line(3, "m@1").endswith("STUCK: rtp:1; last reload failed")


def test_ports_of_the_same_number_are_told_apart() -> None:
    model = ModelStatus(name="m@1", path="", labels=(), providers=("CPUExecutionProvider",))
    ports = tuple(
        PortHealth(address=address, port=5004, dropped={}, streams=[]) for address in ("127.0.0.1", "::1")
    )
    health = Health(ports=ports)
    status = Status(pid=1, started="", uptime_s=1.0, feed="", streams=9, model=model, health=health)
    rows = [line.split()[0] for line in describe(status).splitlines() if line.startswith("rtp:")]
    assert rows == ["rtp:127.0.0.1:5004", "rtp:::1:5004"]


def test_muted_streams_are_told_wherever_one_looks() -> None:
    health = Health(muted=2, muted_s=3.5)
    assert health.line(9, "m@1").endswith("; OVERLOAD: 2 streams muted")
    model = ModelStatus(name="m@1", path="", labels=(), providers=("CPUExecutionProvider",))
    status = Status(pid=1, started="", uptime_s=1.0, feed="", streams=9, model=model, health=health)
    assert "\nstreams   9, 2 muted: overload; 3.5 s passed over\n" in describe(status)
    metrics = Metrics()
    metrics.update(status, 0.0)
    assert "serstream_streams_muted 2.0" in metrics.text().decode()


def test_who_asked_for_messages_again_is_named() -> None:
    model = ModelStatus(name="m@1", path="", labels=(), providers=("CPUExecutionProvider",))

    def told(**repeated: int) -> tuple[str, str]:
        health = Health(repeated=repeated)
        status = Status(pid=1, started="", uptime_s=1.0, feed="", streams=9, model=model, health=health)
        metrics = Metrics()
        metrics.update(status, 0.0)
        return describe(status), metrics.text().decode()

    text, metrics = told(crm=7, wallboard=90, desk=8, archive=1)
    assert "106 repeated (wallboard 90, desk 8, crm 7)\n" in text + "\n"
    assert "serstream_feed_repeated_total 106.0" in metrics
    assert "wallboard" not in metrics
    assert told(**{"": 5})[0].endswith("5 repeated"), "without keys nobody has a name"


def test_what_a_microphone_has_lost_is_told_wherever_one_looks() -> None:
    model = ModelStatus(name="m@1", path="", labels=(), providers=("CPUExecutionProvider",))
    health = Health(microphone_lost_s={"microphone:USB": 1.5})
    status = Status(pid=1, started="", uptime_s=1.0, feed="", streams=9, model=model, health=health)
    (row,) = (line for line in describe(status).splitlines() if line.startswith("microphone:USB"))
    assert row.split(maxsplit=1)[1] == "1.5 s lost to overflows"
    assert 'serstream_microphone_lost_seconds_total{source="microphone:USB"} 1.5' in exported()
