"""Random and mutated datagrams against the RTP core and all behind it but the model.

python tests/rtp/fuzz.py 1000000     # so many datagrams; prints speed and memory
python tests/rtp/fuzz.py --atheris   # coverage-guided, until stopped; needs 'pip install atheris'
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Sequence

import numpy as np
from network import ALICE, STRANGER, rtp, talk

from serstream.config import RtpSettings, Settings
from serstream.feed.coding import decode, encode
from serstream.pipeline import Pipeline
from serstream.rtp.datagrams import Datagrams
from serstream.rtp.streams import Streams
from serstream.types import Scores, SourceEvent, SpeechWindow, StreamStart

SETTINGS = RtpSettings(
    role="agent",  # whose windows are published without a model
    max_streams=64,
    latch="off",
    payload_types={"96": "opus/48000/2", "97": "L16/8000", "101": "telephone-event/8000"},
)
BATCH = 64
PATTERN = talk(bytes(range(160)) * 50)


class NoModel:
    """For streams that nobody scores."""

    def begin(self, start: StreamStart) -> str:
        return "none@1"

    def score(self, windows: Sequence[SpeechWindow]) -> list[Scores]:
        return []

    def forget(self, stream: str) -> None:
        pass


class Monitor:
    """From datagrams to what a subscriber reads."""

    def __init__(self) -> None:
        self.streams = Streams(SETTINGS, 0.0)
        self._pipeline = Pipeline(Settings(), NoModel())

    def take(self, datagrams: Datagrams, now: float) -> None:
        """As if they had come to both ports."""
        self._tell(self.streams.receive(datagrams))
        self._tell(self.streams.receive_rtcp(datagrams))
        self._tell(self.streams.release(now))

    def close(self) -> None:
        self._tell(self.streams.close())

    def _tell(self, events: list[SourceEvent]) -> None:
        for message in self._pipeline.feed(events):
            decode(encode(message), "json")


def storm(monitor: Monitor, seed: int, n_datagrams: int, start: float = 100.0) -> None:
    """Feed datagrams: valid ones, mutated ones, noise, and sound in small pieces, half of which no codec can
    read; from two senders; each batch 20 ms after the last."""
    rng = np.random.default_rng(seed)
    n_pieces = ticks = 0
    for tick in range(n_datagrams // BATCH):
        now = start + 0.02 * tick
        batch = []
        for i in range(BATCH):
            kind = rng.integers(4)
            content = bytearray(PATTERN[(tick + i // 32) % len(PATTERN)].datagram)
            if kind == 1:
                for _ in range(rng.integers(1, 4)):
                    content[rng.integers(16)] = rng.integers(256)
                del content[rng.integers(1, len(content) + 1) :]
            elif kind == 2:
                content = bytearray(rng.bytes(rng.integers(0, 60)))
                if content:
                    content[0] = 0x80 | content[0] & 0x3F
            elif kind == 3:
                payload = rng.bytes(rng.integers(1, 41))
                content = bytearray(rtp(n_pieces, ticks, payload, ssrc=16, payload_type=11))
                n_pieces, ticks = n_pieces + 1, ticks + max(1, len(payload) // 2)
            batch.append((bytes(content), (ALICE, STRANGER)[rng.integers(2)], now))
        monitor.take(Datagrams.of(batch), now)


def one_input(content: bytes) -> None:
    """For atheris: the input is cut into datagrams by length bytes, behind a stream that lives."""
    monitor = Monitor()
    batch = [(sent.datagram, sent.sender, sent.at) for sent in PATTERN[:16]]
    at = 0
    while at < len(content):
        end = at + 1 + content[at]
        batch.append((content[at + 1 : end], ALICE, 101.0))
        at = end
    monitor.take(Datagrams.of(batch), 200.0)
    monitor.close()


def main() -> None:
    if sys.argv[1:] == ["--atheris"]:
        import atheris

        atheris.instrument_all()
        atheris.Setup(sys.argv[:1], one_input)
        atheris.Fuzz()
        return
    n_datagrams = int(sys.argv[1])
    monitor = Monitor()
    storm(monitor, 0, n_datagrams // 10)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.process_time()
    for part in range(1, 10):
        storm(monitor, part, n_datagrams // 10, start=100.0 + 0.02 * n_datagrams * part)
    seconds = time.process_time() - began
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(f"{n_datagrams} datagrams, {0.9 * n_datagrams / seconds:.0f} a second, memory grew by {grown} kB")
    print(dict(monitor.streams.dropped))


if __name__ == "__main__":
    main()
