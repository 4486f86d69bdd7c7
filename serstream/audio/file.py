"""Recordings as a source: any format libsndfile reads, one stream per channel."""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile

from serstream.config import FileSettings
from serstream.errors import SourceError, readable
from serstream.types import AudioChunk, Emit, EndReason, Samples, SourceEvent, StreamEnd, StreamStart

log = logging.getLogger(__name__)

REALTIME_BLOCK_S = 0.02
BLOCK_S = 2.0
"""Seconds read at once when nobody waits."""
_CUT = re.compile(r"^ *(?:data|SSND|Data Size) *: (\d+) \(should be (\d+)\)$", re.MULTILINE)
"""What libsndfile notes, in bytes, of a WAV, AIFF or AU that ends before its header says; it counts only the
frames that are there."""
STREAMED = 2**31 - 2**16
"""Bytes that no header means: written into a pipe, it has some such number for a length that is not known."""
NEGLIGIBLE_S = 0.01
"""Some recorders count the header in, so that a whole file seems cut by a few samples."""
MAX_RATE = 768_000
"""Hz; no converter is faster, and a file that says so is broken."""


class FileSource:
    """Plays one recording, once.

    Raises:
        SourceError: no such file, not a recording, empty, damaged, or not one role per channel.
    """

    def __init__(self, settings: FileSettings, base: Path = Path()):
        self._path = base / settings.path
        self._realtime = settings.realtime
        self._file = _open(self._path)
        roles = settings.roles or ("unknown",) * self._file.channels
        if len(roles) != self._file.channels:
            raise SourceError(
                f"file {readable(self._path)}: has {self._file.channels} channel(s), roles has {len(roles)} "
                f"({', '.join(roles)}); give one role per channel, or none"
            )
        self._roles = roles
        self._call = settings.call or settings.prefix
        self._streams = [f"{settings.prefix}-{channel}" for channel in range(1, len(roles) + 1)]
        self._stopped = threading.Event()

    def events(self) -> Iterator[SourceEvent]:
        """All events of the recording, without a clock: the same each time.

        Sample 0 is dated so that the recording ends when the file was last written, but not before 1970.
        """
        duration_s = self._file.frames / self._file.samplerate
        yield from self._starts(max(0.0, self._path.stat().st_mtime - duration_s))
        for start, block in self._blocks(BLOCK_S):
            yield from self._chunks(start, block, arrived=0.0)
        yield from self._ends("eof")

    def run(self, emit: Emit) -> None:
        """Play until the end or `stop`: at the speed of the recording, or as fast as possible."""
        begun = time.monotonic()
        emit(self._starts(time.time()))
        for start, block in self._blocks(REALTIME_BLOCK_S if self._realtime else BLOCK_S):
            if self._realtime:
                due = begun + (start + len(block)) / self._file.samplerate
                self._stopped.wait(max(0.0, due - time.monotonic()))
            if self._stopped.is_set():
                emit(self._ends("shutdown"))
                return
            emit(self._chunks(start, block, arrived=time.monotonic()))
        emit(self._ends("eof"))

    def stop(self) -> None:
        """Ask `run` to return after the current block."""
        self._stopped.set()

    def _blocks(self, block_s: float) -> Iterator[tuple[int, Samples]]:
        """Start and samples, shape (n, channels), of each block."""
        frames = max(1, min(round(block_s * self._file.samplerate), self._file.frames))
        promised = promised_frames(self._file)
        position = 0
        fault = "its end is missing"
        with self._file as file:
            while position < file.frames:
                block: Samples = np.full((frames, file.channels), np.nan, np.float32)
                try:
                    block = file.read(out=block)
                except soundfile.LibsndfileError as error:
                    fault = f"damaged, {error.error_string}"
                    # What could be decoded before the damage is there.
                    block = block[: np.count_nonzero(~np.isnan(block[:, 0]))]
                if not len(block):
                    break
                # Float formats may hold anything.
                np.clip(block, -1.0, 1.0, out=block)
                block[np.isnan(block)] = 0.0
                yield position, block
                position += len(block)
                if len(block) < frames:
                    break
            if promised - position > NEGLIGIBLE_S * file.samplerate or position < file.frames:
                log.warning(
                    "file %s: %s; %.2f s of %.2f s lost",
                    readable(self._path),
                    fault,
                    (promised - position) / file.samplerate,
                    promised / file.samplerate,
                )

    def _starts(self, started_at: float) -> list[SourceEvent]:
        source = f"file:{readable(Path(self._path.name))}"
        return [
            StreamStart(stream, self._call, role, source, started_at, patient=True)
            for stream, role in zip(self._streams, self._roles, strict=True)
        ]

    def _chunks(self, start: int, block: Samples, arrived: float) -> list[SourceEvent]:
        return [
            AudioChunk(stream, samples, self._file.samplerate, start, arrived=arrived)
            for stream, samples in zip(self._streams, np.ascontiguousarray(block.T), strict=True)
        ]

    def _ends(self, reason: EndReason) -> list[SourceEvent]:
        return [StreamEnd(stream, reason) for stream in self._streams]


def _open(path: Path) -> soundfile.SoundFile:
    if fault := _fault(path):
        raise SourceError(f"file {readable(path)}: {fault}")
    try:
        file = soundfile.SoundFile(os.fsencode(path))  # a name need not be UTF-8
    except (soundfile.LibsndfileError, TypeError) as error:  # TypeError: .raw, which has no header
        formats = ", ".join(sorted(set(soundfile.available_formats()) - {"RAW"}))
        raise SourceError(
            f"file {readable(path)}: not a recording that libsndfile can read; wanted one of {formats}"
        ) from error
    if not file.frames:
        file.close()
        raise SourceError(f"file {readable(path)}: holds no samples; give a recording that is not empty")
    if file.samplerate > MAX_RATE:
        file.close()
        raise SourceError(
            f"file {readable(path)}: says that it has {file.samplerate} samples a second, wanted at most "
            f"{MAX_RATE}; give a recording that is not damaged"
        )
    return file


def _fault(path: Path) -> str:
    """Why nothing can be read from a path, and what to do; empty: it is a file."""
    advice = "give the path of a recording ('serstream replay -o' takes folders)"
    try:
        if path.is_file():
            return ""
        if path.is_dir():
            return f"a folder; {advice}"
        if path.exists():
            return "a pipe or device, which cannot be sought in; save it as a file first"
    except OSError as error:  # a folder that may not be entered, a name that is too long
        return f"cannot read it: {error.strerror}; {advice}"
    return f"no such file; {advice}"


def promised_frames(file: soundfile.SoundFile) -> int:
    """What the header says, of a file that may have been cut since."""
    frames: int = file.frames
    if cut := _CUT.search(file.extra_info):
        said, there = map(int, cut.groups())
        if there < said < STREAMED:
            frames = round(frames * said / there)
    return frames
