"""A candidate that hears what the active model hears, in a thread of its own, and is only compared."""

from __future__ import annotations

import queue
import threading
import time
import zlib
from collections.abc import Sequence
from typing import TypeAlias

from serstream.emotion.model import EmotionModel
from serstream.errors import ModelError
from serstream.service.comparison import Comparison
from serstream.service.status import ShadowStatus
from serstream.types import Scores, SpeechWindow

CAPACITY = 64
"""Batches that may wait; newer ones are skipped and counted: a comparison needs no window in particular."""
CLOSE_TIMEOUT_S = 1.0

Heard: TypeAlias = tuple[Comparison, list[tuple[SpeechWindow, Scores]]]
"""A batch, what the active model said, and the comparison with that model."""


class Shadow:
    """Compares a candidate with the active model.

    All but its loop and ``close`` belongs to the daemon's main thread.

    Args:
        model: the candidate, loaded and warm.
        share: of the streams that `begin`, 0 to 1; it hears no others, so that its speaker baseline knows
            what the active model's does.
    """

    def __init__(self, model: EmotionModel, share: float = 1.0):
        self.failure = ""
        """Why it could not go on scoring; empty while it can. Its loop sets it, or ``close``: both end it."""
        self._model = model
        self._share = share
        self._batches: queue.Queue[Heard | str | None] = queue.Queue()
        """At most `CAPACITY` batches, and the names of the streams in ``_heard`` that are over."""
        self._streams: set[str] = set()
        """Living ones that are its own."""
        self._heard: set[str] = set()
        """Of which it knows anything. A full queue takes no batch, so none is added before it is emptied."""
        self.compare_anew()
        self._thread = threading.Thread(target=self._run, name="shadow", daemon=True)
        self._thread.start()

    @property
    def reference(self) -> str:
        """``name@version`` of the candidate."""
        return self._model.reference

    def compare_anew(self) -> None:
        """Forget the comparison: another model is active."""
        self._skipped = 0
        self._compared = Comparison(self._model.metadata.labels)

    def begin(self, stream: str, *, known: bool = False) -> None:
        """A stream begins, or the candidate knows of its speaker what the active model does."""
        if known:
            self._heard.add(stream)
        if zlib.crc32(stream.encode()) < self._share * 2**32:
            self._streams.add(stream)

    def offer(self, windows: Sequence[SpeechWindow], scores: list[Scores]) -> None:
        """Let the candidate hear a batch too, when it has time. Never waits."""
        heard = [pair for pair in zip(windows, scores, strict=True) if pair[0].stream in self._streams]
        if self.failure or self._batches.qsize() >= CAPACITY:
            self._skipped += len(heard)
        elif heard:
            self._heard.update(window.stream for window, _ in heard)
            self._batches.put((self._compared, heard))

    def forget(self, stream: str) -> None:
        """The stream is over."""
        self._streams.discard(stream)
        if stream in self._heard:
            self._heard.remove(stream)
            self._batches.put(stream)

    def status(self) -> ShadowStatus:
        """The comparison so far."""
        return ShadowStatus(name=self.reference, skipped=self._skipped, **self._compared.figures())

    def close(self) -> None:
        """End it, in any thread, when no other uses it any more; waits a moment for the batch at hand."""
        self._batches.put(None)
        self.failure = self.failure or "closed"
        self._thread.join(CLOSE_TIMEOUT_S)

    def _run(self) -> None:
        while (item := self._batches.get()) is not None:
            if isinstance(item, str):
                self._model.forget(item)
            elif not self.failure:
                self._compare(*item)

    def _compare(self, comparison: Comparison, heard: list[tuple[SpeechWindow, Scores]]) -> None:
        began = time.perf_counter()
        try:
            own = self._model.score([window for window, _ in heard])
        except ModelError as error:
            self.failure = str(error)
            return
        comparison.add(own, [scores for _, scores in heard], time.perf_counter() - began)
