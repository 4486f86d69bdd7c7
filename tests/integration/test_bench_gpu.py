import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"


def test_every_batch_size_is_measured_with_or_without_a_gpu() -> None:
    run = subprocess.run([sys.executable, SCRIPT, "0.01"], capture_output=True, text=True, check=True)
    result = json.loads(run.stdout.splitlines()[-1])
    assert result["device"].startswith(("cuda", "cpu"))
    assert [step["batch"] for step in result["steps"]] == [1, 32, 256, 1024]
    for step in result["steps"]:
        assert step["windows_per_s"] > 0
        assert step["network_on_device_ms"] > 0 and step["device_share"] > 0
        assert step["network_graph_ms"] is None or step["network_graph_ms"] > 0
