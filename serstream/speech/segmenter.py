"""From a stream's sound to speech windows: WebRTC VAD with hysteresis at both ends of an utterance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import webrtcvad
from numpy.typing import NDArray

from serstream.config import SegmenterSettings
from serstream.speech.quality import measure
from serstream.types import SAMPLE_RATE, Samples, SpeechWindow

FRAME_MS = 20
FRAME = SAMPLE_RATE * FRAME_MS // 1000
"""Samples of one VAD frame."""

_INT16_SCALE = 32768.0


@dataclass(frozen=True, slots=True)
class UtteranceEnd:
    """Speech has ended; no window of this utterance follows."""

    stream: str
    utterance: int
    start: int
    """Position of its first sample, pre-roll included."""
    end: int
    """Position behind its last sample, the silence that ended it included."""
    arrived: float = 0.0
    """``AudioChunk.arrived`` of the chunk that ended it."""


Segment: TypeAlias = SpeechWindow | UtteranceEnd


class Segmenter:
    """Cuts one stream into utterances and those into overlapping windows.

    Speech begins after ``start_speech_ms`` of voice without interruption (the utterance then starts
    ``pre_roll_ms`` before its first voiced frame) and ends after ``end_silence_ms`` of silence. While it
    lasts, a window of ``window_ms`` starts every ``hop_ms``. What remains at the end makes a shorter final
    window if at least ``min_speech_ms`` of it, behind the last full window, were voiced.

    Feeding a stream in pieces of any size gives the same segments as feeding it whole.
    """

    def __init__(self, stream: str, settings: SegmenterSettings):
        self._stream = stream
        self._settings = settings
        self._start_frames = max(1, settings.start_speech_ms // FRAME_MS)
        self._end_frames = settings.end_silence_ms // FRAME_MS
        self._pre_roll_frames = settings.pre_roll_ms // FRAME_MS
        self._window_frames = settings.window_ms // FRAME_MS
        self._hop_frames = settings.hop_ms // FRAME_MS
        self._min_speech_frames = settings.min_speech_ms // FRAME_MS
        self.speech = 0
        """Voiced samples so far; `reset` keeps the count."""
        self.lost = 0.0
        """Concealed samples so far; `reset` keeps the count."""
        self.utterances = 0
        """Utterances begun so far."""
        self.reset(0)

    def reset(self, position: int) -> None:
        """Forget all sound, and take the next sample for the one at ``position`` (samples)."""
        self._vad = webrtcvad.Vad(self._settings.aggressiveness)
        self._partial = np.empty(0, np.int16)
        self._partial_lost = 0.0
        self._origin = position
        self._history = _FrameHistory(self._window_frames + self._pre_roll_frames + self._start_frames)
        self._voiced_run = 0
        self._silent_run = 0
        self._speaking = False
        self._utterance_start = 0
        self._next_window = 0
        self._scored_to = 0
        """Frame behind the last emitted window: voice behind it has not been heard by the model."""

    @property
    def position(self) -> int:
        """Position behind the last sample pushed."""
        return self._origin + self._history.end * FRAME + len(self._partial)

    def push(self, samples: Samples, lost: float = 0.0, arrived: float = 0.0) -> list[Segment]:
        """Take the stream's next samples.

        Args:
            samples: float32 mono at ``SAMPLE_RATE``, shape (n,), any n.
            lost: how many of them were concealed.
            arrived: monotonic time at which the last one was received.

        Returns:
            The windows and utterance ends that these samples complete, in order.
        """
        if not len(samples):
            return []
        quantised = np.clip(np.rint(samples * _INT16_SCALE), -32768, 32767).astype(np.int16)
        lost_share = lost / len(samples)
        n_old = len(self._partial)
        pending = np.concatenate([self._partial, quantised]) if n_old else quantised
        n_frames = len(pending) // FRAME
        segments: list[Segment] = []
        pcm = pending[: n_frames * FRAME].tobytes()
        for i in range(n_frames):
            frame = pending[i * FRAME : (i + 1) * FRAME]
            n_new = FRAME - n_old if i == 0 else FRAME
            frame_lost = lost_share * n_new + (self._partial_lost if i == 0 else 0.0)
            voiced = self._vad.is_speech(pcm[2 * i * FRAME : 2 * (i + 1) * FRAME], SAMPLE_RATE)
            self._history.append(frame, voiced, frame_lost)
            self.speech += FRAME if voiced else 0
            self.lost += frame_lost
            self._advance(voiced, arrived, segments)
        rest = len(pending) - n_frames * FRAME
        self._partial_lost = lost_share * min(rest, len(samples)) + (0.0 if n_frames else self._partial_lost)
        self._partial = pending[n_frames * FRAME :].copy()
        return segments

    def flush(self, arrived: float = 0.0) -> list[Segment]:
        """End of the stream: end the utterance that is still going on. A last partial frame is dropped."""
        segments: list[Segment] = []
        if self._speaking:
            self._end_utterance(arrived, segments)
        return segments

    def _advance(self, voiced: bool, arrived: float, segments: list[Segment]) -> None:
        """One frame more has been appended to the history: change state and cut what it completes."""
        now = self._history.end
        self._voiced_run = self._voiced_run + 1 if voiced else 0
        self._silent_run = 0 if voiced else self._silent_run + 1
        if not self._speaking:
            if self._voiced_run >= self._start_frames:
                self._speaking = True
                first_voiced = now - self._voiced_run
                self._utterance_start = max(first_voiced - self._pre_roll_frames, self._history.begin)
                self._next_window = self._scored_to = self._utterance_start
                self.utterances += 1
            else:
                self._history.forget_before(now - self._pre_roll_frames - self._start_frames)
        if self._speaking:
            if now - self._next_window >= self._window_frames:
                segments.append(self._window(now, arrived, final=False))
                self._scored_to = now
                self._next_window += self._hop_frames
                self._history.forget_before(self._next_window)
            if self._silent_run >= self._end_frames:
                self._end_utterance(arrived, segments)

    def _end_utterance(self, arrived: float, segments: list[Segment]) -> None:
        end = self._history.end
        if self._history.voiced(self._scored_to, end) >= max(1, self._min_speech_frames):
            segments.append(self._window(end, arrived, final=True))
        segments.append(
            UtteranceEnd(
                stream=self._stream,
                utterance=self.utterances - 1,
                start=self._origin + self._utterance_start * FRAME,
                end=self._origin + end * FRAME,
                arrived=arrived,
            )
        )
        self._speaking = False
        self._voiced_run = 0
        self._history.forget_before(end)

    def _window(self, end: int, arrived: float, *, final: bool) -> SpeechWindow:
        begin = self._next_window
        samples = self._history.samples(begin, end).astype(np.float32) / np.float32(_INT16_SCALE)
        return SpeechWindow(
            stream=self._stream,
            samples=samples,
            start=self._origin + begin * FRAME,
            end=self._origin + end * FRAME,
            utterance=self.utterances - 1,
            final=final,
            quality=measure(
                samples, self._history.lost(begin, end), self._history.voiced(begin, end) * FRAME
            ),
            speech_so_far=self.speech,
            lost_so_far=self.lost,
            arrived=arrived,
        )


class _FrameHistory:
    """The last frames of a stream as int16 (half the memory of float32), addressed by frame number."""

    def __init__(self, capacity: int):
        self.begin = 0
        """Number of the oldest frame kept."""
        self.end = 0
        """Number of the next frame to come."""
        self._offset = 0
        """Number of the frame in row 0."""
        rows = capacity + capacity // 2
        self._pcm: NDArray[np.int16] = np.empty((rows, FRAME), np.int16)
        self._voiced = np.zeros(rows, np.bool_)
        self._lost = np.zeros(rows, np.float32)

    def append(self, frame: NDArray[np.int16], voiced: bool, lost: float) -> None:
        row = self.end - self._offset
        if row == len(self._pcm):
            row = self._compact()
        self._pcm[row] = frame
        self._voiced[row] = voiced
        self._lost[row] = lost
        self.end += 1

    def forget_before(self, frame: int) -> None:
        self.begin = max(self.begin, frame)

    def samples(self, begin: int, end: int) -> NDArray[np.int16]:
        return self._pcm[begin - self._offset : end - self._offset].reshape(-1)

    def voiced(self, begin: int, end: int) -> int:
        begin = max(begin, self.begin)
        return int(np.count_nonzero(self._voiced[begin - self._offset : end - self._offset]))

    def lost(self, begin: int, end: int) -> float:
        return float(self._lost[begin - self._offset : end - self._offset].sum())

    def _compact(self) -> int:
        """Move what is kept to row 0; amortised over the half of the rows that this frees."""
        kept = slice(self.begin - self._offset, self.end - self._offset)
        n = self.end - self.begin
        for rows in (self._pcm, self._voiced, self._lost):
            rows[:n] = rows[kept].copy()
        self._offset = self.begin
        return n
