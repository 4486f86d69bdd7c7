"""From sound to messages: synchronous, without a clock and without threads.

It takes source events and returns messages, so that a recorded call gives the same messages live, replayed
or in a test, however its events are grouped.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from serstream.config import Settings
from serstream.emotion.tracker import Tracker
from serstream.feed.messages import (
    NONE,
    STREAMS_NAMED,
    CallEnded,
    CallStarted,
    Header,
    Message,
    Mute,
    StreamEnded,
    UnscoredReason,
    first_ended,
    rfc3339,
)
from serstream.shedding import admit
from serstream.speech.bank import SegmenterBank
from serstream.speech.quality import quality_fault
from serstream.speech.segmenter import Segment, UtteranceEnd
from serstream.speech.stream import StreamSegmenter
from serstream.types import (
    SAMPLE_RATE,
    AudioBlock,
    AudioChunk,
    Scores,
    SourceEvent,
    SpeechWindow,
    StreamEnd,
    StreamStart,
)

log = logging.getLogger(__name__)

ENDED_CALLS = 10_000
"""Names of calls that are over whose counts are kept, the oldest forgotten first."""


class Scorer(Protocol):
    """A model, or what stands for one."""

    def begin(self, start: StreamStart) -> str:
        """A stream begins; returns ``name@version`` of the model that will score it."""

    def score(self, windows: Sequence[SpeechWindow]) -> list[Scores]:
        """Scores of each window, in order; the windows of one stream are in order."""

    def forget(self, stream: str) -> None:
        """The stream is over."""


class Pipeline:
    """Segments the sound of all streams, scores their windows together and tracks each stream and call."""

    def __init__(self, settings: Settings, model: Scorer):
        self.model = model
        """Each window names the model that scored it; the daemon's exchanges models behind this."""
        self.settings = settings
        """May be exchanged between two calls of `feed`: ``[quality]`` holds at once, the rest for streams
        that begin later."""
        self.stream_limit: int | None = None
        """May be exchanged likewise: so many streams are heard and those that began later are muted, which
        costs next to nothing. None: all are heard."""
        self.n_muted = 0
        """Streams that are muted."""
        self.heard_s = 0.0
        """Seconds of sound so far, over all streams."""
        self.muted_s = 0.0
        """The same of muted streams."""
        self._streams: dict[str, _Stream] = {}
        self._bank = SegmenterBank(settings.segmenter)
        """Of the streams that come in blocks."""
        self._shed: Counter[str] = Counter()
        """Windows that each live stream has lost to overload."""
        self._calls: dict[str, _Call] = {}
        self._counted: dict[str, int] = {}
        """How far calls that are over have counted: the next one of the name counts on, so that a subscriber
        who missed the end of the one before notices."""

    @property
    def n_streams(self) -> int:
        """Streams that are alive."""
        return len(self._streams)

    def feed(self, events: Iterable[SourceEvent]) -> list[Message]:
        """Take what the sources have sent, in order, and return what there is to tell.

        All windows that the events complete are scored in one batch. Events of a stream that was never
        announced are ignored.
        """
        return self.tell(self.segment(events))

    def segment(self, events: Iterable[SourceEvent]) -> list[Step]:
        """The first half of `feed`: cut sound into windows."""
        steps = self._mute()
        for event in events:
            if isinstance(event, AudioBlock):
                self._segment_block(event, steps)
                continue
            if isinstance(event, StreamStart):
                self._streams[event.stream] = _Stream(event, self.settings, self.model.begin(event))
                steps.append((self._streams[event.stream], event))
                continue
            stream = self._streams.get(event.stream)
            if stream is None:
                log.warning("stream %s was never announced, %s ignored", event.stream, type(event).__name__)
            elif isinstance(event, AudioChunk):
                if stream.is_muted:
                    self.muted_s += event.duration_s
                    stream.passed_to = (event.start + len(event.samples)) * SAMPLE_RATE // event.sample_rate
                    continue
                self.heard_s += event.duration_s
                steps += [(stream, segment) for segment in stream.sound.push(event)]
            else:
                steps += [(stream, segment) for segment in stream.sound.flush()]
                steps.append((stream, event))
                self.n_muted -= stream.is_muted
                del self._streams[event.stream]
        return steps

    def _mute(self) -> list[Step]:
        """Mute the streams beyond the limit and hear the others again; what that ends and begins."""
        if self.stream_limit is None and not self.n_muted:
            return []
        limit = self.n_streams if self.stream_limit is None else self.stream_limit
        steps: list[Step] = []
        for place, stream in enumerate(self._streams.values()):
            if stream.is_muted != (place >= limit and not stream.tracker.info.patient):
                steps += [(stream, step) for step in (stream.hear() if stream.is_muted else stream.mute())]
                self.n_muted += 1 if stream.is_muted else -1
        return steps

    def _segment_block(self, block: AudioBlock, steps: list[Step]) -> None:
        """Once for every packet of a busy port: most of it is left to the bank."""
        if self._bank.settings != self.settings.segmenter:
            self._bank = SegmenterBank(self.settings.segmenter)
        segments: list[tuple[int, Segment]] = []
        others: Sequence[int] = range(len(block.streams))
        suits = self._bank.suits(block)
        if suits:
            segments, others = self._bank.push(block)
        steps += [(self._streams[block.streams[place]], segment) for place, segment in segments]
        n_samples, step = block.pcm.shape[1], SAMPLE_RATE // block.sample_rate
        n_heard, n_muted = len(block.streams) - len(others), 0
        for place in others:
            name, start = block.streams[place], block.starts[place]
            stream = self._streams.get(name)
            if stream is None:
                log.warning("stream %s was never announced, sound ignored", name)
                continue
            if stream.is_muted:
                n_muted += 1
                stream.passed_to = (start + n_samples) * step
                continue
            n_heard += 1
            sound = block.pcm[place].tobytes()
            pushed = stream.sound.push_pcm(sound, block.sample_rate, start, block.lost, block.arrived[place])
            steps += [(stream, segment) for segment in pushed]
            if suits:
                stream.sound.join(self._bank)
        self.heard_s += n_heard * n_samples / block.sample_rate
        self.muted_s += n_muted * n_samples / block.sample_rate

    def tell(self, steps: list[Step], limit: int | None = None) -> list[Message]:
        """The second half of `feed`: score the windows and return what there is to tell.

        Args:
            steps: what `segment` has returned.
            limit: windows that there is time to score; what exceeds it is published as unscored. None: all.
        """
        verdicts = self._judge(steps, limit)
        messages: list[Message] = []
        for stream, step in steps:
            if isinstance(step, StreamStart):
                messages += self._start(stream)
            elif isinstance(step, StreamEnd):
                messages += self._end(stream, step)
            elif isinstance(step, UtteranceEnd):
                messages += stream.utterance_ended(step)
            elif isinstance(step, _Muting):
                messages.append(stream.muting_changed(step))
            else:
                messages += stream.tell(step, verdicts[id(step)])
        return messages

    def _judge(self, steps: list[Step], limit: int | None) -> dict[int, Scores | UnscoredReason]:
        """By identity of the window: its scores, or why it has none."""
        verdicts: dict[int, Scores | UnscoredReason] = {}
        scorable = []
        for stream, window in steps:
            if not isinstance(window, SpeechWindow):
                continue
            if not stream.analysed:
                verdicts[id(window)] = "role"
            elif fault := quality_fault(window, self.settings.quality):
                verdicts[id(window)] = fault
            else:
                scorable.append(window)
        if limit is not None and len(scorable) > limit:
            scorable, shed = admit(scorable, limit, self._shed)
            for window in shed:
                verdicts[id(window)] = "overload"
            self._shed.update(window.stream for window in shed)
        return verdicts | dict(zip(map(id, scorable), self.model.score(scorable), strict=True))

    def _start(self, stream: _Stream) -> list[Message]:
        info = stream.tracker.info
        messages: list[Message] = []
        if info.call not in self._calls:
            self._calls[info.call] = _Call(info, stream.tracker.model, self._counted.pop(info.call, 0))
            messages.append(self._calls[info.call].started())
        self._calls[info.call].join(info.stream)
        messages.append(stream.tracker.started())
        return messages

    def _end(self, stream: _Stream, end: StreamEnd) -> list[Message]:
        info = stream.tracker.info
        heard, position = stream.sound, stream.position
        self._shed.pop(info.stream, None)
        self.model.forget(info.stream)
        ended = stream.tracker.ended(end.reason, position, heard.speech, heard.lost, stream.muted_samples)
        messages: list[Message] = [ended]
        call = self._calls[info.call]
        if call.leave(ended, info.started_at + ended.end, stream.tracker.alerts.raised):
            messages.append(call.ended())
            del self._calls[info.call]
            self._counted[info.call] = call.sequence
            if len(self._counted) > ENDED_CALLS:
                del self._counted[next(iter(self._counted))]
        return messages


class _Stream:
    """The state of one stream."""

    def __init__(self, info: StreamStart, settings: Settings, model: str):
        self.sound = StreamSegmenter(info.stream, settings.segmenter)
        self.tracker = Tracker(info, settings.tracker, model, settings.alert)
        self.analysed = info.role != "agent" or settings.privacy.analyse_agents
        """Inferring the emotions of employees at work is prohibited in the EU (AI Act, Art. 5(1)(f))."""
        self.is_muted = False
        """There is no time to hear it."""
        self.passed_to = 0
        """Position at `SAMPLE_RATE` behind the sound that was not heard because it was muted."""
        self._muted_at = 0
        """Position at which it was muted last."""
        self._muted_before = 0
        """Samples during which it was muted, this time not counted."""

    @property
    def position(self) -> int:
        """Samples at `SAMPLE_RATE` since the stream began, heard or not."""
        return max(self.sound.position, self.passed_to)

    @property
    def muted_samples(self) -> int:
        """Samples at `SAMPLE_RATE` during which it was muted."""
        return self._muted_before + (self.position - self._muted_at if self.is_muted else 0)

    def mute(self) -> list[Segment | _Muting]:
        """Hear nothing from here on; what that ends, and the muting."""
        segments = self.sound.flush()
        self.is_muted, self._muted_at = True, self.position
        return [*segments, _Muting(self.position, None)]

    def hear(self) -> list[Segment | _Muting]:
        """Hear what comes; the end of the muting."""
        self._muted_before = self.muted_samples
        self.is_muted = False
        return [_Muting(self._muted_at, self.position)]

    def muting_changed(self, muting: _Muting) -> Mute:
        if muting.end is None:
            return self.tracker.muted(muting.start)
        return self.tracker.heard(muting.start, muting.end)

    def utterance_ended(self, end: UtteranceEnd) -> list[Message]:
        utterance = self.tracker.utterance_ended(end)
        return [utterance] if utterance else []

    def tell(self, window: SpeechWindow, verdict: Scores | UnscoredReason) -> list[Message]:
        if not isinstance(verdict, Scores):
            return [self.tracker.unscored(window, verdict)]
        scored = self.tracker.scored(window, verdict)
        return [scored, *self.tracker.alarmed(scored)]


@dataclass(frozen=True, slots=True)
class _Muting:
    """A stream is not heard between two positions at `SAMPLE_RATE`; without an end, from the first on."""

    start: int
    end: int | None


Step: TypeAlias = tuple[_Stream, StreamStart | Segment | _Muting | StreamEnd]


class _Call:
    """What belongs to one call while a stream of it is alive."""

    def __init__(self, first: StreamStart, model: str, sequence: int):
        self.sequence = sequence
        """Of its next message."""
        self._first = first
        self._model = model
        self._alive: set[str] = set()
        self._ended: dict[str, StreamEnded] = {}
        """Of the last `STREAMS_NAMED` streams to end."""
        self._alerts = 0
        """Raised by all streams that are over."""
        self._ended_at = first.started_at

    def join(self, stream: str) -> None:
        self._alive.add(stream)

    def leave(self, end: StreamEnded, at: float, alerts: int) -> bool:
        """Whether it was the last one."""
        self._alive.discard(end.stream)
        self._ended[end.stream] = end
        if len(self._ended) > STREAMS_NAMED:
            del self._ended[first_ended(self._ended.values())]
        self._alerts += alerts
        self._ended_at = max(self._ended_at, at)
        self._model = end.model
        return not self._alive

    def started(self) -> CallStarted:
        return CallStarted(**self._header(0.0))

    def ended(self) -> CallEnded:
        return CallEnded(
            **self._header(self._ended_at - self._first.started_at),
            streams={name: end.role for name, end in self._ended.items()},
            emotions_s={name: end.emotions_s for name, end in self._ended.items()},
            alerts=self._alerts,
        )

    def _header(self, end_s: float) -> Header:
        sequence = self.sequence
        self.sequence += 1
        return {
            "source": self._first.source,
            "call": self._first.call,
            "stream": NONE,
            "role": "unknown",
            "sequence": sequence,
            "start": 0.0,
            "end": round(end_s, 3),
            "time": rfc3339(self._first.started_at + end_s),
            "model": self._model,
        }
