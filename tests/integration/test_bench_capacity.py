import json
import os

import pytest

from serstream.bench import capacity
from serstream.cli import main


def test_a_few_streams_are_sustained_and_their_cost_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cores = os.sched_getaffinity(0)
    monkeypatch.setattr(capacity, "RAMP_S", 0.5)
    monkeypatch.setattr(capacity, "DRAIN_S", 0.5)
    monkeypatch.setattr(capacity, "SCRIPTS", 3)
    # What is measured is not judged here: a test machine may be busy.
    monkeypatch.setattr(capacity, "LATENCY_LIMIT_MS", 5000.0)
    assert main(["bench", "capacity", "--streams", "6", "--seconds", "3", "--talk-share", "1"]) == 0
    assert os.sched_getaffinity(0) == cores
    told = capsys.readouterr()
    result = json.loads(told.out.splitlines()[-1])
    (step,) = result["steps"]
    assert "6 streams: sustained" in told.err
    assert result["streams_sustained"] == 6
    assert step["windows"] >= 6 and not step["windows_lost"] and not step["kernel_drops"]
    assert 0 < step["median_ms"] <= step["p99_ms"] <= step["max_ms"]
    assert step["stages_cpu"].keys() == {"receive", "segment", "score", "publish", "other"}
    assert sum(step["stages_cpu"].values()) == pytest.approx(step["daemon_cpu"], abs=0.01)
    assert 0 < step["idle_kb"] <= step["loaded_kb"]


@pytest.mark.parametrize("argument", ["--talk-share=0", "--seconds=0", "--cores=4711"])
def test_impossible_conditions_are_refused(argument: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "capacity", argument]) == 2
    assert argument.split("=")[0] in capsys.readouterr().err
