"""From a stream's sound to speech windows: WebRTC VAD with hysteresis at both ends of an utterance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
import webrtcvad
from numpy.typing import NDArray

from serstream.config import SegmenterSettings
from serstream.speech.quality import measure
from serstream.types import INT16_SCALE, SAMPLE_RATE, Samples, SpeechWindow

FRAME_MS = 20
FRAME = SAMPLE_RATE * FRAME_MS // 1000
"""Samples of one VAD frame at `SAMPLE_RATE`."""
RATES = (SAMPLE_RATE // 2, SAMPLE_RATE)
"""Hz at which sound can be segmented. WebRTC VAD works at 8 kHz inside: more says nothing more to it."""

_BYTES = 2
"""Of a sample."""
_SHIFT = 16
"""Frames that are forgotten at once."""


@dataclass(frozen=True, slots=True)
class UtteranceEnd:
    """Speech has ended; no window of this utterance follows."""

    stream: str
    utterance: int
    start: int
    """Position of its first sample, pre-roll included."""
    end: int
    """Position behind its last sample, the silence that ended it included."""


Segment: TypeAlias = SpeechWindow | UtteranceEnd


class Progress(NamedTuple):
    """Where a segmenter is between two frames. Frames are numbered from the last `Segmenter.reset`."""

    begin: int
    """The oldest frame that it may still want."""
    end: int
    """The next frame."""
    voiced_run: int
    """Voiced frames since the last silent one."""
    silent_run: int
    speaking: bool
    next_window: int
    """Frame with which the next window begins, while it is speaking."""
    speech: int
    """`Segmenter.speech`."""
    pcm: bytes
    """16 bits a sample, of frames ``begin`` to ``end``."""
    voiced: bytes
    """One byte for each of these: whether it was speech."""


class Segmenter:
    """Cuts one stream into utterances and those into overlapping windows.

    Speech begins after ``start_speech_ms`` of voice without interruption (the utterance then starts
    ``pre_roll_ms`` before its first voiced frame) and ends after ``end_silence_ms`` of silence. While it
    lasts, a window of ``window_ms`` starts every ``hop_ms``. What remains at the end makes a shorter final
    window if at least ``min_speech_ms`` of it, behind the last full window, were voiced.

    Feeding a stream in pieces of any size gives the same segments as feeding it whole. Positions and counts
    are at `SAMPLE_RATE` whatever the rate of the sound is.
    """

    def __init__(self, stream: str, settings: SegmenterSettings):
        self.stream = stream
        self.settings = settings
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

    def reset(self, position: int, sample_rate: int = SAMPLE_RATE) -> None:
        """Forget all sound, and take the next sample for the one at ``position`` (samples at `SAMPLE_RATE`).

        Args:
            position: of what comes next.
            sample_rate: of what comes next, one of `RATES`.
        """
        self.is_speech = webrtcvad.Vad(self.settings.aggressiveness).is_speech
        """WebRTC's decision on the stream's next frame, from its bytes and rate."""
        self.sample_rate = sample_rate
        """Hz, of what comes next."""
        self._frame_bytes = _BYTES * sample_rate * FRAME_MS // 1000
        self._partial = b""
        self._origin = position
        self._history = _FrameHistory(self._frame_bytes)
        self._voiced_run = 0
        self._silent_run = 0
        self._speaking = False
        self._utterance_start = 0
        self._next_window = 0
        self._scored_to = 0
        """Frame behind the last emitted window: voice behind it has not been heard by the model."""

    @property
    def position(self) -> int:
        """One past the last sample pushed."""
        partial = len(self._partial) // _BYTES * (SAMPLE_RATE // self.sample_rate)
        return self._origin + self._history.end * FRAME + partial

    def push(self, samples: Samples, lost: float = 0.0, arrived: float = 0.0) -> list[Segment]:
        """As `push_pcm`, with float32 samples in [-1, 1], shape (n,)."""
        pcm = np.clip(np.rint(samples * INT16_SCALE), -INT16_SCALE, INT16_SCALE - 1).astype(np.int16)
        return self.push_pcm(pcm.tobytes(), lost, arrived)

    def push_pcm(self, pcm: bytes, lost: float = 0.0, arrived: float = 0.0) -> list[Segment]:
        """Take the stream's next samples.

        Args:
            pcm: mono of 16 bits, any number of samples.
            lost: how many samples of them, at `SAMPLE_RATE`, were concealed.
            arrived: monotonic time at which the last one was received.

        Returns:
            The windows and utterance ends that these samples complete, in order.
        """
        segments: list[Segment] = []
        if lost:
            # What the resampler still holds back all of falls on the next sample.
            self._history.lose(lost, len(self._partial), max(len(pcm), _BYTES))
        pending = self._partial + pcm if self._partial else pcm
        whole = len(pending) - len(pending) % self._frame_bytes
        self._partial = pending[whole:]
        self._history.extend(pending[:whole])
        for begin in range(0, whole, self._frame_bytes):
            frame = pending[begin : begin + self._frame_bytes]
            self._advance(self.is_speech(frame, self.sample_rate), arrived, segments)
        return segments

    def note_clipped(self, positions: NDArray[np.floating], weight: float) -> None:
        """Remember where sound was clipped before it was resampled; call it before that sound is pushed.

        Args:
            positions: of the clipped samples, at `SAMPLE_RATE`.
            weight: samples at `SAMPLE_RATE` that each of them is.
        """
        frames, counts = np.unique((positions - self._origin) // FRAME, return_counts=True)
        by_frame = self._history.clipped_by_frame
        for frame, count in zip(frames.astype(int).tolist(), counts.tolist(), strict=True):
            by_frame[frame] = by_frame.get(frame, 0.0) + weight * count

    def push_judged(self, frame: bytes, voiced: bool, arrived: float) -> list[Segment]:
        """As `push_pcm`, for one frame that `is_speech` has judged already."""
        segments: list[Segment] = []
        self._history.extend(frame)
        self._advance(voiced, arrived, segments)
        return segments

    @property
    def is_whole(self) -> bool:
        """Whether it holds whole frames only, without sound that was lost: all that a `Progress` can say."""
        return not self._partial and not self._history.lost_by_frame

    def suspend(self) -> Progress:
        """Hand over what is to be remembered and forget it until `resume`; only if it `is_whole`."""
        history = self._history
        pcm, voiced = history.take()
        return Progress(
            history.begin,
            history.end,
            self._voiced_run,
            self._silent_run,
            self._speaking,
            self._next_window,
            self.speech,
            pcm,
            voiced,
        )

    def resume(self, progress: Progress) -> None:
        """Go on from there, behind frames in which nothing began or ended."""
        self._history.put(progress.begin, progress.pcm, progress.voiced)
        self._voiced_run, self._silent_run = progress.voiced_run, progress.silent_run
        self.speech = progress.speech

    def flush(self) -> list[Segment]:
        """End of the stream: end the utterance that is still going on. A last partial frame is dropped."""
        segments: list[Segment] = []
        if self._speaking:
            self._end_utterance(arrived=0.0, segments=segments)
        return segments

    def _advance(self, voiced: bool, arrived: float, segments: list[Segment]) -> None:
        """One frame more was judged: change state and cut what it completes. Called 50 times a second."""
        now = self._history.judge(voiced)
        if voiced:
            self.speech += FRAME
            self._voiced_run += 1
            self._silent_run = 0
        else:
            self._voiced_run = 0
            self._silent_run += 1
        if self._history.lost_by_frame:
            self.lost += self._history.lost_by_frame.get(now - 1, 0.0)
        if not self._speaking:
            idle_frames = self._pre_roll_frames + self._start_frames
            if self._voiced_run < self._start_frames:
                if now - self._history.begin > idle_frames + _SHIFT:
                    self._history.forget_before(now - idle_frames)
                return
            self._speaking = True
            self._utterance_start = max(now - idle_frames, self._history.begin)
            self._next_window = self._scored_to = self._utterance_start
            self.utterances += 1
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
                stream=self.stream,
                utterance=self.utterances - 1,
                start=self._origin + self._utterance_start * FRAME,
                end=self._origin + end * FRAME,
            )
        )
        self._speaking = False
        self._voiced_run = 0
        self._history.forget_before(end)

    def _window(self, end: int, arrived: float, *, final: bool) -> SpeechWindow:
        begin = self._next_window
        samples = self._history.samples(begin, end).astype(np.float32) / np.float32(INT16_SCALE)
        return SpeechWindow(
            stream=self.stream,
            samples=samples,
            start=self._origin + begin * FRAME,
            end=self._origin + end * FRAME,
            utterance=self.utterances - 1,
            final=final,
            quality=measure(
                samples,
                min(1.0, self._history.lost(begin, end) / (FRAME * (end - begin))),
                self._history.voiced(begin, end) / (end - begin),
                self._history.clipped(begin, end),
            ),
            speech_so_far=self.speech,
            lost_so_far=self.lost,
            arrived=arrived,
            sample_rate=self.sample_rate,
        )


class _FrameHistory:
    """The last frames of a stream, addressed by frame number.

    Grown and cut byte arrays: an object per frame would cost more than its sound and leave holes in memory.
    """

    def __init__(self, frame_bytes: int) -> None:
        self.begin = 0
        """Number of the oldest frame kept."""
        self.end = 0
        """Number of the next frame to be judged."""
        self.lost_by_frame: dict[int, float] = {}
        """Concealed samples at `SAMPLE_RATE`, of the frames that have any."""
        self.clipped_by_frame: dict[int, float] = {}
        """Likewise, those that were clipped before they were resampled."""
        self._frame_bytes = frame_bytes
        self._offset = 0
        """Number of the frame that the arrays begin with."""
        self._pcm = bytearray()
        self._voiced = bytearray()

    def take(self) -> tuple[bytes, bytes]:
        """Sound and judgements of frames `begin` to `end`, which are dropped."""
        excess = self.begin - self._offset
        pcm, voiced = bytes(self._pcm[excess * self._frame_bytes :]), bytes(self._voiced[excess:])
        self._pcm, self._voiced = bytearray(), bytearray()
        return pcm, voiced

    def put(self, begin: int, pcm: bytes, voiced: bytes) -> None:
        """Hold these frames and no others."""
        self._pcm, self._voiced = bytearray(pcm), bytearray(voiced)
        self.begin = self._offset = begin
        self.end = begin + len(voiced)

    def extend(self, pcm: bytes) -> None:
        """Whole frames have come."""
        self._pcm += pcm

    def judge(self, voiced: bool) -> int:
        """The next of them is speech or not; returns `end`."""
        self._voiced.append(voiced)
        self.end += 1
        return self.end

    def lose(self, lost: float, begin: int, n_bytes: int) -> None:
        """Spread a loss over the frames of the next ``n_bytes``, ``begin`` bytes behind the last frame."""
        behind = begin + n_bytes
        for frame in range((behind - 1) // self._frame_bytes + 1):
            first = frame * self._frame_bytes
            overlap = min(behind, first + self._frame_bytes) - max(begin, first)
            number = self.end + frame
            self.lost_by_frame[number] = self.lost_by_frame.get(number, 0.0) + lost * overlap / n_bytes

    def forget_before(self, frame: int) -> None:
        self.begin = max(self.begin, frame)
        excess = self.begin - self._offset
        if excess >= _SHIFT:
            del self._pcm[: excess * self._frame_bytes], self._voiced[:excess]
            self.lost_by_frame = _since(self.begin, self.lost_by_frame)
            self.clipped_by_frame = _since(self.begin, self.clipped_by_frame)
            self._offset = self.begin

    def samples(self, begin: int, end: int) -> NDArray[np.int16]:
        first, behind = ((frame - self._offset) * self._frame_bytes for frame in (begin, end))
        return np.frombuffer(bytes(self._pcm[first:behind]), np.int16)

    def voiced(self, begin: int, end: int) -> int:
        begin = max(begin, self.begin)
        return sum(self._voiced[begin - self._offset : end - self._offset])

    def lost(self, begin: int, end: int) -> float:
        return _total(self.lost_by_frame, begin, end)

    def clipped(self, begin: int, end: int) -> float:
        return _total(self.clipped_by_frame, begin, end)


def _since(begin: int, by_frame: dict[int, float]) -> dict[int, float]:
    return {frame: count for frame, count in by_frame.items() if frame >= begin}


def _total(by_frame: dict[int, float], begin: int, end: int) -> float:
    return sum(count for frame, count in by_frame.items() if begin <= frame < end)
