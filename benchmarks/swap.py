"""A thousand model swaps while 50 streams run: windows lost, latency, and what the daemon holds afterwards.

A real daemon process takes 50 G.711 RTP streams (the sample call's two parties, shifted) in real time. For a
minute nothing happens; then two shipped models are activated in turn through the control endpoint, each as
soon as the feed has named the one before; behind the last one the streams end. Memory is the resident set of
the daemon, read behind every swap; what counts is its median over ten swaps, around the tenth and the last:
single readings differ by what has just been let go. Prints one JSON object as its last line.

    python benchmarks/swap.py [--swaps N] [--streams N] [--quiet-s S] [--models A B] [--picture FILE]
"""

import argparse
import json
import os
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from queue import SimpleQueue

import numpy as np
import soundfile

from serstream.emotion.store import ModelStore, Reference
from serstream.feed.messages import (
    Event,
    ModelChanged,
    ModelRefused,
    StreamEnded,
    WindowEmotion,
    WindowUnscored,
)
from serstream.rehearsal import DaemonProcess, Leg, free_port_pair
from serstream.rtp.sender import send_in_real_time
from serstream.service.control import Activate, ask
from serstream.shipped import SAMPLE_CALL, models_dir

SWAP_LIMIT_S = 0.5
"""There is sound for swaps that take so long on average; a benchmark that runs out of it says so."""
SWAP_TIMEOUT_S = 30.0
SETTLE_S = 0.05
"""The model that goes is let go beside the calls; memory is read when it is gone."""
AROUND_TENTH, LAST = slice(5, 15), slice(-10, None)
"""Swaps whose readings of memory count, as many of the one model as of the other."""
END_TIMEOUT_S = 30.0
HISTORY = 1000
"""Messages that the feed keeps: as many as come before the first swap, so that what grows is the models."""


class Swapper(threading.Thread):
    """Activates two models in turn, then ends the streams."""

    def __init__(self, daemon: DaemonProcess, models: Sequence[Reference], swaps: int, over: threading.Event):
        super().__init__()
        self._daemon = daemon
        self._models = models
        self._swaps = swaps
        self._over = over
        self.changes: SimpleQueue[ModelChanged | ModelRefused] = SimpleQueue()
        """What the feed tells of them."""
        self.began = self.ended = float("inf")
        self.durations_ms: list[float] = []
        self.resident_mb: list[float] = []
        self.threads: list[int] = []
        self.descriptors: list[int] = []

    def run(self) -> None:
        """One after the other, each as soon as the one before is active."""
        self.began = time.monotonic()
        try:
            for i in range(self._swaps):
                asked = time.monotonic()
                wanted = ask(self._daemon.control, Activate(str(self._models[(i + 1) % 2]))).model
                while (change := self.changes.get(timeout=SWAP_TIMEOUT_S)).model != wanted:
                    assert isinstance(change, ModelChanged), change
                self.durations_ms.append(1000 * (time.monotonic() - asked))
                time.sleep(SETTLE_S)
                self._measure()
        finally:
            self.ended = time.monotonic()
            self._over.set()

    def _measure(self) -> None:
        process = Path("/proc", str(self._daemon.process.pid))
        fields = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
        self.resident_mb.append(int(fields["VmRSS"].split()[0]) / 1024)
        self.threads.append(int(fields["Threads"]))
        self.descriptors.append(len(os.listdir(process / "fd")))


class Arrivals:
    """What came back, stream by stream."""

    def __init__(self, legs: Sequence[Leg]):
        self._by_source = {f"rtp:{leg.outgoing.port}": leg for leg in legs}
        self.scored: Counter[tuple[str, float, float]] = Counter()
        self.unscored: Counter[str] = Counter()
        self.by_model: Counter[str] = Counter()
        self.latencies: list[tuple[float, float]] = []
        """Time of arrival in monotonic seconds, and milliseconds since the window's last packet."""
        self.ended = 0

    def take(self, event: Event, arrived: float) -> None:
        """Count an event that arrived at the given monotonic time."""
        leg = self._by_source.get(getattr(event, "source", ""))
        if leg is None:
            return
        leg.take(event, arrived)
        match event:
            case WindowEmotion():
                self.scored[event.stream, event.start, event.end] += 1
                self.by_model[event.model] += 1
                self.latencies.append((arrived, leg.latencies_ms[-1]))
            case WindowUnscored():
                self.unscored[event.reason] += 1
            case StreamEnded():
                self.ended += 1

    def between(self, begin: float, end: float) -> list[float]:
        """Latencies of the windows that arrived then, in milliseconds."""
        return [latency for arrived, latency in self.latencies if begin <= arrived <= end]


def lend(root: Path, models: Sequence[str]) -> list[Reference]:
    """A repository of some of the shipped models, the first of them active, whose pointer may be written."""
    shipped = ModelStore(models_dir())
    references = [shipped.resolve(model) for model in models]
    for reference in references:
        shutil.copytree(shipped.file(reference).parent, root / reference.name / str(reference.version))
    ModelStore(root).activate(references[0])
    return references


def draw(path: Path, swapper: Swapper, arrivals: Arrivals, quiet_p99: float, swapping_p99: float) -> None:
    """Memory behind every swap, and the latency of every window."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (memory, latency) = pyplot.subplots(2, 1, figsize=(9, 6), layout="constrained")
    tenth = float(np.median(swapper.resident_mb[AROUND_TENTH]))
    memory.axhspan(0.95 * tenth, 1.05 * tenth, color="0.9", label="5 % around the tenth swap")
    memory.plot(range(1, len(swapper.resident_mb) + 1), swapper.resident_mb, linewidth=0.6)
    memory.set(xlabel="swap", ylabel="resident memory, MB", ylim=(0, 1.2 * tenth))
    memory.legend(loc="lower right")
    times, milliseconds = zip(*arrivals.latencies, strict=True)
    latency.plot(np.subtract(times, times[0]), milliseconds, ".", markersize=2)
    began, ended = swapper.began - times[0], swapper.ended - times[0]
    latency.hlines([quiet_p99, swapping_p99], [0, began], [began, ended], "black", label="99th percentile")
    latency.axvspan(began, ended, color="0.9", label="swaps")
    latency.set(xlabel="seconds", ylabel="last packet to event, ms", yscale="log")
    latency.legend(loc="upper left")
    figure.savefig(path, dpi=100)


def main(swaps: int, streams: int, quiet_s: float, models: Sequence[str], picture: Path | None) -> None:
    samples, rate = soundfile.read(SAMPLE_CALL, dtype="int16", always_2d=True)
    longest = round(quiet_s + SWAP_LIMIT_S * swaps) * rate
    looped = np.tile(samples, (1 + longest // len(samples), 1))[:longest]
    legs = [Leg(np.roll(looped[:, i % 2], i * rate), free_port_pair(), ssrc=i + 1) for i in range(streams)]
    arrivals = Arrivals(legs)
    ports = "\n".join(f"[[rtp]]\nport = {leg.outgoing.port}" for leg in legs)
    over = threading.Event()
    with tempfile.TemporaryDirectory() as folder:
        references = lend(Path(folder), models)
        configuration = f'{ports}\n[model]\nrepository = "{folder}"\ndevice = "cpu"\n'
        with DaemonProcess(configuration, history=HISTORY) as daemon:
            swapper = Swapper(daemon, references, swaps, over)
            sender = threading.Thread(target=send_in_real_time, args=([leg.outgoing for leg in legs], over))
            sender.start()
            start = time.monotonic()
            deadline = start + quiet_s + SWAP_LIMIT_S * swaps + END_TIMEOUT_S
            while arrivals.ended < streams and (now := time.monotonic()) < deadline:
                if not swapper.ident and now > start + quiet_s:
                    swapper.start()
                for event, arrived in daemon.take(0.1):
                    if isinstance(event, ModelChanged | ModelRefused):
                        swapper.changes.put(event)
                    arrivals.take(event, arrived)
            sender.join()
            swapper.join()
    quiet = arrivals.between(start, swapper.began)
    swapping = arrivals.between(swapper.began, swapper.ended)
    quiet_p99, swapping_p99 = (float(np.percentile(latencies, 99)) for latencies in (quiet, swapping))
    expected = [leg.expected for leg in legs]
    tenth, last = swapper.resident_mb[AROUND_TENTH], swapper.resident_mb[LAST]
    if picture:
        draw(picture, swapper, arrivals, quiet_p99, swapping_p99)
    print(
        json.dumps(
            {
                "benchmark": "swap",
                "models": [str(reference) for reference in references],
                "streams": streams,
                "swaps": len(swapper.durations_ms),
                "swaps_outlived_sound": all(
                    len(leg.outgoing.sent_at) == leg.outgoing.n_packets for leg in legs
                ),
                "windows": sum(arrivals.scored.values()),
                "windows_by_model": dict(arrivals.by_model),
                "windows_unscored": dict(arrivals.unscored),
                "windows_lost": sum(len(due - leg.received) for due, leg in zip(expected, legs, strict=True)),
                "windows_scored_twice": sum(count - 1 for count in arrivals.scored.values()),
                "windows_unexpected": sum(
                    len(leg.received - due) for due, leg in zip(expected, legs, strict=True)
                ),
                "swap_median_ms": round(float(np.median(swapper.durations_ms))),
                "swap_p99_ms": round(float(np.percentile(swapper.durations_ms, 99))),
                "latency_p99_quiet_ms": round(quiet_p99, 1),
                "latency_p99_swapping_ms": round(swapping_p99, 1),
                "latency_p99_ratio": round(swapping_p99 / quiet_p99, 2),
                "resident_mb": [round(m, 1) for m in swapper.resident_mb[:: max(1, swaps // 20)]],
                "resident_tenth_mb": spread(tenth),
                "resident_last_mb": spread(last),
                "resident_growth_since_tenth": round(float(np.median(last) / np.median(tenth) - 1), 4),
                "threads_tenth_last": [swapper.threads[min(9, swaps - 1)], swapper.threads[-1]],
                "descriptors_tenth_last": [swapper.descriptors[min(9, swaps - 1)], swapper.descriptors[-1]],
            }
        )
    )


def spread(readings: Sequence[float]) -> list[float]:
    """Least, median and greatest."""
    return [round(float(value), 1) for value in (min(readings), np.median(readings), max(readings))]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--swaps", type=int, default=1000, help="at least 20")
    parser.add_argument("--streams", type=int, default=50)
    parser.add_argument("--quiet-s", type=float, default=60.0, help="seconds before the first swap")
    parser.add_argument("--models", nargs=2, metavar="NAME[@V]", default=["cnn-lstm", "cnn-2d"])
    parser.add_argument("--picture", type=Path, help="draw memory and latency: .svg or .png")
    main(**vars(parser.parse_args()))
