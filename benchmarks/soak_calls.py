"""What the lines of the soak play: scripts of calls that every tenth of it repeats, faults included."""

import random
import socket
import threading
import time
from itertools import count
from typing import NamedTuple

import numpy as np
import soundfile

from serstream.config import SegmenterSettings
from serstream.rehearsal import HOST
from serstream.rtp.codecs import ULAW
from serstream.rtp.sender import CLOCK_RATE, PTIME_S, OutgoingStream, encode_mulaw
from serstream.shipped import SAMPLE_CALL
from serstream.speech.stream import StreamSegmenter
from serstream.types import AudioChunk, SpeechWindow

RECORDINGS, SHORTEST_S, LONGEST_S = 40, 10, 40
PAUSE_S = 1
HARMLESS = ("none", "none", "reordering", "duplicates", "silence", "no bye")
"""What the jitter buffer makes good, so that every window is known beforehand."""


class Recording(NamedTuple):
    """What a call plays."""

    payload: bytes
    """G.711 mu-law."""
    n_windows: int
    """Windows that the daemon must find in it."""

    @property
    def seconds(self) -> int:
        """How long it is."""
        return len(self.payload) // CLOCK_RATE


class Call(NamedTuple):
    """A recording with what goes wrong."""

    recording: Recording
    fault: str
    seed: int
    """Of what goes wrong when."""


def recordings() -> list[Recording]:
    """Cut out of the sample's parties; the first is silent."""
    samples, _ = soundfile.read(SAMPLE_CALL, dtype="int16", always_2d=True)
    parties = [encode_mulaw(np.ascontiguousarray(party)) for party in samples.T]
    chance = random.Random(0)
    made = [Recording(b"\xff" * SHORTEST_S * CLOCK_RATE, 0)]
    while len(made) < RECORDINGS:
        party = chance.choice(parties)
        start = chance.randrange(len(party) // 2)
        payload = (party[start:] + party)[: chance.randrange(SHORTEST_S, LONGEST_S + 1) * CLOCK_RATE]
        sound = StreamSegmenter("expected", SegmenterSettings())
        chunk = AudioChunk("expected", ULAW[np.frombuffer(payload, np.uint8)], CLOCK_RATE, 0)
        segments = sound.push(chunk) + sound.flush()
        made.append(Recording(payload, sum(isinstance(segment, SpeechWindow) for segment in segments)))
    return made


class Line:
    """Plays one call after the other, and begins anew after a while.

    Args:
        number: of the line; with the library and the period it says what the line plays when.
        port: where it sends to.
        library: to choose from.
        period_s: how long its script is.
        lossy: whether its calls lose packets.
    """

    def __init__(self, number: int, port: int, library: list[Recording], period_s: int, lossy: bool):
        self._number = number
        self._port = port
        self._chance = random.Random(number)
        self._period = round(period_s / PTIME_S)
        self._tick = self._chance.randrange(self._period)
        self._script = self._write(library, period_s, lossy)
        self.calls = 0
        self.packets = 0
        self.n_windows = 0
        """That the calls so far hold, if they arrive whole."""
        self._outgoing: OutgoingStream | None = None

    def tick(self, udp: socket.socket, begin: bool) -> bool:
        """20 ms pass; whether a call is going on. A new one only if it may begin."""
        call = self._script.get(self._tick)
        self._tick = (self._tick + 1) % self._period
        if call and begin:
            self._begin(call)
        if not self._outgoing:
            return False
        copies = 1
        if self._fault == "loss" and self._chance.random() < 0.05 and self._next > 2:
            copies = 0
            udp.sendto(self._chance.randbytes(172), (HOST, self._port))
        elif self._fault == "duplicates" and self._chance.random() < 0.05:
            copies = 2
        # Calls last whole seconds, so that the packet to swap with is always there.
        number = self._next ^ 1 if self._fault == "reordering" and self._next % 50 in (20, 21) else self._next
        for _ in range(copies):
            udp.sendto(self._outgoing.packet(number), (HOST, self._port))
        self.packets += 1
        self._next += 1
        if self._next == self._outgoing.n_packets:
            if self._fault != "no bye":
                udp.sendto(self._outgoing.bye(), (HOST, self._port + 1))
            self._outgoing = None
        return True

    def _write(self, library: list[Recording], period_s: int, lossy: bool) -> dict[int, Call]:
        """Calls by the tick at which they begin, as many as there is room for."""
        script: dict[int, Call] = {}
        gone = 0
        while fitting := [r for r in library if r.seconds <= period_s - gone - PAUSE_S]:
            # One that leaves room for another, or else the one that leaves least.
            roomy = [r for r in fitting if r.seconds <= period_s - gone - 2 * PAUSE_S - SHORTEST_S]
            recording = self._chance.choice(roomy) if roomy else max(fitting, key=lambda r: r.seconds)
            fault = "loss" if lossy else self._chance.choice(HARMLESS)
            if fault == "silence":
                recording = library[0]
            begin = round((gone + PAUSE_S) / PTIME_S)
            script[begin] = Call(recording, fault, self._chance.randrange(2**32))
            gone += PAUSE_S + recording.seconds
        return script

    def _begin(self, call: Call) -> None:
        self._fault = call.fault
        self._chance.seed(call.seed)
        self._next = 0
        self.calls += 1
        self.n_windows += call.recording.n_windows
        ssrc = self._number * 100_000 + self.calls
        self._outgoing = OutgoingStream(HOST, self._port, ssrc, call.recording.payload)


def play(first: list[Line], second: list[Line], joins_at: int, over: threading.Event) -> None:
    """Send in real time until told to stop, then let the calls that are going on come to their end.

    Args:
        first: lines that play from the beginning.
        second: as many others, which join them.
        joins_at: tick at which they do.
        over: set it to stop.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        due = time.monotonic()
        lines = first
        for tick in count():
            time.sleep(max(0.0, due - time.monotonic()))
            due += PTIME_S
            if tick == joins_at:
                # In turn, so that neither always comes first.
                lines = [line for pair in zip(first, second, strict=True) for line in pair]
            begin = not over.is_set()
            if not any([line.tick(udp, begin) for line in lines]) and not begin:
                return
