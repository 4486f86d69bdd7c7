"""A day of calls through a real daemon: does it hold more of anything at the end than at the beginning?

Many lines play calls of the sample's two parties one after the other as G.711 RTP in real time, so that
24 hours of stream time pass in minutes: clean calls, reordered and duplicated ones, silent ones, calls that
end without BYE, and, on a port of their own, calls that lose packets among garbage. Meanwhile subscribers
come and go, Prometheus looks and two models are exchanged. Every tenth of the soak repeats the same calls,
faults, subscribers and swaps at the same times. Where nothing is lost on the way, exactly the windows that
the calls' sound holds must arrive; everywhere, what each stream says at its end it has told.

Resident memory, threads and descriptors in the last tenth are compared with those in the second. How long
sound waits depends on the speed of the machine as well, which may change by a third in minutes: so the ages
are compared in the same seconds with those of a second daemon, which hears the same calls and is in its
second and third tenth while the first one is in its last two: over a single tenth the ages of two daemons
differ by chance. The two change cores with every sample, and begin each tenth on the other one. All must be
equal within 3 %, up and down.

Progress goes to stderr; the last line of stdout is one JSON object. Exit code 1 when something is not equal
or was lost.

    python benchmarks/soak.py [MINUTES [LINES]]
"""

import json
import os
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import cycle
from pathlib import Path
from typing import NamedTuple, TypeVar
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families
from soak_calls import SHORTEST_S, Line, Recording, play, recordings
from swap import lend

from serstream.bench.footprint import pin, resident_kb
from serstream.errors import ControlError, SerstreamError
from serstream.feed import subscribe
from serstream.feed.messages import Event, Gap, StreamEnded, WindowEmotion, WindowUnscored
from serstream.rehearsal import HOST, DaemonProcess, free_port_pair
from serstream.rtp.sender import PTIME_S
from serstream.service.control import Activate, StatusRequest, ask
from serstream.service.status import Status

MINUTES, LINES = 7, 230
MODELS = ("cnn-lstm", "cnn-2d")
TENTHS, JOINS_AFTER = 10, 7
"""The second daemon hears the last three tenths; ages are compared in all of them but its first."""
STARTS_BEFORE_S = 5.0
"""So long before it gets its first call."""
SAMPLES, SUBSCRIBERS, SWAPS = 14, 7, 4
"""In each tenth, at the same times; an even number of swaps, so that each tenth has the same models."""
DRAIN_S = 15.0
"""The last calls without BYE end by timeout."""
ANSWER_S = 30.0
TOLERANCE = 0.03

T = TypeVar("T")


class Sum(NamedTuple):
    """Of a Prometheus histogram, or what was added to it."""

    seconds: float
    count: float

    def mean_ms(self, before: "Sum") -> float:
        """Of what has come since."""
        return 1000 * (self.seconds - before.seconds) / (self.count - before.count)


class Sample(NamedTuple):
    """What a daemon holds at a moment."""

    resident_mb: float
    threads: int
    descriptors: int
    sound: Sum
    """Age at which sound left the last queue."""
    windows: Sum
    """Age at which windows were published."""


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


class Subject:
    """A daemon that is watched: its lines, what it tells and what it holds."""

    def __init__(self, n_lines: int, library: list[Recording], tenth_s: int, models: str):
        self._whole, lossy, self._metrics_port = (free_port_pair() for _ in range(3))
        self.lines = [
            Line(i + 1, self._whole if i % 5 else lossy, library, tenth_s, lossy=not i % 5)
            for i in range(n_lines)
        ]
        port = 'port = {}\nlatch = "stream"\nssrc_change_s = 0\nsilence_timeout_s = 5\nmax_streams = {}\n'
        self._daemon = DaemonProcess(
            "".join(f"[[rtp]]\n{port.format(number, 4 * n_lines)}" for number in (self._whole, lossy))
            + f'[model]\nrepository = "{models}"\ndevice = "cpu"\n'
        )
        self.listener = Listener()
        self.samples: list[Sample] = []
        self.swaps = 0
        self.slowest_answer_s = 0.0
        self._over = threading.Event()

    def start(self, stack: ExitStack, interval_s: float) -> None:
        """Let it run, with a subscriber that connects anew every so many seconds."""
        os.environ["SERSTREAM_METRICS__PORT"] = str(self._metrics_port)
        stack.enter_context(self._daemon)
        visitor = threading.Thread(target=self._come_and_go, args=(interval_s,))
        visitor.start()
        stack.callback(visitor.join)
        stack.callback(self._over.set)

    @property
    def calls(self) -> int:
        """Begun so far."""
        return sum(line.calls for line in self.lines)

    @property
    def hours(self) -> float:
        """Of stream time so far."""
        return sum(line.packets for line in self.lines) * PTIME_S / 3600

    @property
    def windows(self) -> tuple[int, int]:
        """How many its whole calls held, and how many of them it told."""
        expected = sum(line.n_windows for i, line in enumerate(self.lines) if i % 5)
        return expected, self.listener.n_windows[f"rtp:{self._whole}"]

    @property
    def lost(self) -> int:
        """Everything that is missing, or too much, when all calls are over."""
        expected, told = self.windows
        unended = abs(self.calls - self.listener.ended)
        return self.listener.gaps + self.listener.missed + unended + abs(expected - told)

    def status(self) -> Status:
        """How the daemon is."""
        return self._asked(lambda: ask(self._daemon.control, StatusRequest(), timeout_s=ANSWER_S))

    def swap(self, model: str) -> None:
        """Exchange the model."""
        # On a busy machine the model before may still be loading.
        if not self.status().model.loading:
            self.swaps += 1
            self._asked(lambda: ask(self._daemon.control, Activate(model), timeout_s=ANSWER_S))

    def move(self, core: int) -> None:
        """Let it go on there."""
        pin(self._daemon.process.pid, (core,))

    def listen(self) -> None:
        """Take what has arrived."""
        for event, _ in self._daemon.take(0.05):
            self.listener.take(event)

    def sample(self) -> None:
        """Take one more sample."""
        pid = self._daemon.process.pid
        with urlopen(f"http://{HOST}:{self._metrics_port}/metrics") as reply:
            families = {f.name: f for f in text_string_to_metric_families(reply.read().decode())}

        def total(name: str) -> Sum:
            values = {sample.name.rpartition("_")[2]: sample.value for sample in families[name].samples}
            return Sum(values["sum"], values["count"])

        self.samples.append(
            Sample(
                resident_kb(pid) / 1024,
                len(os.listdir(f"/proc/{pid}/task")),
                len(os.listdir(f"/proc/{pid}/fd")),
                total("serstream_wait_seconds"),
                total("serstream_window_latency_seconds"),
            )
        )

    def _come_and_go(self, interval_s: float) -> None:
        due = time.monotonic() + interval_s
        while not self._over.wait(max(0.0, due - time.monotonic())):
            due += interval_s
            with subscribe(self._daemon.endpoint) as subscription:
                subscription.receive(1.0)

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


def soak(old: Subject, young: Subject, tenth_s: int, models: Iterator[str], stack: ExitStack) -> None:
    """All tenths, and then until the last call has ended; exchanges the models for the next one in turn."""
    cores = sorted(os.sched_getaffinity(0))
    pin(os.getpid(), cores[-1:])
    old.start(stack, tenth_s / SUBSCRIBERS)
    over = threading.Event()
    joins_at_s = JOINS_AFTER * tenth_s
    arguments = (old.lines, young.lines, round(joins_at_s / PTIME_S), over)
    player = threading.Thread(target=play, args=arguments, daemon=True)
    player.start()
    began = time.monotonic()
    subjects = [old]
    taken = swaps = 0
    while taken <= TENTHS * SAMPLES:
        gone_s = time.monotonic() - began
        if len(subjects) == 1 and gone_s >= joins_at_s - STARTS_BEFORE_S:
            young.start(stack, tenth_s / SUBSCRIBERS)
            subjects.append(young)
        if gone_s >= taken * tenth_s / SAMPLES:
            for place, subject in enumerate(subjects):
                subject.sample()
                subject.move(cores[(taken + taken // SAMPLES + place) % 2 - 1])
            taken += 1
            if taken % SAMPLES == 1:
                _tell(taken // SAMPLES, old)
        if gone_s >= (swaps + 0.5) * tenth_s / SWAPS:
            swaps += 1
            model = next(models)
            for subject in subjects:
                subject.swap(model)
        for subject in subjects:
            subject.listen()
    over.set()
    drained_by = time.monotonic() + DRAIN_S
    while player.is_alive() or (
        time.monotonic() < drained_by and any(s.listener.ended < s.calls for s in subjects)
    ):
        if player.is_alive():
            drained_by = time.monotonic() + DRAIN_S
        for subject in subjects:
            subject.listen()


def _tell(tenths: int, old: Subject) -> None:
    told = (
        f"soak: {tenths} of {TENTHS} tenths, {old.hours:.1f} h of calls, "
        f"{old.samples[-1].resident_mb:.1f} MB, {old.listener.gaps + old.listener.missed} missed"
    )
    print(told, file=sys.stderr, flush=True)


def pairs_of(old: Subject, young: Subject) -> dict[str, tuple[float, float]]:
    """What must be equal: after the first tenth, and at the end."""
    second, last = old.samples[SAMPLES : 2 * SAMPLES + 1], old.samples[-SAMPLES - 1 :]
    compared = (TENTHS - JOINS_AFTER - 1) * SAMPLES + 1
    own, peer = old.samples[-compared:], young.samples[-compared:]
    held = {
        name: (
            statistics.median(getattr(s, name) for s in second),
            statistics.median(getattr(s, name) for s in last),
        )
        for name in ("resident_mb", "threads", "descriptors")
    }
    return held | {
        "sound_age_ms": (peer[-1].sound.mean_ms(peer[0].sound), own[-1].sound.mean_ms(own[0].sound)),
        "window_age_ms": (
            peer[-1].windows.mean_ms(peer[0].windows),
            own[-1].windows.mean_ms(own[0].windows),
        ),
    }


def main(minutes: float = MINUTES, n_lines: int = LINES) -> int:
    os.environ["PYTHONFAULTHANDLER"] = "1"
    os.environ["SERSTREAM_FEED__HISTORY"] = "2000"  # full, and so as large as it gets, within the first tenth
    library = recordings()
    tenth_s = round(60 * minutes / TENTHS)
    if tenth_s <= SHORTEST_S:
        raise SystemExit(f"soak: a tenth of {minutes:g} minutes holds no call; wanted at least 2 minutes")
    with tempfile.TemporaryDirectory() as models, ExitStack() as stack:
        references = lend(Path(models), MODELS)
        old, young = (Subject(n_lines, library, tenth_s, models) for _ in range(2))
        soak(old, young, tenth_s, cycle(map(str, reversed(references))), stack)
        health = old.status().health
    pairs = pairs_of(old, young)
    change = {name: round(last / first - 1, 4) for name, (first, last) in pairs.items()}
    good = not (old.lost or young.lost) and all(abs(share) <= TOLERANCE for share in change.values())
    expected, told = old.windows
    tenths = [old.samples[i : i + SAMPLES + 1] for i in range(0, TENTHS * SAMPLES, SAMPLES)]
    print(
        json.dumps(
            {
                "benchmark": "soak",
                "minutes": minutes,
                "lines": n_lines,
                "stream_hours": round(old.hours, 2),
                "calls": old.calls,
                "streams_ended": old.listener.ended,
                "windows": health.windows,
                "windows_in_whole_calls": expected,
                "windows_out_of_whole_calls": told,
                "gaps": old.listener.gaps,
                "messages_missed": old.listener.missed,
                "lost_by_the_second_daemon": young.lost,
                "dropped_s": health.dropped_s,
                "kernel_drops": sum(port.kernel_drops for port in health.ports),
                "swaps": old.swaps,
                "snapshots": health.snapshots,
                "slowest_answer_s": round(old.slowest_answer_s, 3),
                "after_the_first_tenth_and_at_the_end": {
                    name: [round(x, 3) for x in pair] for name, pair in pairs.items()
                },
                "change": change,
                "by_tenth": {
                    "resident_mb": [round(statistics.median(s.resident_mb for s in t), 1) for t in tenths],
                    "sound_age_ms": [round(t[-1].sound.mean_ms(t[0].sound), 2) for t in tenths],
                    "window_age_ms": [round(t[-1].windows.mean_ms(t[0].windows), 2) for t in tenths],
                },
                "good": good,
            }
        )
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(*map(float, sys.argv[1:2]), *map(int, sys.argv[2:3])))
