"""A day of calls through a real daemon: does it hold more of anything at the end than at the beginning?

Many lines play calls of the sample's two parties one after the other as G.711 RTP in real time, so that
24 hours of stream time pass in minutes: clean calls, lossy, reordered and duplicated ones, silent ones, calls
that end without BYE. Meanwhile subscribers come and go and two models are exchanged. Every stream's messages
must arrive complete. Memory, descriptors, threads and waiting sound of the last tenth are compared with those
of the second tenth, by median. Prints one JSON object as its last line; exit code 1 when something has grown
by more than 3 % or was lost.

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
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile
from swap import publish_two_versions

from serstream.errors import ControlError, SerstreamError
from serstream.feed import subscribe
from serstream.feed.messages import Gap, StreamEnded, WindowEmotion, WindowUnscored
from serstream.rehearsal import HOST, DaemonProcess, free_port_pair
from serstream.rtp.sender import CLOCK_RATE, PTIME_S, OutgoingStream, encode_mulaw
from serstream.service.control import Activate, Status, StatusRequest, ask
from serstream.shipped import SAMPLE_CALL

MINUTES, LINES = 15, 100
SAMPLE_S, SWAP_S, SUBSCRIBER_S = 3.0, 20.0, 5.0
DRAIN_S = 10.0
TOLERANCE = 0.03
FAULTS = ("none", "none", "none", "loss", "reordering", "duplicates", "silence", "no bye")


class Line:
    """Plays one call after the other."""

    def __init__(self, number: int, port: int, sound: list[bytes]):
        self._random = random.Random(number)
        self._number = number
        self._port = port
        self._sound = sound
        self.calls = 0
        self.packets = 0
        self._pause = self._random.randrange(250)
        self._call: OutgoingStream | None = None

    def tick(self, udp: socket.socket) -> None:
        """20 ms pass."""
        if self._pause:
            self._pause -= 1
            return
        if self._call is None:
            self._begin()
        call = self._call
        assert call is not None
        copies = 1
        if self._fault == "loss" and self._random.random() < 0.05 and self._next:
            copies = 0
        elif self._fault == "duplicates" and self._random.random() < 0.05:
            copies = 2
        number = self._next
        if self._fault == "reordering" and number % 50 in (20, 21):
            number ^= 1
        for _ in range(copies):
            udp.sendto(call.packet(min(number, call.n_packets - 1)), (HOST, self._port))
        self.packets += 1
        self._next += 1
        if self._next == call.n_packets:
            self.end(udp)

    def end(self, udp: socket.socket) -> None:
        """Hang up."""
        if self._call is not None:
            if self._fault != "no bye":
                udp.sendto(self._call.bye(), (HOST, self._port + 1))
            self._call = None
            self._pause = self._random.randrange(50, 150)

    def _begin(self) -> None:
        self._fault = self._random.choice(FAULTS)
        party = self._random.choice(self._sound)
        seconds = self._random.uniform(10, 60)
        start = self._random.randrange(len(party) // 2)
        payload = (party[start:] + party)[: round(seconds * CLOCK_RATE)]
        if self._fault == "silence":
            payload = b"\xff" * len(payload)
        self.calls += 1
        self._next = 0
        self._call = OutgoingStream(HOST, self._port, self._number * 100_000 + self.calls, payload)


@dataclass
class Samples:
    """What the daemon holds, over time."""

    resident_mb: list[float] = field(default_factory=list)
    descriptors: list[float] = field(default_factory=list)
    threads: list[float] = field(default_factory=list)
    waiting_s: list[float] = field(default_factory=list)

    def take(self, daemon: DaemonProcess) -> Status:
        """One sample more."""
        process = Path("/proc", str(daemon.process.pid))
        fields = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
        try:
            status = ask(daemon.control, StatusRequest(), timeout_s=30)
        except ControlError as error:
            daemon.process.send_signal(signal.SIGABRT)  # and Python's faulthandler tells where it hangs
            daemon.process.wait()
            raise SerstreamError(f"{error}\n{daemon.log()}") from error
        assert isinstance(status, Status)
        self.resident_mb.append(int(fields["VmRSS"].split()[0]) / 1024)
        self.threads.append(int(fields["Threads"]))
        self.descriptors.append(len(os.listdir(process / "fd")))
        self.waiting_s.append(status.health.waiting_s)
        return status


def tenths(samples: list[float]) -> tuple[float, float]:
    """Median of the second and of the last tenth."""
    n = max(1, len(samples) // 10)
    return statistics.median(samples[n : 2 * n] or samples), statistics.median(samples[-n:])


def play(lines: list[Line], over: threading.Event) -> None:
    """Send in real time until told to stop, then hang up everywhere."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        due = time.monotonic()
        while not over.wait(max(0.0, due - time.monotonic())):
            due += PTIME_S
            for line in lines:
                line.tick(udp)
        for line in lines:
            line.end(udp)


def come_and_go(endpoint: str, over: threading.Event) -> None:
    """A subscriber that connects anew every few seconds."""
    while not over.wait(SUBSCRIBER_S):
        with subscribe(endpoint) as subscription:
            subscription.receive(1.0)


def main(minutes: float = MINUTES, lines: int = LINES) -> int:
    os.environ["PYTHONFAULTHANDLER"] = "1"
    os.environ["SERSTREAM_FEED__HISTORY"] = "2000"  # full, and so as large as it gets, within the first tenth
    samples, _ = soundfile.read(SAMPLE_CALL, dtype="int16", always_2d=True)
    sound = [encode_mulaw(np.ascontiguousarray(party)) for party in samples.T]
    port = free_port_pair()
    playing = [Line(i + 1, port, sound) for i in range(lines)]
    held = Samples()
    received: Counter[str] = Counter()
    windows: Counter[str] = Counter()
    gaps = missed = ended = 0
    over = threading.Event()
    with tempfile.TemporaryDirectory() as folder:
        publish_two_versions(Path(folder))
        configuration = (
            f'[[rtp]]\nport = {port}\nlatch = "stream"\nssrc_change_s = 0\nmax_streams = {4 * lines}\n'
            f'[model]\nrepository = "{folder}"\ndevice = "cpu"\n'
        )
        with DaemonProcess(configuration) as daemon:
            threads = [
                threading.Thread(target=play, args=(playing, over), daemon=True),
                threading.Thread(target=come_and_go, args=(daemon.endpoint, over), daemon=True),
            ]
            for thread in threads:
                thread.start()
            began = next_sample = next_swap = time.monotonic()
            swaps = 0
            quiet_since = 0.0
            while not quiet_since or time.monotonic() < quiet_since + DRAIN_S:
                now = time.monotonic()
                if not quiet_since and now > began + 60 * minutes:
                    over.set()
                    quiet_since = now
                if now >= next_sample and not quiet_since:
                    next_sample += SAMPLE_S
                    held.take(daemon)
                if now >= next_swap and not quiet_since:
                    next_swap += SWAP_S
                    ask(daemon.control, Activate(f"bench@{1 + (swaps + 1) % 2}"))
                    swaps += 1
                for event, _ in daemon.take(0.1):
                    if isinstance(event, Gap):
                        gaps += 1
                    elif isinstance(event, (WindowEmotion, WindowUnscored)):
                        windows[event.stream] += 1
                    if isinstance(event, Gap) or event.stream == "-":
                        continue
                    missed += event.sequence != received[event.stream]
                    received[event.stream] += 1
                    if isinstance(event, StreamEnded):
                        ended += 1
                        missed += event.windows + event.unscored != windows.pop(event.stream, 0)
                        del received[event.stream]
            for thread in threads:
                thread.join()
            health = held.take(daemon).health
    calls = sum(line.calls for line in playing)
    figures = {name: tenths(values) for name, values in vars(held).items()}
    growth = {name: round(last / first - 1, 4) if first else last for name, (first, last) in figures.items()}
    lost = gaps + missed + abs(ended - calls)
    good = not lost and all(growth[name] <= TOLERANCE for name in ("resident_mb", "descriptors", "threads"))
    print(
        json.dumps(
            {
                "benchmark": "soak",
                "minutes": minutes,
                "stream_hours": round(sum(line.packets for line in playing) * PTIME_S / 3600, 2),
                "calls": calls,
                "streams_ended": ended,
                "windows": health.windows,
                "dropped_s": health.dropped_s,
                "swaps": swaps,
                "gaps": gaps,
                "messages_missed": missed,
                "second_and_last_tenth": figures,
                "growth": growth,
                "resident_mb": [
                    round(m, 1) for m in held.resident_mb[:: max(1, len(held.resident_mb) // 20)]
                ],
                "good": good,
            }
        )
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(*map(float, sys.argv[1:2]), *map(int, sys.argv[2:3])))
