"""A thousand model swaps while 50 streams run: windows lost, latency, and what the daemon holds afterwards.

A real daemon process takes 50 G.711 RTP streams (the sample call's two parties, shifted) in real time. For a
minute nothing happens; then two versions of the shipped model are activated in turn through the control
endpoint, as fast as it goes. Memory is the resident set of the daemon, read after every swap. Prints one JSON
object as its last line.

    python benchmarks/swap.py [SWAPS [STREAMS [QUIET_SECONDS]]]
"""

import json
import os
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import soundfile

from serstream.config import ModelSettings
from serstream.emotion.golden import FILE_NAME, GoldenClips
from serstream.emotion.loading import load_model
from serstream.emotion.model import EmotionModel
from serstream.emotion.store import MODEL_FILE, ModelStore, Reference
from serstream.feed.messages import StreamEnded, WindowEmotion
from serstream.rehearsal import DaemonProcess, Leg, free_port_pair
from serstream.rtp.sender import send_in_real_time
from serstream.service.control import Activate, ModelStatus, StatusRequest, ask
from serstream.shipped import SAMPLE_CALL

SWAPS, STREAMS, QUIET_S = 1000, 50, 60
SWAP_ESTIMATE_S = 0.22
"""Streams last so long for every swap; a benchmark that runs out of them says so."""
POLL_S = 0.01
SETTLE_S = 0.05
"""The model that goes is let go beside the calls; memory is read when it is gone."""
START_TIMEOUT_S = 30.0
HISTORY = 1000
"""Messages that the feed keeps: as many as come before the first swap, so that what grows is the models."""


class Swapper(threading.Thread):
    """Activates two versions in turn."""

    def __init__(self, daemon: DaemonProcess, swaps: int):
        super().__init__()
        self._daemon = daemon
        self._swaps = swaps
        self.began = self.ended = float("inf")
        self.durations_ms: list[float] = []
        self.resident_mb: list[float] = []
        self.threads: list[int] = []
        self.descriptors: list[int] = []

    def run(self) -> None:
        """One after the other, each as soon as the one before is active."""
        self.began = time.monotonic()
        for i in range(self._swaps):
            asked = time.monotonic()
            wanted = ask(self._daemon.control, Activate(f"bench@{1 + (i + 1) % 2}"))
            while (status := self._status()).loading:
                time.sleep(POLL_S)
            assert status.name == wanted.model, status.refusal
            self.durations_ms.append(1000 * (time.monotonic() - asked))
            time.sleep(SETTLE_S)
            self._measure()
        self.ended = time.monotonic()

    def _status(self) -> ModelStatus:
        status = ask(self._daemon.control, StatusRequest())
        return status.model

    def _measure(self) -> None:
        process = Path("/proc", str(self._daemon.process.pid))
        fields = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
        self.resident_mb.append(int(fields["VmRSS"].split()[0]) / 1024)
        self.threads.append(int(fields["Threads"]))
        self.descriptors.append(len(os.listdir(process / "fd")))


def publish_two_versions(root: Path) -> None:
    """The shipped model under another name, twice."""
    shipped = load_model(ModelSettings(device="cpu"))
    golden = GoldenClips.read(shipped.path.with_name(FILE_NAME))
    store = ModelStore(root)
    for version in (1, 2):
        model = onnx.load(shipped.path)
        props = {entry.key: entry.value for entry in model.metadata_props}
        del model.metadata_props[:]
        onnx.helper.set_model_props(model, props | {"name": '"bench"', "version": str(version)})
        draft = root / "draft.onnx"
        draft.write_bytes(model.SerializeToString())
        clips = GoldenClips.record(EmotionModel(draft), golden.samples)
        files = {MODEL_FILE: draft.read_bytes(), FILE_NAME: clips.to_bytes(), "card.md": b"# bench\n"}
        store.publish(Reference("bench", version), files)
    store.activate(Reference("bench", 1))


def main(swaps: int = SWAPS, streams: int = STREAMS, quiet_s: int = QUIET_S) -> None:
    samples, rate = soundfile.read(SAMPLE_CALL, dtype="int16", always_2d=True)
    seconds = round(quiet_s + SWAP_ESTIMATE_S * swaps)
    looped = np.tile(samples, (1 + seconds * rate // len(samples), 1))[: seconds * rate]
    free: set[int] = set()
    while len(free) < streams:
        free.add(free_port_pair())
    legs = [Leg(np.roll(looped[:, i % 2], i * rate), port, ssrc=i + 1) for i, port in enumerate(free)]
    by_source = {f"rtp:{leg.outgoing.port}": leg for leg in legs}
    ports = "\n".join(f"[[rtp]]\nport = {leg.outgoing.port}" for leg in legs)
    arrivals: list[tuple[float, float]] = []
    scored: Counter[tuple[str, float, float]] = Counter()
    models: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        publish_two_versions(Path(folder))
        configuration = f'{ports}\n[model]\nrepository = "{folder}"\ndevice = "cpu"\n'
        with DaemonProcess(configuration, history=HISTORY) as daemon:
            sender = threading.Thread(target=send_in_real_time, args=([leg.outgoing for leg in legs],))
            swapper = Swapper(daemon, swaps)
            sender.start()
            start = time.monotonic()
            alive = streams
            while alive and time.monotonic() < start + seconds + START_TIMEOUT_S:
                if not swapper.ident and time.monotonic() > start + quiet_s:
                    swapper.start()
                for event, arrived in daemon.take(0.1):
                    if leg := by_source.get(getattr(event, "source", "")):
                        leg.take(event, arrived)
                        if isinstance(event, WindowEmotion):
                            scored[event.stream, event.start, event.end] += 1
                            models[event.model] += 1
                            arrivals.append((arrived, leg.latencies_ms[-1]))
                    alive -= isinstance(event, StreamEnded)
            streams_ended = time.monotonic()
            sender.join()
            swapper.join()
    quiet = [latency for arrived, latency in arrivals if arrived < swapper.began]
    busy = [latency for arrived, latency in arrivals if swapper.began <= arrived <= swapper.ended]
    p99_quiet, p99_busy = (float(np.percentile(latencies, 99)) for latencies in (quiet, busy))
    tenth, last = swapper.resident_mb[min(9, swaps - 1)], swapper.resident_mb[-1]
    print(
        json.dumps(
            {
                "benchmark": "swap",
                "streams": streams,
                "swaps": len(swapper.durations_ms),
                "swaps_outlived_streams": swapper.ended > streams_ended,
                "windows": sum(scored.values()),
                "windows_by_model": dict(models),
                "windows_lost": sum(leg.lost for leg in legs),
                "windows_scored_twice": sum(count - 1 for count in scored.values()),
                "swap_median_ms": round(float(np.median(swapper.durations_ms))),
                "swap_p99_ms": round(float(np.percentile(swapper.durations_ms, 99))),
                "latency_p99_quiet_ms": round(p99_quiet, 1),
                "latency_p99_swapping_ms": round(p99_busy, 1),
                "latency_p99_ratio": round(p99_busy / p99_quiet, 2),
                "resident_mb": [round(m, 1) for m in swapper.resident_mb[:: max(1, swaps // 20)]],
                "resident_growth_since_tenth": round(last / tenth - 1, 4),
                "threads_tenth_last": [swapper.threads[min(9, swaps - 1)], swapper.threads[-1]],
                "descriptors_tenth_last": [swapper.descriptors[min(9, swaps - 1)], swapper.descriptors[-1]],
            }
        )
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
