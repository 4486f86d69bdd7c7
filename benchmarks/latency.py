"""Latency from the end of a window to its event at a subscriber, with 20 streams in real time.

A real daemon process takes 20 G.711 RTP streams (the sample call's two parties, ten times, each shifted by
some seconds) for a minute; the clock starts when the packet that completes a window leaves the sender and
stops when its event is in a subscriber's hands. Also: seconds from the process's start until a subscriber
hears it, and the daemon's peak resident memory. Prints one JSON object as its last line.
"""

import json
import threading
import time
from pathlib import Path

import numpy as np
import soundfile

from serstream.feed.messages import StreamEnded
from serstream.rehearsal import DaemonProcess, Leg, free_port_pair
from serstream.rtp.sender import send_in_real_time
from serstream.shipped import SAMPLE_CALL

STREAMS = 20
SECONDS = 60
START_TIMEOUT_S = 20.0


def main() -> None:
    samples, rate = soundfile.read(SAMPLE_CALL, dtype="int16", always_2d=True)
    looped = np.tile(samples, (1 + SECONDS * rate // len(samples), 1))[: SECONDS * rate]
    legs = [Leg(np.roll(looped[:, i % 2], i * rate), free_port_pair(), ssrc=i + 1) for i in range(STREAMS)]
    by_source = {f"rtp:{leg.outgoing.port}": leg for leg in legs}
    configuration = "\n".join(f"[[rtp]]\nport = {leg.outgoing.port}" for leg in legs)
    began = time.monotonic()
    with DaemonProcess(configuration) as daemon:
        ready_s = time.monotonic() - began
        sender = threading.Thread(target=send_in_real_time, args=([leg.outgoing for leg in legs],))
        sender.start()
        alive = STREAMS
        deadline = time.monotonic() + SECONDS + START_TIMEOUT_S
        while alive and time.monotonic() < deadline:
            for event, arrived in daemon.take(0.1):
                if leg := by_source.get(getattr(event, "source", "")):
                    leg.take(event, arrived)
                alive -= isinstance(event, StreamEnded)
        sender.join()
        status = Path(f"/proc/{daemon.process.pid}/status").read_text()
    latencies = [latency for leg in legs for latency in leg.latencies_ms]
    print(
        json.dumps(
            {
                "benchmark": "latency",
                "streams": STREAMS,
                "seconds": SECONDS,
                "windows": len(latencies),
                "windows_lost": sum(leg.lost for leg in legs),
                "median_ms": round(float(np.median(latencies)), 1),
                "p99_ms": round(float(np.percentile(latencies, 99)), 1),
                "max_ms": round(max(latencies), 1),
                "ready_s": round(ready_s, 2),
                "peak_rss_mb": int(status.split("VmHWM:")[1].split()[0]) // 1024,
            }
        )
    )


if __name__ == "__main__":
    main()
