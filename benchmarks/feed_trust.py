"""What the feed promises under bad subscribers, over TCP, each party in a process of its own.

A daemon publishes at a steady rate. One subscriber is healthy; one is stopped (SIGSTOP) for the whole time;
one sits behind a proxy that cuts the connection for a third of it; one joins anew every second. Reported:
what each missed in the end, whether all end in the same state, and the daemon's memory.

    python benchmarks/feed_trust.py --seconds 60 --rate 200
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import multiprocessing
import os
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from scripted_feed import call  # the tests' made-up calls

from serstream.bench.footprint import resident_kb
from serstream.config import FeedSettings
from serstream.feed import subscribe
from serstream.feed.coding import decode, encode
from serstream.feed.messages import Gap, Message
from serstream.feed.publisher import Publisher
from serstream.feed.state import FeedState

CALLS = 100
"""Going on at the same time."""
SETTLE_S = 8.0
"""After the last message: time for repairs."""


def messages() -> Iterator[Message]:
    """For ever: calls of 20 windows, each followed by another."""
    going = [iter(call(f"call-{i:06}", 5 + i % 16)) for i in range(CALLS)]
    number = CALLS
    while True:
        for i, script in enumerate(going):
            message = next(script, None)
            if message is None:
                going[i] = iter(call(f"call-{number:06}", 20))
                number += 1
            else:
                yield message


def digest(state: FeedState) -> str:
    """Equal for equal states."""
    return hashlib.sha256(b"\n".join(sorted(encode(message) for message in state.messages()))).hexdigest()[
        :16
    ]


def publish(endpoint: str, rate: float, seconds: float, high_water_mark: int, result: Connection) -> None:
    settings = FeedSettings(endpoint=endpoint, high_water_mark=high_water_mark)
    publisher = Publisher(settings)
    script = messages()
    state = FeedState()
    published = 0
    worst = 0.0
    rss_kb = [resident_kb(os.getpid())]
    for subscribers in (3, 4):  # the one that joins often comes last: its snapshots must not stand for others
        while publisher.counters.snapshots < subscribers:
            publisher.poll(time.monotonic(), time.time())
            time.sleep(0.002)
        result.send(f"{subscribers} have joined")
    began = time.monotonic()
    while (now := time.monotonic()) < began + seconds + SETTLE_S:
        due = int(min(now - began, seconds) * rate)
        while published < due:
            message = next(script)
            before = time.perf_counter()
            publisher.publish([message])
            worst = max(worst, time.perf_counter() - before)
            state.update(decode(encode(message)))
            published += 1
        publisher.poll(now, time.time())
        if now - began > len(rss_kb):
            rss_kb.append(resident_kb(os.getpid()))
        time.sleep(0.002)
    result.send(
        {
            "published": published,
            "state": digest(state),
            "overflowed": publisher.counters.overflowed,
            "repeated": publisher.counters.repeated.total(),
            "snapshots": publisher.counters.snapshots,
            "slowest_publish_ms": round(worst * 1000, 2),
            "rss_start_mib": round(rss_kb[0] / 1024, 1),
            "rss_peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
            "rss_end_mib": round(rss_kb[-1] / 1024, 1),
        }
    )
    publisher.close()


def listen(endpoint: str, result: Connection) -> None:
    """Subscribe until told to stop; tell when the first event has come, and in the end what came."""
    state = FeedState()
    seen: dict[tuple[str, str], set[int]] = {}
    gaps = 0
    received = 0
    with subscribe(endpoint) as subscription:
        while not result.poll():
            for event in subscription.receive(0.1):
                if isinstance(event, Gap):
                    gaps += 1
                    continue
                if not received:
                    result.send("joined")
                received += 1
                seen.setdefault((event.call, event.stream), set()).add(event.sequence)
                state.update(event)
        repaired = subscription.links[0].inbox.repaired
    holes = sum(max(sequences) + 1 - len(sequences) for sequences in seen.values())
    result.send(
        {"received": received, "repaired": repaired, "gaps": gaps, "holes": holes, "state": digest(state)}
    )


def join_often(endpoint: str, seconds: float, result: Connection) -> None:
    """Join every second; the last time stay until told to stop."""
    joins = 0
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        joins += 1
        with subscribe(endpoint) as subscription:
            stay_until = time.monotonic() + 1.0
            while time.monotonic() < stay_until:
                subscription.receive(0.1)
    listen(endpoint, result)


class Proxy:
    """Forwards TCP connections until it is cut."""

    def __init__(self, port: int, to: int):
        self._to = to
        self._cut = False
        self._sockets: list[socket.socket] = []
        self._server = socket.create_server(("127.0.0.1", port))
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, cut: bool) -> None:
        """Close all connections and refuse new ones, or allow them again."""
        self._cut = cut
        while cut and self._sockets:
            # Not close: another thread is reading from it.
            with contextlib.suppress(OSError):
                self._sockets.pop().shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            client, _ = self._server.accept()
            if self._cut:
                client.close()
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self._to))
            except ConnectionRefusedError:
                client.close()
                continue
            self._sockets += [client, server]
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._forward, args=(source, sink), daemon=True).start()

    @staticmethod
    def _forward(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while block := source.recv(65536):
                sink.sendall(block)
            for end in (source, sink):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)


def free_ports() -> int:
    """The first of two neighbours."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as first:
            port: int = first.getsockname()[1]
            try:
                with socket.create_server(("127.0.0.1", port + 1)):
                    return port
            except OSError:
                continue


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rate", type=float, default=200, help="messages a second")
    parser.add_argument("--high-water-mark", type=int, default=FeedSettings().high_water_mark)
    arguments = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    port, behind = free_ports(), free_ports()
    endpoint = f"tcp://127.0.0.1:{port}"
    proxies = [Proxy(behind + i, port + i) for i in (0, 1)]
    pipes: dict[str, Connection] = {}
    processes: dict[str, multiprocessing.process.BaseProcess] = {}

    def start(name: str, run: object, *given: object) -> None:
        pipes[name], own = spawn.Pipe()
        processes[name] = spawn.Process(target=run, args=(*given, own))
        processes[name].start()

    for name in ("healthy", "stopped", "cut"):
        start(name, listen, f"tcp://127.0.0.1:{behind}" if name == "cut" else endpoint)
    start("daemon", publish, endpoint, arguments.rate, arguments.seconds, arguments.high_water_mark)
    pipes["daemon"].recv()
    start("joining", join_often, endpoint, arguments.seconds)
    pipes["daemon"].recv()
    began = time.monotonic()
    for name in ("healthy", "stopped", "cut"):
        pipes[name].recv()  # it has joined
    stopped = processes["stopped"].pid
    assert stopped is not None
    os.kill(stopped, signal.SIGSTOP)
    time.sleep(arguments.seconds / 3)
    for proxy in proxies:
        proxy.cut(True)
    time.sleep(arguments.seconds / 3)
    for proxy in proxies:
        proxy.cut(False)
    time.sleep(max(0.0, began + arguments.seconds - time.monotonic()))
    os.kill(stopped, signal.SIGCONT)
    time.sleep(SETTLE_S - 1)
    pipes["joining"].recv()  # it has joined for the last time
    for name in ("healthy", "stopped", "cut", "joining"):
        pipes[name].send("stop")
    results = {name: pipe.recv() for name, pipe in pipes.items()}
    for process in processes.values():
        process.join()
    print(json.dumps({"seconds": arguments.seconds, "rate": arguments.rate} | results))


if __name__ == "__main__":
    main()
