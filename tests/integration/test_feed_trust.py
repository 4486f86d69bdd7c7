"""Bad subscribers, real processes, TCP: what 60 s at 200 messages a second come to, in 6 s at 2,000.

benchmarks/feed_trust.py is the scenario; without arguments it runs at the original speed.
"""

import json
import subprocess
import sys
from pathlib import Path

SCENARIO = Path(__file__).parents[2] / "benchmarks" / "feed_trust.py"


def test_bad_subscribers_harm_nobody() -> None:
    command = [sys.executable, str(SCENARIO), "--seconds", "6", "--rate", "2000", "--high-water-mark", "1000"]
    run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    result = json.loads(run.stdout.splitlines()[-1])
    daemon = result["daemon"]
    assert daemon["published"] == 12_000
    healthy = result["healthy"]
    assert (healthy["received"], healthy["gaps"], healthy["holes"]) == (12_000, 0, 0)
    for name in ("healthy", "stopped", "cut", "joining"):
        assert result[name]["state"] == daemon["state"], f"the state of the {name} one"
    for name in ("stopped", "cut"):
        assert result[name]["received"] == 12_000
        assert result[name]["repaired"] > 0
    assert daemon["rss_peak_mib"] - daemon["rss_start_mib"] < 64
