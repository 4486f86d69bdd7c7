"""Packets per second per core through parsing, jitter buffer and decoding of 20 ms G.711, beside aiortc.

    python benchmarks/rtp_ingest.py

``streams_*``: `Streams.receive` and `release`, datagrams in, decoded `AudioBlock`s out, called every 10 ms of
stream time with what has arrived by then, as the receiver does. ``aiortc_*``: `RtpPacket.parse` and
`JitterBuffer.add` over the same packets; it does not decode. The last printed line is one JSON object.
"""

from __future__ import annotations

import gc
import ipaddress
import json
import os
import struct
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
from aiortc.jitterbuffer import JitterBuffer
from aiortc.rtp import RtpPacket

from serstream.config import RtpSettings
from serstream.rtp.datagrams import Datagrams, sender_at
from serstream.rtp.streams import Streams
from serstream.types import AudioBlock, SourceEvent

TICKS_PER_PACKET = 2
TICK_S = 0.01
WARM_UP = 6
REPEATS = 5
PAYLOAD = np.random.default_rng(3).integers(0, 256, 160, dtype=np.uint8).tobytes()


def packet(stream: int, number: int) -> bytes:
    return struct.pack("!BBHII", 0x80, 0, number & 0xFFFF, 160 * number, 0x5EED0000 + stream) + PAYLOAD


def ticks(n_streams: int, n_packets: int) -> list[Datagrams]:
    """What arrives in each tick: every stream sends a packet every second tick, half of them in each."""
    senders = [sender_at(ipaddress.IPv4Address(0x0A000001 + i), 20_000) for i in range(n_streams)]
    return [
        Datagrams.of(
            [
                (packet(i, tick // 2), senders[i], tick * TICK_S)
                for i in range(n_streams)
                if n_streams == 1 or i % TICKS_PER_PACKET == tick % TICKS_PER_PACKET
            ]
            if n_streams > 1 or tick % 2 == 0
            else []
        )
        for tick in range(2 * n_packets)
    ]


def best(run: Callable[[], tuple[int, float]]) -> float:
    """Packets per second, the best of a few runs."""
    rates = []
    for _ in range(REPEATS):
        gc.collect()
        packets, seconds = run()
        rates.append(packets / seconds)
    return max(rates)


def _packets(event: SourceEvent) -> int:
    return len(event.streams) if isinstance(event, AudioBlock) else 1


def serstream_rate(batches: list[Datagrams], n_streams: int) -> float:
    def run() -> tuple[int, float]:
        streams = Streams(RtpSettings(max_streams=max(n_streams, 8)), 0.0)
        for tick, batch in enumerate(batches[:WARM_UP]):
            streams.receive(batch)
            streams.release((tick + 1) * TICK_S)
        assert len(streams) == n_streams
        packets = 0
        began = time.process_time()
        for tick, batch in enumerate(batches[WARM_UP:], WARM_UP):
            packets += sum(_packets(event) for event in streams.receive(batch))
            streams.release((tick + 1) * TICK_S)
        seconds = time.process_time() - began
        assert packets == sum(len(batch) for batch in batches[WARM_UP:])
        return packets, seconds

    return best(run)


def aiortc_rate(batches: list[Datagrams], n_streams: int) -> float:
    datagrams = [batch.datagram(i) for batch in batches for i in range(len(batch))]

    def run() -> tuple[int, float]:
        buffers = {0x5EED0000 + i: JitterBuffer(capacity=16, prefetch=4) for i in range(n_streams)}
        began = time.process_time()
        for datagram in datagrams:
            parsed = RtpPacket.parse(datagram)
            parsed._data = parsed.payload
            buffers[parsed.ssrc].add(parsed)
        return len(datagrams), time.process_time() - began

    return best(run)


def bytes_per_idle_stream(n_streams: int) -> int:
    """Memory that a stream holds between its packets."""
    batches = ticks(n_streams, 4)
    tracemalloc.start()
    streams = Streams(RtpSettings(max_streams=n_streams), 0.0)
    for batch in batches:
        streams.receive(batch)
    gc.collect()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(streams) == n_streams
    return held // n_streams


def main() -> None:
    figures: dict[str, Any] = {"cpu": os.cpu_count()}
    for n_streams, n_packets in ((1, 3000), (100, 200), (1000, 30)):
        batches = ticks(n_streams, n_packets)
        figures[f"streams_{n_streams}"] = round(serstream_rate(batches, n_streams))
        figures[f"aiortc_{n_streams}"] = round(aiortc_rate(batches, n_streams))
        print(figures)
    figures["times_aiortc_1000"] = round(figures["streams_1000"] / figures["aiortc_1000"], 2)
    figures["cost_1000_over_100"] = round(figures["streams_100"] / figures["streams_1000"], 2)
    figures["bytes_per_idle_stream"] = bytes_per_idle_stream(1000)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
