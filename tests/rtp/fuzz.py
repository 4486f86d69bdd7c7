"""Random and mutated datagrams against the RTP core.

python tests/rtp/fuzz.py 1000000     # so many datagrams; prints speed and memory
python tests/rtp/fuzz.py --atheris   # coverage-guided, until stopped; needs 'pip install atheris'
"""

from __future__ import annotations

import resource
import sys
import time

import numpy as np
from network import ALICE, STRANGER, talk

from serstream.config import RtpSettings
from serstream.rtp.datagrams import Datagrams
from serstream.rtp.streams import Streams

SETTINGS = RtpSettings(
    max_streams=64,
    latch="off",
    payload_types={"96": "opus/48000/2", "97": "L16/8000", "101": "telephone-event/8000"},
)
BATCH = 64
PATTERN = talk(bytes(range(160)) * 50)


def storm(streams: Streams, seed: int, n_datagrams: int, start: float = 100.0) -> None:
    """Feed datagrams: valid ones, mutated ones, noise; from two senders; each batch 20 ms after the last."""
    rng = np.random.default_rng(seed)
    for tick in range(n_datagrams // BATCH):
        now = start + 0.02 * tick
        batch = []
        for i in range(BATCH):
            kind = rng.integers(3)
            content = bytearray(PATTERN[(tick + i // 32) % len(PATTERN)].datagram)
            if kind == 1:
                for _ in range(rng.integers(1, 4)):
                    content[rng.integers(16)] = rng.integers(256)
                del content[rng.integers(1, len(content) + 1) :]
            elif kind == 2:
                content = bytearray(rng.bytes(rng.integers(0, 60)))
                if content:
                    content[0] = 0x80 | content[0] & 0x3F
            batch.append((bytes(content), (ALICE, STRANGER)[rng.integers(2)], now))
        datagrams = Datagrams.of(batch)
        streams.receive(datagrams)
        streams.receive_rtcp(datagrams)
        streams.release(now)


def one_input(content: bytes) -> None:
    """For atheris: the input is cut into datagrams by length bytes, behind a stream that lives."""
    streams = Streams(SETTINGS, 0.0)
    batch = [(sent.datagram, sent.source, sent.at) for sent in PATTERN[:16]]
    at = 0
    while at < len(content):
        end = at + 1 + content[at]
        batch.append((content[at + 1 : end], ALICE, 101.0))
        at = end
    streams.receive(Datagrams.of(batch))
    streams.receive_rtcp(Datagrams.of(batch))
    streams.release(200.0)
    streams.close()


def main() -> None:
    if sys.argv[1:] == ["--atheris"]:
        import atheris

        atheris.instrument_all()
        atheris.Setup(sys.argv[:1], one_input)
        atheris.Fuzz()
        return
    n_datagrams = int(sys.argv[1])
    streams = Streams(SETTINGS, 0.0)
    storm(streams, 0, n_datagrams // 10)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.process_time()
    for part in range(1, 10):
        storm(streams, part, n_datagrams // 10, start=100.0 + 0.02 * n_datagrams * part)
    seconds = time.process_time() - began
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(f"{n_datagrams} datagrams, {0.9 * n_datagrams / seconds:.0f} a second, memory grew by {grown} kB")
    print(dict(streams.dropped))


if __name__ == "__main__":
    main()
