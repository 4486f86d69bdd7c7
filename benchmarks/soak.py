"""A day of calls through a real daemon: does it hold more of anything at the end than at the beginning?

Many lines play calls of the sample's two parties one after the other as G.711 RTP in real time, so that
24 hours of stream time pass in minutes: clean calls, reordered and duplicated ones, silent ones, calls that
end without BYE, and, on a port of their own, calls that lose packets among garbage. Meanwhile subscribers
come and go, Prometheus looks and two models are exchanged. Where nothing is lost on the way, exactly the
windows that the calls' sound holds must arrive; everywhere, what each stream says at its end it has told.

In the last tenth, resident memory, descriptors, threads and the age at which windows leave the last queue are
compared with those in the second tenth. Progress goes to stderr; the last line of stdout is one JSON object.
Exit code 1 when something has grown by more than 3 % or was lost.

    python benchmarks/soak.py [MINUTES [LINES]]
"""

import json
import os
import random
import signal
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar
from urllib.request import urlopen

import numpy as np
import soundfile
from prometheus_client.parser import text_string_to_metric_families
from swap import publish_two_versions

from serstream.config import SegmenterSettings
from serstream.errors import ControlError, SerstreamError
from serstream.feed import subscribe
from serstream.feed.messages import Event, Gap, StreamEnded, WindowEmotion, WindowUnscored
from serstream.rehearsal import HOST, DaemonProcess, free_port_pair
from serstream.rtp.codecs import ULAW
from serstream.rtp.sender import CLOCK_RATE, PTIME_S, OutgoingStream, encode_mulaw
from serstream.service.control import Activate, Status, StatusRequest, ask
from serstream.shipped import SAMPLE_CALL
from serstream.speech.stream import StreamSegmenter
from serstream.types import AudioChunk, SpeechWindow

MINUTES, LINES = 7, 260
SAMPLE_S, SWAP_S, SUBSCRIBER_S, PROGRESS_S = 3.0, 10.0, 5.0, 30.0
DRAIN_S = 15.0
"""The last calls without BYE end by timeout."""
ANSWER_S = 30.0
TOLERANCE = 0.03
RECORDINGS = 40
HARMLESS = ("none", "none", "reordering", "duplicates", "silence", "no bye")
"""What the jitter buffer makes good, so that every window is known beforehand."""

T = TypeVar("T")


class Recording(NamedTuple):
    """What a call plays."""

    payload: bytes
    """G.711 mu-law."""
    n_windows: int
    """Windows that the daemon must find in it."""


def recordings() -> list[Recording]:
    """Calls of 10 to 40 s, cut out of the sample's parties; the first is silent."""
    samples, _ = soundfile.read(SAMPLE_CALL, dtype="int16", always_2d=True)
    parties = [encode_mulaw(np.ascontiguousarray(party)) for party in samples.T]
    chance = random.Random(0)
    made = [Recording(b"\xff" * 20 * CLOCK_RATE, 0)]
    while len(made) < RECORDINGS:
        party = chance.choice(parties)
        start = chance.randrange(len(party) // 2)
        payload = (party[start:] + party)[: chance.randrange(10, 41) * CLOCK_RATE]
        sound = StreamSegmenter("expected", SegmenterSettings())
        chunk = AudioChunk("expected", ULAW[np.frombuffer(payload, np.uint8)], CLOCK_RATE, 0)
        segments = sound.push(chunk) + sound.flush()
        made.append(Recording(payload, sum(isinstance(segment, SpeechWindow) for segment in segments)))
    return made


class Line:
    """Plays one call after the other, lossy ones or such that arrive whole."""

    def __init__(self, number: int, port: int, library: list[Recording], lossy: bool):
        self._random = random.Random(number)
        self._number = number
        self._port = port
        self._library = library
        self._lossy = lossy
        self.calls = 0
        self.packets = 0
        self.n_windows = 0
        """That the calls so far hold, if they arrive whole."""
        self._pause = self._random.randrange(250)
        self._call: OutgoingStream | None = None

    def tick(self, udp: socket.socket, begin: bool) -> bool:
        """20 ms pass; whether a call is going on. A new one only if it may begin."""
        if self._call is None:
            if self._pause or not begin:
                self._pause = max(0, self._pause - 1)
                return False
            self._call = self._begin()
        copies = 1
        if self._lossy and self._random.random() < 0.05 and self._next > 2:
            copies = 0
            udp.sendto(self._random.randbytes(172), (HOST, self._port))
        elif self._fault == "duplicates" and self._random.random() < 0.05:
            copies = 2
        # Calls last whole seconds, so that the packet to swap with is always there.
        number = self._next ^ 1 if self._fault == "reordering" and self._next % 50 in (20, 21) else self._next
        for _ in range(copies):
            udp.sendto(self._call.packet(number), (HOST, self._port))
        self.packets += 1
        self._next += 1
        if self._next == self._call.n_packets:
            if self._fault != "no bye":
                udp.sendto(self._call.bye(), (HOST, self._port + 1))
            self._call = None
            self._pause = self._random.randrange(50, 150)
        return True

    def _begin(self) -> OutgoingStream:
        self._fault = "loss" if self._lossy else self._random.choice(HARMLESS)
        recording = self._library[0] if self._fault == "silence" else self._random.choice(self._library)
        self.calls += 1
        self.n_windows += recording.n_windows
        self._next = 0
        return OutgoingStream(HOST, self._port, self._number * 100_000 + self.calls, recording.payload)


def play(lines: list[Line], over: threading.Event) -> None:
    """Send in real time until told to stop, then let the calls that are going on come to their end."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        due = time.monotonic()
        talking = True
        while talking or not over.is_set():
            time.sleep(max(0.0, due - time.monotonic()))
            due += PTIME_S
            talking = any([line.tick(udp, begin=not over.is_set()) for line in lines])


def come_and_go(endpoint: str, over: threading.Event) -> None:
    """A subscriber that connects anew every few seconds."""
    while not over.wait(SUBSCRIBER_S):
        with subscribe(endpoint) as subscription:
            subscription.receive(1.0)


class Watch:
    """What the daemon holds, over time."""

    def __init__(self, daemon: DaemonProcess, metrics: str):
        self._daemon = daemon
        self._metrics = metrics
        self._latency = (0.0, 0.0)
        self.held: dict[str, list[float]] = defaultdict(list)
        self.slowest_answer_s = 0.0

    def _asked(self, ask: Callable[[], T]) -> T:
        """A daemon that does not answer is killed, and tells where it was."""
        began = time.monotonic()
        try:
            reply = ask()
        except ControlError as error:
            self._daemon.process.send_signal(signal.SIGABRT)
            self._daemon.process.wait()
            raise SerstreamError(f"{error}\n{self._daemon.log()}") from error
        self.slowest_answer_s = max(self.slowest_answer_s, time.monotonic() - began)
        return reply

    def status(self) -> Status:
        """How the daemon is."""
        return self._asked(lambda: ask(self._daemon.control, StatusRequest(), timeout_s=ANSWER_S))

    def activate(self, model: str) -> None:
        """Exchange the model."""
        self._asked(lambda: ask(self._daemon.control, Activate(model), timeout_s=ANSWER_S))

    def sample(self) -> None:
        """Take one more sample."""
        process = Path("/proc", str(self._daemon.process.pid))
        fields = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
        self.held["resident_mb"].append(int(fields["VmRSS"].split()[0]) / 1024)
        self.held["threads"].append(int(fields["Threads"]))
        self.held["descriptors"].append(len(os.listdir(process / "fd")))
        with urlopen(self._metrics) as reply:
            families = text_string_to_metric_families(reply.read().decode())
            latency = next(f for f in families if f.name == "serstream_window_latency_seconds")
        values = {sample.name.rpartition("_")[2]: sample.value for sample in latency.samples}
        before, self._latency = self._latency, (values["sum"], values["count"])
        seconds, n_windows = self._latency[0] - before[0], self._latency[1] - before[1]
        if n_windows:
            self.held["window_age_ms"].append(1000 * seconds / n_windows)


class Listener:
    """Counts what arrives, and what is missing."""

    def __init__(self) -> None:
        self.gaps = self.missed = self.ended = 0
        self.n_windows: Counter[str] = Counter()
        """By source."""
        self._sequence: Counter[str] = Counter()
        self._windows: Counter[str] = Counter()

    def take(self, event: Event) -> None:
        """Count an event."""
        if isinstance(event, Gap):
            self.gaps += 1
            return
        if event.stream == "-":
            return
        self.missed += event.sequence != self._sequence[event.stream]
        self._sequence[event.stream] += 1
        if isinstance(event, WindowEmotion | WindowUnscored):
            self._windows[event.stream] += 1
            self.n_windows[event.source] += 1
        elif isinstance(event, StreamEnded):
            self.ended += 1
            self.missed += event.windows + event.unscored != self._windows.pop(event.stream, 0)
            del self._sequence[event.stream]


def tenths(samples: list[float]) -> tuple[float, float]:
    """Median of the second and of the last tenth."""
    n = max(1, len(samples) // 10)
    return statistics.median(samples[n : 2 * n] or samples), statistics.median(samples[-n:])


class Soak:
    """Everything that goes on while the daemon is watched."""

    def __init__(self, daemon: DaemonProcess, metrics: str, lines: list[Line]):
        self.watch = Watch(daemon, metrics)
        self.listener = Listener()
        self.swaps = 0
        self._daemon = daemon
        self._lines = lines
        self._over = threading.Event()
        self._player = threading.Thread(target=play, args=(lines, self._over), daemon=True)
        self._visitor = threading.Thread(target=come_and_go, args=(daemon.endpoint, self._over), daemon=True)

    @property
    def hours(self) -> float:
        """Of stream time so far."""
        return sum(line.packets for line in self._lines) * PTIME_S / 3600

    @property
    def calls(self) -> int:
        """Begun so far."""
        return sum(line.calls for line in self._lines)

    def run(self, minutes: float) -> Status:
        """So many minutes, and then until the last call has ended; how the daemon is then."""
        self._player.start()
        self._visitor.start()
        began = next_sample = time.monotonic()
        next_swap = next_progress = began + SWAP_S
        while (now := time.monotonic()) < began + 60 * minutes:
            if now >= next_sample:
                next_sample += SAMPLE_S
                self.watch.sample()
            # On a busy machine the model before may still be loading.
            if now >= next_swap and not self.watch.status().model.loading:
                next_swap = now + SWAP_S
                self.swaps += 1
                self.watch.activate(f"bench@{1 + self.swaps % 2}")
            if now >= next_progress:
                next_progress += PROGRESS_S
                self._tell((now - began) / 60, minutes)
            self._listen()
        self._over.set()
        while self._player.is_alive():
            self._listen()
        deadline = time.monotonic() + DRAIN_S
        while self.listener.ended < self.calls and time.monotonic() < deadline:
            self._listen()
        self._visitor.join()
        return self.watch.status()

    def _listen(self) -> None:
        for event, _ in self._daemon.take(0.1):
            self.listener.take(event)

    def _tell(self, gone: float, minutes: float) -> None:
        told = (
            f"soak: {gone:.1f} of {minutes:g} min, {self.hours:.1f} h of calls, "
            f"{self.watch.held['resident_mb'][-1]:.1f} MB, {self.listener.gaps + self.listener.missed} missed"
        )
        print(told, file=sys.stderr, flush=True)


def main(minutes: float = MINUTES, n_lines: int = LINES) -> int:
    os.environ["PYTHONFAULTHANDLER"] = "1"
    os.environ["SERSTREAM_FEED__HISTORY"] = "2000"  # full, and so as large as it gets, within the first tenth
    metrics_port, whole, lossy = (free_port_pair() for _ in range(3))
    os.environ["SERSTREAM_METRICS__PORT"] = str(metrics_port)
    library = recordings()
    lines = [Line(i + 1, whole if i % 5 else lossy, library, not i % 5) for i in range(n_lines)]
    port = 'port = {}\nlatch = "stream"\nssrc_change_s = 0\nsilence_timeout_s = 5\nmax_streams = {}\n'
    with tempfile.TemporaryDirectory() as folder:
        publish_two_versions(Path(folder))
        configuration = (
            "".join(f"[[rtp]]\n{port.format(number, 4 * n_lines)}" for number in (whole, lossy))
            + f'[model]\nrepository = "{folder}"\ndevice = "cpu"\n'
        )
        with DaemonProcess(configuration) as daemon:
            soak = Soak(daemon, f"http://{HOST}:{metrics_port}/metrics", lines)
            health = soak.run(minutes).health
    listener = soak.listener
    held = {name: tenths(values) for name, values in soak.watch.held.items()}
    growth = {name: round(last / first - 1, 4) for name, (first, last) in held.items()}
    expected = sum(line.n_windows for i, line in enumerate(lines) if i % 5)
    arrived = listener.n_windows[f"rtp:{whole}"]
    lost = listener.gaps + listener.missed + abs(listener.ended - soak.calls) + abs(expected - arrived)
    good = not lost and all(share <= TOLERANCE for share in growth.values())
    resident = soak.watch.held["resident_mb"]
    print(
        json.dumps(
            {
                "benchmark": "soak",
                "minutes": minutes,
                "lines": n_lines,
                "stream_hours": round(soak.hours, 2),
                "calls": soak.calls,
                "streams_ended": listener.ended,
                "windows": health.windows,
                "windows_in_whole_calls": expected,
                "windows_out_of_whole_calls": arrived,
                "gaps": listener.gaps,
                "messages_missed": listener.missed,
                "dropped_s": health.dropped_s,
                "kernel_drops": sum(port.kernel_drops for port in health.ports),
                "swaps": soak.swaps,
                "snapshots": health.snapshots,
                "slowest_answer_s": round(soak.watch.slowest_answer_s, 3),
                "second_and_last_tenth": {name: [round(x, 3) for x in pair] for name, pair in held.items()},
                "growth": growth,
                "resident_mb": [round(m, 1) for m in resident[:: max(1, len(resident) // 20)]],
                "good": good,
            }
        )
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(*map(float, sys.argv[1:2]), *map(int, sys.argv[2:3])))
