"""Events per second through the feed, against bare pyzmq with the standard json in the same run.

Both publish the same message objects over TCP to 1 and 10 subscribers in processes of their own, which decode
every message. The bare peer sends topic and json.dumps over PUB and reads with json.loads: no schema, no
sequence check, no state, no history. Published faster than read, messages would be dropped: the publisher
yields when it is ahead of its slowest subscriber by half of the high water mark.

    python benchmarks/feed.py
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

import msgspec
import zmq

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from feed_trust import free_ports
from scripted_feed import Script  # the tests' made-up calls

from serstream.config import FeedSettings
from serstream.feed import subscribe
from serstream.feed.coding import topic
from serstream.feed.messages import Message, StreamStarted, WindowEmotion
from serstream.feed.publisher import Publisher

HIGH_WATER_MARK = 20_000
STREAMS = 200


def windows(n: int) -> list[Message]:
    scripts = [Script(f"call-{i:03}", f"call-{i:03}-c") for i in range(STREAMS)]
    starts: list[Message] = [script.started() for script in scripts]
    turns = itertools.cycle(scripts)
    return starts + [next(turns).window(2.0 + i / STREAMS, "angry") for i in range(n - STREAMS)]


def read_serstream(endpoint: str, n: int, count: Synchronized[int], ready: Connection) -> None:
    with subscribe(endpoint, heartbeats=True) as subscription:
        while not subscription.receive(0.1):
            pass
        ready.send("ready")
        received = 0
        while received < n:
            received += sum(
                isinstance(event, WindowEmotion | StreamStarted) for event in subscription.receive(0.1)
            )
            count.value = received


def read_bare(endpoint: str, n: int, count: Synchronized[int], ready: Connection) -> None:
    with zmq.Context() as context, context.socket(zmq.SUB) as socket:
        socket.rcvhwm = 100_000
        socket.subscribe(b"")
        socket.connect(endpoint)
        socket.recv_multipart()
        ready.send("ready")
        received = 0
        while received < n:
            _, body = socket.recv_multipart()
            received += json.loads(body)["type"] != "heartbeat"
            if received % 200 == 0 or received == n:
                count.value = received


def wait_for(count: list[Synchronized[int]], least: int, idle: Callable[[], None]) -> None:
    while min(c.value for c in count) < least:
        idle()
        time.sleep(0.0005)


def measure(kind: str, subscribers: int, messages: list[Message]) -> float:
    """Events a second until the last subscriber has the last one."""
    spawn = multiprocessing.get_context("spawn")
    endpoint = f"tcp://127.0.0.1:{free_ports()}"
    counts: list[Any] = [spawn.Value("q", 0, lock=False) for _ in range(subscribers)]
    pipes = [spawn.Pipe() for _ in range(subscribers)]
    reader = read_serstream if kind == "serstream" else read_bare
    processes = [
        spawn.Process(target=reader, args=(endpoint, len(messages), count, own))
        for count, (_, own) in zip(counts, pipes, strict=True)
    ]
    for process in processes:
        process.start()
    context = zmq.Context()
    if kind == "serstream":
        publisher = Publisher(
            FeedSettings(endpoint=endpoint, high_water_mark=HIGH_WATER_MARK, heartbeat_s=0.1)
        )

        def idle() -> None:
            publisher.poll(time.monotonic(), time.time())

        def send(message: Message) -> None:
            publisher.publish([message])
    else:
        socket = context.socket(zmq.PUB)
        socket.sndhwm = HIGH_WATER_MARK
        socket.bind(endpoint)
        plain = {id(message): msgspec.to_builtins(message) for message in messages}

        def idle() -> None:
            if not all(pipe.poll(0) for pipe, _ in pipes):
                socket.send_multipart([b"heartbeat", b'{"type":"heartbeat"}'])

        def send(message: Message) -> None:
            socket.send_multipart([topic(message), json.dumps(plain[id(message)]).encode()])

    while not all(pipe.poll(0) for pipe, _ in pipes):
        idle()
        time.sleep(0.002)
    began = time.perf_counter()
    for i, message in enumerate(messages):
        send(message)
        if i % 100 == 0 and kind == "serstream":
            idle()  # as the daemon does after each turn
        if i % 1000 == 999:
            wait_for(counts, i - HIGH_WATER_MARK // 2, idle)
    wait_for(counts, len(messages), idle)
    seconds = time.perf_counter() - began
    for process in processes:
        process.join()
    if kind == "serstream":
        publisher.close()
    context.destroy(linger=0)
    return len(messages) / seconds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--messages", type=int, default=30_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    messages = windows(arguments.messages)
    figures: dict[str, dict[str, float]] = {}
    for subscribers in (1, 10):
        rates: dict[str, list[float]] = {"serstream": [], "bare": []}
        for _ in range(arguments.rounds):
            for kind, found in rates.items():
                found.append(measure(kind, subscribers, messages))
        serstream, bare = (statistics.median(found) for found in rates.values())
        figures[f"{subscribers}_subscribers"] = {
            "serstream_events_per_s": round(serstream),
            "bare_pyzmq_json_events_per_s": round(bare),
            "ratio": round(serstream / bare, 2),
        }
    print(json.dumps({"messages": len(messages), "rounds": arguments.rounds} | figures))


if __name__ == "__main__":
    main()
