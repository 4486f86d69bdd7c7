"""A real daemon in a process of its own, a call sent to it in real time, and what comes back.

The demo, the benchmarks and the integration tests rehearse with it. It knows which windows must come back
because it segments the same sound itself, and how late they are because it knows when it sent each packet.
"""

from __future__ import annotations

import queue
import random
import signal
import socket
import subprocess  # nosec B404 # this very interpreter on this very package, no shell
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from serstream.config import FeedSettings, SegmenterSettings
from serstream.errors import SerstreamError
from serstream.feed import subscribe
from serstream.feed.messages import Event, UtteranceEmotion, WindowEmotion, WindowUnscored
from serstream.rtp.codecs import ULAW
from serstream.rtp.sender import CLOCK_RATE, PACKET_SAMPLES, OutgoingStream, encode_mulaw
from serstream.speech.stream import StreamSegmenter
from serstream.types import SAMPLE_RATE, AudioChunk, Role, Samples, SpeechWindow

HOST = "127.0.0.1"
START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 10.0

PORTS = range(10_000, 32_768, 2)
"""Below those that the kernel gives to clients, which else might take one before it is bound (ip(7))."""
_chance = random.SystemRandom()
_handed_out: set[int] = set()
"""Ports that somebody in this process is about to bind; until then the kernel takes them for free."""

Span = tuple[float, float]
"""Start and end of a window in seconds of stream time."""


class Leg:
    """One direction of a call: what is sent, what must come back, and what came.

    Args:
        samples: 8 kHz mono, int16, shape (n,).
        port: where the daemon listens for it.
        ssrc: of its RTP stream.
        role: of its speaker.
        segmenter: how the daemon is configured to cut it.
    """

    def __init__(
        self,
        samples: NDArray[np.int16],
        port: int,
        ssrc: int,
        role: Role = "unknown",
        segmenter: SegmenterSettings | None = None,
    ):
        self.role = role
        self.outgoing = OutgoingStream(HOST, port, ssrc, encode_mulaw(samples))
        self._segmenter = segmenter or SegmenterSettings()
        self.received: set[Span] = set()
        self.events = 0
        self.latencies_ms: list[float] = []
        self.utterances: list[UtteranceEmotion] = []

    def take(self, event: Event, arrived: float) -> None:
        """Count an event of this leg's stream that arrived at the given monotonic time."""
        self.events += 1
        if isinstance(event, UtteranceEmotion):
            self.utterances.append(event)
        if isinstance(event, WindowEmotion | WindowUnscored):
            self.received.add((event.start, event.end))
            last_sample = min(round(event.end * CLOCK_RATE), len(self.outgoing.payload)) - 1
            self.latencies_ms.append(1000 * (arrived - self.outgoing.sent_at[last_sample // PACKET_SAMPLES]))

    @property
    def expected(self) -> set[Span]:
        """Windows of what has been sent so far, as if the stream ended there."""
        sent = self.outgoing.payload[: len(self.outgoing.sent_at) * PACKET_SAMPLES]
        return _windows(ULAW[np.frombuffer(sent, np.uint8)], self._segmenter)

    @property
    def lost(self) -> int:
        """Windows that did not come back."""
        return len(self.expected - self.received)


def _windows(samples: Samples, settings: SegmenterSettings) -> set[Span]:
    sound = StreamSegmenter("leg", settings)
    segments = sound.push(AudioChunk("leg", samples, CLOCK_RATE, 0)) + sound.flush()
    return {(s.start / SAMPLE_RATE, s.end / SAMPLE_RATE) for s in segments if isinstance(s, SpeechWindow)}


class DaemonProcess:
    """`serstream run` with a given configuration, ready when the context is entered.

    Its end is SIGTERM; what it logged is in the error if it ends badly.

    Args:
        configuration: TOML without ``[feed]``, ``[metrics]`` and ``[control]``.
        history: ``feed.history``.

    Raises:
        SerstreamError: it does not start, or ends with an exit code other than 0.
    """

    program: Sequence[str] = (sys.executable, "-P", "-m", "serstream")
    """What is run; a test may run it under other conditions."""

    def __init__(self, configuration: str, history: int = FeedSettings().history):
        self.endpoint = f"tcp://{HOST}:{free_port_pair()}"
        self._events: queue.SimpleQueue[tuple[Event, float]] = queue.SimpleQueue()
        self._heard = threading.Event()
        self._over = threading.Event()
        feed = f'[feed]\nendpoint = "{self.endpoint}"\nheartbeat_s = 0.25\nhistory = {history}\n'
        own = f"{feed}[metrics]\nport = 0\n"
        self._configuration = f"{configuration}\n{own}"

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="serstream-")
        path = Path(self._folder.name) / "serstream.toml"
        self.control = path.with_name("control")
        path.write_text(f'{self._configuration}[control]\nsocket = "control"\n')
        self._log = (Path(self._folder.name) / "log").open("w+")
        command = [*self.program, "run", "-c", str(path)]
        self.process = subprocess.Popen(command, stdout=self._log, stderr=self._log)  # nosec B603 # as above
        self._reader = threading.Thread(target=self._read_feed, daemon=True)
        self._reader.start()
        try:
            self._wait_until_heard()
        except SerstreamError as error:
            self.__exit__(type(error), error, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        self._over.set()
        self._reader.join()
        try:
            if code and error is None:
                raise SerstreamError(f"the daemon ended with exit code {code}; its log:\n{self.log()}")
        finally:
            self._log.close()
            self._folder.cleanup()

    def take(self, timeout_s: float) -> list[tuple[Event, float]]:
        """Events with the monotonic time of their arrival; waits up to ``timeout_s`` for the first."""
        taken: list[tuple[Event, float]] = []
        try:
            taken.append(self._events.get(timeout=timeout_s))
            while True:
                taken.append(self._events.get_nowait())
        except queue.Empty:
            return taken

    def log(self) -> str:
        """The last lines that the daemon has logged."""
        self._log.seek(0)
        return "".join(self._log.readlines()[-20:])

    def _read_feed(self) -> None:
        with subscribe(self.endpoint) as subscription:
            while not self._over.is_set():
                for event in subscription.receive(0.1):
                    self._events.put((event, time.monotonic()))
                if subscription.links[0].inbox.heard_at is not None:
                    self._heard.set()

    def _wait_until_heard(self) -> None:
        """Once the subscriber has heard the daemon, it can miss no later message."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._heard.wait(0.05):
            if self.process.poll() is not None:
                raise SerstreamError(
                    f"the daemon ended with exit code {self.process.returncode}; its log:\n{self.log()}"
                )
            if time.monotonic() > deadline:
                raise SerstreamError(
                    f"nothing heard of the daemon within {START_TIMEOUT_S:.0f} s; its log:\n{self.log()}"
                )


def free_port_pair() -> int:
    """An even UDP and TCP port that is free, as is the next one (RTCP, snapshots); each time another."""
    while True:
        port = _chance.choice(PORTS)
        if port in _handed_out:
            continue
        try:
            for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                for number in (port, port + 1):
                    with socket.socket(socket.AF_INET, kind) as test:
                        test.bind((HOST, number))
        except OSError:
            continue
        _handed_out.add(port)
        return port
