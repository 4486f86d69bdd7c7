"""How many streams some daemons bear: a load is raised until windows are late or lost.

Each step has daemons of its own, usually one, a generator for each, and this process, which subscribes. Which
windows must come back is known from segmenting the same sound, and how late each was from the time at which
the packet with its last sample was sent.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from math import ceil
from multiprocessing.connection import Connection

import msgspec
import numpy as np

from serstream.bench.footprint import cpu_s, pin, resident_kb
from serstream.bench.generator import FIRST_SSRC, SLOTS, Plan, Sent, generate
from serstream.bench.script import Script, write_script
from serstream.feed.messages import WindowEmotion, WindowUnscored
from serstream.rehearsal import HOST, DaemonProcess, free_port_pair
from serstream.rtp.sender import CLOCK_RATE, PACKET_SAMPLES
from serstream.rtp.status import PortStatus
from serstream.service.control import StatusRequest, ask
from serstream.service.status import Status

LATENCY_LIMIT_MS = 150.0
"""p99 from a window's last packet to its event, above which windows are late."""
SCRIPTS = 24
"""Different callers; streams that play the same one begin at different times."""
RAMP_S = 10.0
"""In which the streams begin."""
SETTLE_S = 2.0
"""From the last begin to the first window that counts; the status that names the streams is asked then."""
TAIL_S = 1.5
"""From the last window that counts to the end of the streams: what is later than that is lost."""
DRAIN_S = 5.0
"""From the end of the streams until the memory that is left is read."""
HISTORY = 1000
"""``feed.history`` of the daemon: its default keeps 50,000 messages on purpose, which would hide the rest."""


class Conditions(msgspec.Struct, frozen=True, kw_only=True):
    """What all steps have in common."""

    seconds: float = 60.0
    """Of each step that count."""
    talk_share: float = 0.5
    daemons: int = 1
    """That share the streams and the cores between them."""
    daemon_cores: tuple[int, ...]
    """Of all daemons together; each has every ``daemons``-th of them, or shares one."""
    generator_cores: tuple[int, ...]
    """Of the generators and of the subscriber."""


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One number of streams. Costs are processor seconds per second, those of all daemons together."""

    streams: int
    sustained: bool
    """No window lost or unscored, none of the packets dropped, p99 within `LATENCY_LIMIT_MS`."""
    windows: int
    windows_lost: int
    windows_shed: int
    """Published as unscored because of overload."""
    streams_muted: int
    """That the daemon had no time to hear at the end; their windows are lost."""
    median_ms: float
    p99_ms: float
    max_ms: float
    packets: int
    kernel_drops: int
    """Datagrams dropped because the socket's buffer was full."""
    lost_packets: int
    """Missed by the daemon's jitter buffers."""
    daemon_cpu: float
    cpu_us_per_stream: float
    """Processor time of the daemons per stream and second, in microseconds."""
    stages_cpu: dict[str, float]
    """receive: the thread of the RTP ports; segment, score, publish: the main thread; other: the rest."""
    generator_cpu: float
    generator_late_ms: float
    generator_refused: int
    """Packets that the generators' kernel did not take; a step with any is not sustained."""
    subscriber_cpu: float
    idle_kb: int
    """Resident memory of the daemons before the load, at its end, and after it."""
    loaded_kb: int
    after_kb: int
    kb_per_stream: float


@dataclass(frozen=True, slots=True)
class _Reading:
    """What was counted at one moment."""

    at: float
    daemon_cpu_s: float
    own_cpu_s: float
    statuses: list[Status]
    """Of every daemon."""

    @staticmethod
    def take(daemons: Sequence[DaemonProcess]) -> _Reading:
        statuses = [ask(daemon.control, StatusRequest(), timeout_s=30.0) for daemon in daemons]
        spent = sum(cpu_s(daemon.process.pid) for daemon in daemons)
        return _Reading(time.monotonic(), spent, cpu_s(os.getpid()), statuses)

    @property
    def stages_s(self) -> dict[str, float]:
        stages: defaultdict[str, float] = defaultdict(float)
        for status in self.statuses:
            for stage, seconds in status.health.cpu_s.items():
                stages[stage] += seconds
        return stages | {"other": self.daemon_cpu_s - sum(stages.values())}

    @property
    def ports(self) -> list[PortStatus]:
        return [port for status in self.statuses for port in status.health.ports]


def raise_load(numbers: Iterable[int], conditions: Conditions) -> Iterator[Step]:
    """Measure one number of streams after the other; ends behind the first that is not sustained."""
    total_s = RAMP_S + SETTLE_S + conditions.seconds + TAIL_S
    scripts = [write_script(total_s, conditions.talk_share, seed) for seed in range(SCRIPTS)]
    own_cores = os.sched_getaffinity(0)
    try:
        for streams in numbers:
            step = measure(streams, scripts, conditions)
            yield step
            if not step.sustained:
                return
    finally:
        pin(os.getpid(), own_cores)


def measure(streams: int, scripts: Sequence[Script], conditions: Conditions) -> Step:
    """One step.

    Args:
        streams: how many.
        scripts: what they play, long enough for ramp, settling, ``conditions.seconds`` and tail.
        conditions: of the measurement.

    Raises:
        SerstreamError: the daemon does not start, answer or end as it should.
    """
    seconds = SETTLE_S + conditions.seconds + TAIL_S
    plans = [
        Plan(HOST, free_port_pair(), len(range(first, streams, conditions.daemons)), RAMP_S, seconds)
        for first in range(min(streams, conditions.daemons))
    ]
    with ExitStack() as running:
        daemons = [running.enter_context(DaemonProcess(_configuration(plan), HISTORY)) for plan in plans]
        for daemon, cores in zip(daemons, _shared_out(conditions.daemon_cores, len(daemons)), strict=True):
            pin(daemon.process.pid, cores)
        pin(os.getpid(), conditions.generator_cores)
        idle_kb = _resident_kb(daemons)
        reports = [_start_generator(plan, scripts, conditions.generator_cores) for plan in plans]
        ramped = max(report.recv() for report in reports) + RAMP_S
        _sleep_until(ramped + SETTLE_S / 2)
        named = _Reading.take(daemons)
        _sleep_until(ramped + SETTLE_S)
        begin = _Reading.take(daemons)
        _sleep_until(begin.at + conditions.seconds)
        end = _Reading.take(daemons)
        loaded_kb = _resident_kb(daemons)
        sent: list[Sent] = [report.recv() for report in reports]
        latencies: list[float] = []
        lost = 0
        for daemon, status, plan, played in zip(daemons, named.statuses, plans, sent, strict=True):
            told, missing = _Arrivals.sort(daemon, status).compare(plan, scripts, played, begin.at, end.at)
            latencies += told
            lost += missing
        time.sleep(DRAIN_S)
        after_kb = _resident_kb(daemons)
        drops = sum(port.kernel_drops for port in _Reading.take(daemons).ports)
    measured_s = end.at - begin.at
    refused = sum(played.refused for played in sent)
    shed = sum(status.health.windows.get("overload", 0) for status in end.statuses)
    p99 = float(np.quantile(latencies, 0.99)) if len(latencies) else 0.0
    daemon_cpu = (end.daemon_cpu_s - begin.daemon_cpu_s) / measured_s
    return Step(
        streams=streams,
        sustained=not (lost or shed or drops or refused) and 0 < p99 <= LATENCY_LIMIT_MS,
        windows=len(latencies) + lost,
        windows_lost=lost,
        windows_shed=shed,
        streams_muted=sum(status.health.muted for status in end.statuses),
        median_ms=round(float(np.median(latencies)), 1) if len(latencies) else 0.0,
        p99_ms=round(p99, 1),
        max_ms=round(max(latencies, default=0.0), 1),
        packets=sum(played.packets for played in sent),
        kernel_drops=drops,
        lost_packets=sum(stream.lost for port in end.ports for stream in port.streams),
        daemon_cpu=round(daemon_cpu, 3),
        cpu_us_per_stream=round(1e6 * daemon_cpu / streams),
        stages_cpu={
            stage: round((cpu - begin.stages_s[stage]) / measured_s, 3) for stage, cpu in end.stages_s.items()
        },
        generator_cpu=round(sum(played.cpu_s for played in sent) / (RAMP_S + seconds), 3),
        generator_late_ms=round(max(played.late_ms for played in sent), 2),
        generator_refused=refused,
        subscriber_cpu=round((end.own_cpu_s - begin.own_cpu_s) / measured_s, 3),
        idle_kb=idle_kb,
        loaded_kb=loaded_kb,
        after_kb=after_kb,
        kb_per_stream=round((loaded_kb - idle_kb) / streams, 1),
    )


class _Arrivals:
    """When the event of each window was received: by stream and end."""

    def __init__(self) -> None:
        self._at: dict[tuple[int, int], float] = {}

    @staticmethod
    def sort(daemon: DaemonProcess, status: Status) -> _Arrivals:
        """All windows received so far; the status names the streams' SSRCs."""
        numbers = {
            (port.port, stream.stream): stream.ssrc - FIRST_SSRC
            for port in status.health.ports
            for stream in port.streams
        }
        by_stream = {stream: number for (_, stream), number in numbers.items()}
        arrivals = _Arrivals()
        for event, arrived in daemon.take(TAIL_S):
            if isinstance(event, WindowEmotion | WindowUnscored) and event.stream in by_stream:
                arrivals._at[by_stream[event.stream], round(event.end * CLOCK_RATE)] = arrived
        return arrivals

    def compare(
        self, plan: Plan, scripts: Sequence[Script], sent: Sent, begin: float, end: float
    ) -> tuple[list[float], int]:
        """Latencies in ms of the windows that were complete between two moments, and how many are missing."""
        latencies: list[float] = []
        lost = 0
        for stream in range(plan.streams):
            for window in scripts[stream % len(scripts)].windows.tolist():
                tick = plan.begin(stream) + ceil(window / PACKET_SAMPLES) - 1
                if tick >= plan.ticks or not begin <= (at := float(sent.at[tick, stream % SLOTS])) < end:
                    continue
                arrived = self._at.get((stream, window))
                if arrived is None:
                    lost += 1
                else:
                    latencies.append(1000 * (arrived - at))
        return latencies, lost


def _configuration(plan: Plan) -> str:
    return f"[[rtp]]\nport = {plan.port}\nmax_streams = {plan.streams}\nreceive_buffer_kb = 8192\n"


def _shared_out(cores: Sequence[int], n: int) -> list[Sequence[int]]:
    """The cores of each of n processes."""
    return [cores[first::n] or (cores[first % len(cores)],) for first in range(n)]


def _resident_kb(daemons: Sequence[DaemonProcess]) -> int:
    return sum(resident_kb(daemon.process.pid) for daemon in daemons)


def _start_generator(plan: Plan, scripts: Sequence[Script], cores: Sequence[int]) -> Connection:
    payloads = np.stack([script.packets for script in scripts])
    # A fork would copy the subscriber's threads in whatever state they are.
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    context.Process(target=generate, args=(plan, payloads, cores, sender), daemon=True).start()
    return receiver


def _sleep_until(at: float) -> None:
    time.sleep(max(0.0, at - time.monotonic()))
