"""Any number of G.711 RTP streams from one process: packets made as arrays, sent by sendmmsg(2)."""

from __future__ import annotations

import ctypes
import os
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection

import numpy as np
from numpy.typing import NDArray

from serstream.rtp.datagrams import MESSAGE, VECTOR
from serstream.rtp.sender import PACKET_SAMPLES, PCMU, PTIME_S, OutgoingStream

SLOTS = 10
"""Streams are spread over so many points of time in the 20 ms of a packet, as those of a trunk are."""
SLOT_S = PTIME_S / SLOTS
FIRST_SSRC = 0x5EED0000
START_S = 0.1
"""From the announcement of tick 0 until it comes."""

_PACKET = np.dtype(
    [
        ("first", "u1"),
        ("payload_type", "u1"),
        ("sequence_number", ">u2"),
        ("timestamp", ">u4"),
        ("ssrc", ">u4"),
        ("payload", "u1", PACKET_SAMPLES),
    ]
)


@dataclass(frozen=True, slots=True)
class Plan:
    """Who sends what, from when on. Stream ``i`` plays script ``i % n_scripts`` in slot ``i % SLOTS``."""

    host: str
    port: int
    streams: int
    ramp_s: float
    """Streams begin one after the other within so long, which keeps them out of step."""
    seconds: float
    """How long all of them go on after that."""

    def begin(self, stream: int) -> int:
        """The tick of 20 ms in which a stream begins."""
        return int(stream * self.ramp_s / PTIME_S) // self.streams

    @property
    def ticks(self) -> int:
        """How many ticks there are."""
        return round((self.ramp_s + self.seconds) / PTIME_S)


@dataclass(frozen=True, slots=True, eq=False)
class Sent:
    """What became of a plan."""

    at: NDArray[np.float64]
    """Monotonic time at which each slot of each tick was sent, shape (ticks, SLOTS)."""
    late_ms: float
    """How late the latest slot in a thousand was."""
    packets: int
    refused: int
    """Packets that the kernel did not take."""
    cpu_s: float
    """Processor time, the kernel's way through the loopback included."""


class _Slot:
    """The streams that send at the same time, in one buffer."""

    def __init__(self, plan: Plan, payloads: NDArray[np.uint8], slot: int):
        streams = np.arange(slot, plan.streams, SLOTS)
        self._begins = np.array([plan.begin(stream) for stream in streams.tolist()], np.int64)
        self._scripts = streams % len(payloads)
        self._payloads = payloads
        self._packets = np.zeros(len(streams), _PACKET)
        self._packets["first"] = 0x80
        self._packets["payload_type"] = PCMU
        self._packets["ssrc"] = FIRST_SSRC + streams
        self._vectors = np.zeros(len(streams), VECTOR)
        self._messages = np.zeros(len(streams), MESSAGE)
        rows = np.arange(len(streams), dtype=np.uint64)
        self._vectors["base"] = self._packets.ctypes.data + rows * _PACKET.itemsize
        self._vectors["length"] = _PACKET.itemsize
        self._messages["vector"] = self._vectors.ctypes.data + rows * VECTOR.itemsize
        self._messages["n_vectors"] = 1
        self._sendmmsg = ctypes.CDLL(None, use_errno=True).sendmmsg

    def send(self, udp: socket.socket, tick: int) -> tuple[int, int]:
        """One packet of each stream that has begun: how many were sent, and how many should have been."""
        wanted = int(np.searchsorted(self._begins, tick, "right"))
        packets, number = self._packets[:wanted], tick - self._begins[:wanted]
        packets["sequence_number"] = number & 0xFFFF
        packets["timestamp"] = number * PACKET_SAMPLES
        packets["payload"] = self._payloads[self._scripts[:wanted], number]
        sent = 0
        while sent < wanted:
            at = ctypes.c_void_p(self._messages[sent:].ctypes.data)
            n: int = self._sendmmsg(udp.fileno(), at, wanted - sent, 0)
            if n <= 0:
                break
            sent += n
        return sent, wanted


def generate(plan: Plan, payloads: NDArray[np.uint8], cores: Sequence[int], report: Connection) -> None:
    """Carry out a plan in real time; runs in a process of its own.

    Args:
        plan: what to send.
        payloads: of the scripts, each as long as the plan, shape (n_scripts, ticks, PACKET_SAMPLES).
        cores: where to run.
        report: gets the monotonic time of tick 0 before it comes, and `Sent` at the end.
    """
    os.sched_setaffinity(0, cores)
    slots = [_Slot(plan, payloads, slot) for slot in range(SLOTS)]
    at = np.zeros((plan.ticks, SLOTS))
    packets = refused = 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.connect((plan.host, plan.port))
        began = time.monotonic() + START_S
        report.send(began)
        due = began + PTIME_S * np.arange(plan.ticks)[:, None] + SLOT_S * np.arange(SLOTS)
        cpu = time.process_time()
        for tick in range(plan.ticks):
            for number, slot in enumerate(slots):
                time.sleep(max(0.0, due[tick, number] - time.monotonic()))
                at[tick, number] = time.monotonic()
                sent, wanted = slot.send(udp, tick)
                packets += sent
                refused += wanted - sent
        cpu = time.process_time() - cpu
        for stream in range(plan.streams):
            if stream % SLOTS == 0:
                time.sleep(SLOT_S)  # all at once they would overflow the receiver's buffer for RTCP
            # RTCP goes to the next port, and from this socket: its address is a part of the stream's name.
            bye = OutgoingStream(plan.host, plan.port, FIRST_SSRC + stream, b"").bye()
            udp.sendto(bye, (plan.host, plan.port + 1))
    late_ms = 1000 * float(np.quantile(at - due, 0.999))
    report.send(Sent(at, late_ms, packets, refused, cpu))
