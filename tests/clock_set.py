"""`serstream` on a machine whose wall clock is set while it runs.

Not even root can set the clock in a container, and elsewhere everybody would feel it. So this process alone
sees it set: in what Python calls the time, and in the kernel's stamps of packets, as they would have it.

python tests/clock_set.py FILE STEP_S ARGUMENT...     # at the UTC that the file tells once it is there
"""

from __future__ import annotations

import sys
import time
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serstream.cli import main
from serstream.rtp.datagrams import UdpPort

told, step_s = Path(sys.argv[1]), float(sys.argv[2])
wall_clock, arrivals = time.time, UdpPort._arrivals


def step_utc() -> float:
    """When the clock is set."""
    return float(told.read_text()) if told.exists() else inf


def set_clock() -> float:
    """As time.time."""
    utc = wall_clock()
    return utc + step_s if utc >= step_utc() else utc


def set_stamps(port: UdpPort, controls: NDArray[np.void]) -> NDArray[np.float64]:
    """Arrivals as they are reckoned with stamps of the clock as it was or is set."""
    stamps: NDArray[Any] = controls.copy()
    stamps["seconds"][stamps["seconds"] + 1e-9 * stamps["nanoseconds"] >= step_utc()] += round(step_s)
    return arrivals(port, stamps)


time.time = set_clock
UdpPort._arrivals = set_stamps
sys.exit(main(sys.argv[3:]))
