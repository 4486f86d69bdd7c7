"""The fast way for what almost every frame is: one in which nothing begins or ends.

A stream that comes in packets of one frame of telephone sound is put into a row: what its segmenter knows
moves into arrays, and all rows take their next frames together, a few array operations for hundreds of
streams. At a frame with which speech begins or ends, or a window is full, the segmenter goes on from there,
cuts what there is to cut and gives its state back. Both do the same to a frame; the tests hold them together.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

from serstream.config import SegmenterSettings
from serstream.speech.segmenter import FRAME, FRAME_MS, Progress, Segment, Segmenter
from serstream.types import SAMPLE_RATE, AudioBlock

RATE = SAMPLE_RATE // 2
"""Hz, of telephone sound."""

_SAMPLES = RATE * FRAME_MS // 1000
"""Of one frame."""
_ROOM = 2048
"""Rows to begin with: the kernel gives memory only to those that are used."""
_FEW = 64
"""Rows that are not worth giving back."""
_ROW = np.dtype(
    [
        ("next", np.int64),  # where the stream goes on, samples at `RATE`
        ("begin", np.int64),  # this and the following as in `Progress`
        ("end", np.int64),
        ("voiced_run", np.int64),
        ("silent_run", np.int64),
        ("speaking", np.bool_),
        ("next_window", np.int64),
        ("speech", np.int64),
    ]
)


class SegmenterBank:
    """Segmenters side by side, of streams whose sound comes in `AudioBlock`s.

    Args:
        settings: of the segmenters that it takes.
    """

    def __init__(self, settings: SegmenterSettings):
        self.settings = settings
        self._start_frames = max(1, settings.start_speech_ms // FRAME_MS)
        self._end_frames = settings.end_silence_ms // FRAME_MS
        self._window_frames = settings.window_ms // FRAME_MS
        self._idle_frames = settings.pre_roll_ms // FRAME_MS + self._start_frames
        self._n_slots = max(self._window_frames, self._idle_frames) + 1
        """Frames kept of a stream: all that a segment may begin with, and the newest."""
        self._row_of: dict[str, int] = {}
        """By name of the stream."""
        self._segmenter_of: dict[int, Segmenter] = {}
        """By row."""
        self._is_speech: dict[int, Callable[[bytes, int, int], bool]] = {}
        """Likewise, because looking it up in the segmenter would cost as much as the rest."""
        self._free: list[int] = []
        """The lowest is the last."""
        self._n_touched = 0
        """Rows that take up memory, from the first on."""
        self._rows = np.zeros(0, _ROW)
        self._voiced = np.zeros((0, self._n_slots), np.bool_)
        """Frame ``n`` is in slot ``n % n_slots``."""
        self._pcm = np.zeros((0, self._n_slots, _SAMPLES), np.int16)
        """Likewise."""

    def __len__(self) -> int:
        """Streams in rows."""
        return len(self._row_of)

    def take(self, segmenter: Segmenter, position: int) -> bool:
        """Put a stream that goes on at a position (samples at `RATE`) into a row, if it fits into one."""
        if segmenter.sample_rate != RATE or not segmenter.is_whole or segmenter.settings != self.settings:
            return False
        if not self._free:
            self._resize(max(_ROOM, 2 * len(self._rows)))
        row = self._free.pop()
        self._n_touched = max(self._n_touched, row + 1)
        self._row_of[segmenter.stream] = row
        self._segmenter_of[row] = segmenter
        self._is_speech[row] = segmenter.is_speech
        progress = segmenter.suspend()
        self._store(row, progress, position)
        frames = np.frombuffer(progress.pcm, np.int16).reshape(-1, _SAMPLES)[-self._n_slots :]
        slots = np.arange(progress.end - len(frames), progress.end) % self._n_slots
        self._pcm[row, slots] = frames
        self._voiced[row, slots] = np.frombuffer(progress.voiced, np.bool_)[-self._n_slots :]
        return True

    def give_back(self, segmenter: Segmenter) -> int:
        """Take a stream out of its row; its segmenter knows all again. Returns where the stream goes on."""
        row = self._row_of.pop(segmenter.stream)
        self._restore(row)
        position = int(self._rows["next"][row])
        del self._segmenter_of[row], self._is_speech[row]
        self._free.append(row)
        if not self._row_of:
            self._resize(0)
        elif self._n_touched > max(_FEW, 4 * len(self)):
            self._resize(max(_ROOM, 2 * len(self)))
        return position

    @staticmethod
    def suits(block: AudioBlock) -> bool:
        """Whether it holds one whole frame of telephone sound of each stream."""
        return block.pcm.shape[1] == _SAMPLES and block.sample_rate == RATE and not block.lost

    def push(self, block: AudioBlock) -> tuple[list[tuple[int, Segment]], list[int]]:
        """Take the next frames of streams in rows, from a block that suits.

        Returns:
            The segments that they complete, each with its stream's place in the block; and the places of the
            streams that are in no row, or whose sound is not their row's next frame.
        """
        rows = np.fromiter(map(self._row_of.get, block.streams, repeat(-1)), np.int64, len(block.streams))
        fits = rows >= 0
        fits[fits] = self._rows["next"][rows[fits]] == np.asarray(block.starts)[fits]
        places = np.flatnonzero(fits)
        segments = self._advance(rows[places], places, block) if len(places) else []
        return segments, np.flatnonzero(~fits).tolist()

    def _advance(
        self, rows: NDArray[np.int64], places: NDArray[np.int64], block: AudioBlock
    ) -> list[tuple[int, Segment]]:
        pcm = block.pcm[places]
        sound, size = pcm.tobytes(), pcm[0].nbytes
        detectors = map(self._is_speech.__getitem__, rows.tolist())
        judged = [
            is_speech(sound[begin : begin + size], RATE, _SAMPLES)
            for is_speech, begin in zip(detectors, range(0, len(sound), size), strict=True)
        ]
        voiced = np.array(judged)
        state = self._rows[rows]
        slots = state["end"] % self._n_slots
        self._pcm[rows, slots] = pcm
        self._voiced[rows, slots] = voiced
        state["next"] += _SAMPLES
        state["end"] += 1
        state["voiced_run"] = (state["voiced_run"] + 1) * voiced
        state["silent_run"] = (state["silent_run"] + 1) * ~voiced
        state["speech"] += FRAME * voiced
        is_full = state["end"] - state["next_window"] >= self._window_frames
        is_over = state["silent_run"] >= self._end_frames
        begins = state["voiced_run"] >= self._start_frames
        eventful = np.where(state["speaking"], is_full | is_over, begins)
        self._rows[rows[~eventful]] = state[~eventful]
        segments: list[tuple[int, Segment]] = []
        for n in np.flatnonzero(eventful).tolist():
            row, place = int(rows[n]), int(places[n])
            segmenter = self._segmenter_of[row]
            self._restore(row)
            cut = segmenter.push_judged(sound[n * size : (n + 1) * size], judged[n], block.arrived[place])
            segments += [(place, segment) for segment in cut]
            self._store(row, segmenter.suspend(), int(state["next"][n]))
        return segments

    def _store(self, row: int, progress: Progress, position: int) -> None:
        """What the segmenter knows but for its frames, which are in their slots."""
        *numbers, _, _ = progress
        self._rows[row] = (position, *numbers)

    def _restore(self, row: int) -> None:
        """Let the segmenter know all that the row does."""
        _, begin, end, voiced_run, silent_run, speaking, next_window, speech = self._rows[row].item()
        begin = max(begin, end - (self._window_frames if speaking else self._idle_frames))
        slots = np.arange(begin, end) % self._n_slots
        pcm, voiced = self._pcm[row, slots].tobytes(), self._voiced[row, slots].tobytes()
        progress = Progress(begin, end, voiced_run, silent_run, speaking, next_window, speech, pcm, voiced)
        self._segmenter_of[row].resume(progress)

    def _resize(self, n_rows: int) -> None:
        """Have so many rows, with the streams in the first of them."""
        used = list(self._row_of.values())
        for name in ("_rows", "_voiced", "_pcm"):
            old = getattr(self, name)
            new = np.zeros((n_rows, *old.shape[1:]), old.dtype)
            new[: len(used)] = old[used]
            setattr(self, name, new)
        self._is_speech = {new: self._is_speech[old] for new, old in enumerate(used)}
        self._segmenter_of = {new: self._segmenter_of[old] for new, old in enumerate(used)}
        self._row_of = {name: row for row, name in enumerate(self._row_of)}
        self._free = list(range(n_rows - 1, len(used) - 1, -1))
        self._n_touched = len(used)
