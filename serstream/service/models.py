"""Which model scores: the one owner of the active model, of its exchange and of its comparison.

The daemon asks between two batches; what takes time happens in a `Candidate` and a `Shadow` beside the calls.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from serstream.config import ModelSettings
from serstream.emotion.model import EmotionModel
from serstream.emotion.store import ModelStore, Reference, open_store
from serstream.errors import ControlError, ModelError
from serstream.feed.messages import NONE, Message, ModelChanged, ModelRefused, ShadowReport, rfc3339
from serstream.service.candidate import Candidate, Contents
from serstream.service.control import ModelStatus, Refusal
from serstream.service.shadow import Shadow
from serstream.types import Scores, SpeechWindow

log = logging.getLogger(__name__)

REPORT_INTERVAL_S = 5.0
"""How often a shadow's comparison is published."""
LOOK_INTERVAL_S = 5.0
"""How often ``auto_activate`` looks for a new version."""


class Models:
    """Belongs to the daemon's main thread. What the pipeline calls is what the active model would answer.

    Args:
        settings: ``[model]``.
        base: folder of the configuration file.
        active: loaded from them.
        now: monotonic seconds.
    """

    def __init__(self, settings: ModelSettings, base: Path, active: EmotionModel, now: float):
        self.active = active
        self._settings = settings
        self._store: ModelStore | None = None if settings.path else open_store(settings, base)
        self._inspected: Contents = set()
        self._standby: EmotionModel | None = None
        """The model before, while it is known to work: takes over when the active one fails on a window."""
        self._failed: tuple[str, str] | None = None
        """What it took over from, and why; not yet told."""
        self._candidate: Candidate | None = None
        self._shadow: Shadow | None = None
        self._previous = self._store.pointer().previous or "" if self._store else ""
        self._swaps = 0
        self._refusals = 0
        self._refusal: Refusal | None = None
        self._sequence = 0
        self._began = self._next_look = self._next_report = now
        self._newest = max(
            Reference.parse(text).version
            for text in (active.reference, self._previous)
            if text.partition("@")[0] == active.metadata.name
        )
        """``auto_activate`` tries only versions above it, each once, and none that was rolled back."""
        if self._store and (shadow := self._store.pointer().shadow):
            self._candidate = Candidate(
                Reference.parse(shadow), self._store, settings, self._inspected, shadow=True
            )

    def score(self, windows: Sequence[SpeechWindow]) -> list[Scores]:
        """By the active model; a shadow may hear the same windows later, and never in their way.

        Raises:
            ModelError: the active model fails, and so does, or is missing, the one before.
        """
        try:
            scores = self.active.score(windows)
        except ModelError as error:
            if self._standby is None:
                raise
            self._fall_back(self._standby, str(error))
            scores = self.active.score(windows)
        if self._shadow:
            self._shadow.offer(windows, scores)
        return scores

    def forget(self, stream: str) -> None:
        """The stream is over."""
        self.active.forget(stream)
        if self._shadow:
            self._shadow.forget(stream)

    @property
    def reference(self) -> str:
        """``name@version`` of the active model."""
        return self.active.reference

    def activate(self, model: str) -> str:
        """Begin to load a version that shall become active.

        Returns:
            Its ``name@version``.

        Raises:
            ControlError: another one is being loaded, or the configuration names a single file.
            ModelError: there is no such version.
        """
        return self._begin(model, shadow=False)

    def rollback(self) -> str:
        """As `activate`, for the model that was active before."""
        if not self._previous:
            raise ControlError("no model was active before this one; use 'serstream models activate NAME@V'")
        return self._begin(self._previous, shadow=False)

    def set_shadow(self, model: str) -> str:
        """As `activate`, for the comparison; an empty name ends it."""
        if model:
            return self._begin(model, shadow=True)
        ended = self._shadow.reference if self._shadow else ""
        self._writable_store().set_shadow(None)
        self._end_shadow()
        return ended

    def reread_pointer(self) -> None:
        """Follow what another process has written into the repository."""
        if self._store is None:
            return
        try:
            pointer = self._store.pointer()
            if pointer.active != self.reference:
                self._begin(pointer.active, shadow=False)
        except (ModelError, ControlError) as error:
            log.error("%s; %s stays active", error, self.reference)

    def poll(self, now: float, utc: float) -> list[Message]:
        """Exchange the model if the next one is ready, and tell what there is to tell.

        Args:
            now: monotonic seconds.
            utc: seconds since the Unix epoch.
        """
        messages: list[Message] = []
        if self._failed:
            (failed, reason), self._failed = self._failed, None
            messages += [self._refuse(failed, reason, now, utc), self.announce(now, utc, failed)]
        if self._candidate and self._candidate.is_done():
            candidate, self._candidate = self._candidate, None
            messages.append(self._decide(candidate, now, utc))
        if self._settings.auto_activate and now >= self._next_look:
            self._next_look = now + LOOK_INTERVAL_S
            self._look()
        if self._shadow and now >= self._next_report:
            self._next_report = now + REPORT_INTERVAL_S
            if self._shadow.failure:
                messages.append(self._refuse(self._shadow.reference, self._shadow.failure, now, utc))
                self._end_shadow()
            else:
                messages.append(self._report(self._shadow, now, utc))
        return messages

    def announce(self, now: float, utc: float, previous: str = "") -> ModelChanged:
        """The message that names the active model."""
        return ModelChanged(
            **self._header(now, utc),
            previous=previous,
            labels=self.active.metadata.labels,
            providers=tuple(self.active.providers),
        )

    def status(self) -> ModelStatus:
        """For the control endpoint."""
        return ModelStatus(
            name=self.reference,
            path=str(self.active.path),
            labels=self.active.metadata.labels,
            providers=tuple(self.active.providers),
            previous=self._previous,
            loading=str(self._candidate.reference) if self._candidate else "",
            swaps=self._swaps,
            refusals=self._refusals,
            refusal=self._refusal,
            shadow=self._shadow.status() if self._shadow else None,
        )

    def close(self) -> None:
        """End the comparison."""
        self._end_shadow()

    def _begin(self, text: str, shadow: bool) -> str:
        store = self._writable_store()
        if self._candidate:
            raise ControlError(f"{self._candidate.reference} is being loaded; ask again when it is done")
        reference = store.resolve(text)
        store.file(reference)  # so that who asks for what is not there hears it at once
        self._candidate = Candidate(reference, store, self._settings, self._inspected, shadow)
        return str(reference)

    def _writable_store(self) -> ModelStore:
        if self._store is None:
            raise ControlError(
                f"model.path names one file, {self.active.path}; remove it from the configuration and set "
                "model.repository to change models while the daemon runs"
            )
        return self._store

    def _decide(self, candidate: Candidate, now: float, utc: float) -> Message:
        if candidate.model is None:
            return self._refuse(str(candidate.reference), candidate.error, now, utc)
        if candidate.shadow:
            self._end_shadow()
            self._shadow = Shadow(candidate.model, self._settings.shadow_share)
            self._next_report = now + REPORT_INTERVAL_S
            return self._report(self._shadow, now, utc)
        before, self.active = self.active, candidate.model
        self.active.continue_from(before)
        if before.reference != self.reference:
            self._previous = before.reference
            self._standby = before
        if self._shadow and self._shadow.reference == self.reference:
            self._end_shadow()
        self._swaps += 1
        log.info("model %s is active on %s", self.reference, self.active.providers[0])
        return self.announce(now, utc, before.reference)

    def _fall_back(self, standby: EmotionModel, reason: str) -> None:
        failed, self.active, self._standby = self.active, standby, None
        self.active.continue_from(failed)
        self._previous = failed.reference
        self._failed = failed.reference, reason
        self._swaps += 1
        try:
            self._writable_store().activate(Reference.parse(self.reference))
        except ModelError as error:  # the calls go on; the next start tries the failed one first
            log.error("%s", error)

    def _refuse(self, model: str, reason: str, now: float, utc: float) -> ModelRefused:
        self._refusals += 1
        self._refusal = Refusal(model, reason, rfc3339(utc))
        log.error("model %s refused, %s stays active: %s", model, self.reference, reason)
        return ModelRefused(**self._header(now, utc), candidate=model, reason=reason)

    def _report(self, shadow: Shadow, now: float, utc: float) -> ShadowReport:
        status = shadow.status()
        return ShadowReport(
            **self._header(now, utc),
            candidate=status.name,
            windows=status.windows,
            skipped=status.skipped,
            agreement=status.agreement,
            confidence_shift=status.confidence_shift,
            latency_ms=status.latency_ms,
            emotions=status.emotions,
        )

    def _look(self) -> None:
        if self._candidate or self._store is None:
            return
        newest = self._store.resolve(self.active.metadata.name)
        if newest.version > self._newest:
            self._newest = newest.version
            self._begin(str(newest), shadow=False)

    def _end_shadow(self) -> None:
        if self._shadow:
            self._shadow.close()
            self._shadow = None

    def _header(self, now: float, utc: float) -> dict[str, Any]:
        sequence = self._sequence
        self._sequence += 1
        age = max(0.0, now - self._began)
        return {
            "source": "serstream",
            "call": NONE,
            "stream": NONE,
            "role": "unknown",
            "sequence": sequence,
            "start": age,
            "end": age,
            "time": rfc3339(utc),
            "model": self.reference,
        }
