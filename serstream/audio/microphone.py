"""A microphone as a source, opened again whenever it falls silent or disappears."""

from __future__ import annotations

import logging
import queue
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np

from serstream.audio.portaudio import BLOCK_S, InputDevice, find_input, open_input, refresh_devices
from serstream.config import MicrophoneSettings, as_name
from serstream.errors import SourceError
from serstream.pacing import ALWAYS, Pacing
from serstream.types import AudioChunk, Emit, EndReason, Samples, StreamEnd, StreamStart

log = logging.getLogger(__name__)

QUEUE_S = 5.0
"""Seconds of sound that may wait between callback and source; beyond that the newest is lost."""

FIRST_BLOCK_S = 5.0
"""Seconds a device may take for its first sound; a sound server that has just started needs more than one."""

RETRY_S = 0.5
"""Seconds between two attempts to open a device that is gone."""


class MicrophoneSource:
    """Records one device; every connection to it is a stream.

    Raises:
        SourceError: no such microphone (lists the ones there are), or no PortAudio.
    """

    def __init__(self, settings: MicrophoneSettings):
        find_input(settings.device)
        self._settings = settings
        self._stopped = threading.Event()
        self._recorder: Recorder | None = None
        self.lost_s = 0.0
        """Seconds of sound lost to overflows so far; may be read from any thread."""
        self._pacing = Pacing()
        self._told_s = 0.0
        """Seconds of them that the log has told."""

    def run(self, emit: Emit) -> None:
        """Record until `stop`."""
        gone = reopening = False
        while not self._stopped.is_set():
            try:
                if reopening:
                    refresh_devices()
                self._record(find_input(self._settings.device), emit)
                gone = False
            except SourceError as error:
                if not gone:
                    log.warning("%s; trying again every %.1f s", error, RETRY_S)
                gone = True
            reopening = True
            emit([])
            self._stopped.wait(RETRY_S)

    def stop(self) -> None:
        """Ask `run` to return after the current block."""
        self._stopped.set()
        if self._recorder is not None:
            self._recorder.wake()

    def _record(self, device: InputDevice, emit: Emit) -> None:
        """One stream, from the device's first block until it falls silent, disappears, or `stop`."""
        recorder = self._recorder = Recorder(device.sample_rate)
        stream = ""
        position = 0
        with open_input(device, recorder.callback, recorder.wake):
            while not self._stopped.is_set():
                block = recorder.take(self._settings.reconnect_s if stream else FIRST_BLOCK_S)
                if block is None:
                    break
                if not stream:
                    start = self._start(device, time.time() - len(block.samples) / device.sample_rate)
                    stream = start.stream
                    emit([start])
                    log.info("microphone %s: stream %s", device.name, stream)
                samples = np.concatenate([np.zeros(block.lost, np.float32), block.samples])
                emit([AudioChunk(stream, samples, device.sample_rate, position, block.lost, block.arrived)])
                position += len(samples)
                self._count(block, device)
        self._tell_loss(device)
        reason: EndReason = "shutdown" if self._stopped.is_set() else "lost"
        if reason == "lost":
            log.warning("microphone %s: no sound any more, opening it again", device.name)
        if stream:
            emit([StreamEnd(stream, reason)])

    def _start(self, device: InputDevice, started_at: float) -> StreamStart:
        name = as_name(device.name, "microphone")[:40]
        stream = f"{name}-{datetime.fromtimestamp(started_at, UTC):%Y%m%dT%H%M%S%f}"
        return StreamStart(
            stream=stream,
            call=self._settings.call or stream,
            role=self._settings.role,
            source=f"microphone:{device.name}",
            started_at=started_at,
        )

    def _count(self, block: Block, device: InputDevice) -> None:
        self.lost_s += block.lost / device.sample_rate
        if self.lost_s > self._told_s and self._pacing.is_due(block.arrived):
            self._pacing.tell(block.arrived)
            self._tell_loss(device)

    def _tell_loss(self, device: InputDevice) -> None:
        """What was not told yet, if anything."""
        if new_s := self.lost_s - self._told_s:
            self._told_s = self.lost_s
            log.warning(
                "microphone %s: overflow, %.0f ms lost; the machine is too slow or too busy",
                device.name,
                1000 * new_s,
                extra=ALWAYS,
            )


class Block(NamedTuple):
    """What one callback brought."""

    samples: Samples
    lost: int
    """Samples lost right before these."""
    arrived: float
    """Monotonic seconds."""


class Recorder:
    """Between the audio callback, which only copies and enqueues, and the source."""

    def __init__(self, sample_rate: int):
        self._sample_rate = sample_rate
        self._queue: queue.Queue[Block | None] = queue.Queue(round(QUEUE_S / BLOCK_S))
        self._lost = 0
        self._next_time: float | None = None
        """PortAudio time at which the next block should begin."""

    def callback(self, indata: Samples, frames: int, times: Any, status: Any) -> None:
        """Sounddevice's callback; ``indata`` float32, shape (frames, 1)."""
        if status.input_overflow and self._next_time is not None:
            # PortAudio says that it dropped sound, but not how much: its clock does, within reason.
            gap_s = min(max(0.0, times.inputBufferAdcTime - self._next_time), QUEUE_S)
            self._lost += round(gap_s * self._sample_rate)
        self._next_time = times.inputBufferAdcTime + frames / self._sample_rate
        try:
            self._queue.put_nowait(Block(indata[:, 0].copy(), self._lost, time.monotonic()))
            self._lost = 0
        except queue.Full:
            self._lost += frames

    def wake(self) -> None:
        """Let `take` return None; also called when PortAudio ends the stream."""
        # A full queue needs no waking.
        with suppress(queue.Full):
            self._queue.put_nowait(None)

    def take(self, timeout_s: float) -> Block | None:
        """The next block, or None when none comes within ``timeout_s``."""
        try:
            return self._queue.get(timeout=timeout_s)
        except queue.Empty:
            return None
