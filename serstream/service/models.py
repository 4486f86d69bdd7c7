"""Which model scores: the one owner of the active model, of its exchange and of its comparison.

The daemon asks between two batches; what takes time happens in a `Loader` and a `Shadow` beside the calls.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from serstream.config import ModelSettings
from serstream.emotion.model import EmotionModel
from serstream.emotion.store import ModelStore, Reference, open_store
from serstream.errors import ControlError, ModelError
from serstream.feed.messages import (
    CanaryReport,
    Header,
    Message,
    ModelChanged,
    ModelRefused,
    ShadowReport,
    daemon_header,
    rfc3339,
)
from serstream.pacing import ALWAYS
from serstream.service.canary import Canary
from serstream.service.candidate import Candidate, Contents, Purpose
from serstream.service.loader import Loader
from serstream.service.new_versions import NewVersions
from serstream.service.shadow import Shadow
from serstream.service.status import ModelStatus, Refusal
from serstream.types import Scores, SpeechWindow, StreamStart

log = logging.getLogger(__name__)

REPORT_INTERVAL_S = 5.0
"""How often the comparison with a shadow or canary is published."""


class Models:
    """Belongs to the daemon's main thread. To the pipeline it is one model, whichever scores a stream.

    Args:
        settings: ``[model]``.
        base: folder of the configuration file.
        active: loaded from them.
        now: monotonic seconds.
        refusal: why ``active`` is not the repository's active version, but the one before; empty: it is.
    """

    def __init__(
        self, settings: ModelSettings, base: Path, active: EmotionModel, now: float, refusal: str = ""
    ):
        self.active = active
        self._settings = settings
        self._store: ModelStore | None = None if settings.path else open_store(settings, base)
        self._inspected: Contents = set()
        self._loader = Loader()
        self._standby: EmotionModel | None = None
        """The model before, while it is known to work: takes over when the active one fails on a window."""
        self._failed: tuple[str, str] | None = None
        """What it took over from, and why; not yet told."""
        self._candidate: Candidate | None = None
        self._shadow: Shadow | None = None
        self._canary: Canary | None = None
        self._calls: dict[str, str] = {}
        """Call of every living stream."""
        self._told_providers = active.providers
        self._previous = self._store.pointer().previous or "" if self._store else ""
        self._fallen_back = bool(refusal)
        """Whether the model before scores, as the one that should failed, until another is activated."""
        if self._store and refusal:
            self._previous = self._store.pointer().active
            self._failed = self._previous, refusal
        self._swaps = 0
        self.refusals = 0
        """Models refused since the start."""
        self._refusal: Refusal | None = None
        self._sequence = 0
        self._began = self._next_report = now
        self._new_versions: NewVersions | None = None
        if self._store and settings.auto_activate:
            known = [Reference.parse(text) for text in (active.reference, self._previous) if text]
            self._new_versions = NewVersions(self._store, known, now)
        shadow = self._store.pointer().shadow if self._store else None
        if self._store and shadow and shadow != self.reference:
            self._load(self._store, Reference.parse(shadow), "shadow", settings.shadow_share)

    def begin(self, start: StreamStart) -> str:
        """A stream begins; returns ``name@version`` of the active model, or of the canary that scores it."""
        new_call = start.call not in self._calls.values()
        self._calls[start.stream] = start.call
        if self._shadow:
            self._shadow.begin(start.stream)
        if self._canary and self._canary.begin(start, new_call):
            return self._canary.reference
        return self.reference

    def score(self, windows: Sequence[SpeechWindow]) -> list[Scores]:
        """By the active model, or by the canary that the stream is pinned to.

        A shadow may hear the same windows later, and never in their way.

        Raises:
            ModelError: the active model fails, and so does, or is missing, the one before.
        """
        began = time.perf_counter()
        try:
            scores = self.active.score(windows)
        except ModelError as error:
            if self._standby is None:
                raise
            self._fall_back(self._standby, str(error))
            scores = self.active.score(windows)
        seconds = time.perf_counter() - began
        if self._shadow:
            self._shadow.offer(windows, scores)
        return self._canary.score(windows, scores, seconds) if self._canary else scores

    def forget(self, stream: str) -> None:
        """The stream is over."""
        self._calls.pop(stream, None)
        self.active.forget(stream)
        if self._shadow:
            self._shadow.forget(stream)
        if self._canary:
            self._canary.forget(stream)

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
        return self._begin(model, "activate")

    def rollback(self) -> str:
        """As `activate`, for the model that was active before."""
        if not self._previous:
            raise ControlError("no model was active before this one; use 'serstream models activate NAME@V'")
        return self._begin(self._previous, "activate")

    def set_shadow(self, model: str) -> str:
        """As `activate`, for the comparison; an empty name ends it."""
        if model:
            return self._begin(str(self._beside(model)), "shadow", self._settings.shadow_share)
        ended = self._shadow.reference if self._shadow else ""
        self._end_shadow()
        try:
            self._writable_store().set_shadow(None)
        except ModelError as error:
            raise ModelError(f"{error}; no shadow is compared any more, until the next start") from error
        return ended

    def set_canary(self, model: str, share: float | None = None) -> str:
        """As `activate`, for a share of the calls that begin; an empty name ends it.

        It does not survive a restart: what has ended the daemon must not come back with it.
        """
        if model:
            return self._begin(str(self._beside(model)), "canary", share or self._settings.canary_share)
        ended = self._canary.reference if self._canary else ""
        self._end_canary()
        return ended

    def reread_pointer(self) -> str:
        """Follow what another process has written into the repository.

        Returns:
            Why that cannot even be tried; empty: it is as it was, or being loaded.
        """
        if self._store is None:
            return ""
        try:
            wanted = self._store.pointer().active
            if wanted != self.reference and not self._activates(wanted):
                self._begin(wanted, "activate")
        except (ModelError, ControlError) as error:
            return f"another model: {error}; {self.reference} stays active"
        return ""

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
        if self.active.providers != self._told_providers:
            messages.append(self.announce(now, utc, self.reference))
        if self._canary and self._canary.failure:
            messages.append(self._refuse(self._canary.reference, self._canary.failure, now, utc))
            self._end_canary()
        if self._candidate and self._candidate.is_done():
            candidate, self._candidate = self._candidate, None
            messages.append(self._decide(candidate, now, utc))
        if self._new_versions and not self._candidate:
            messages += self._try_new(self._new_versions, now, utc)
        if self._shadow and self._shadow.failure:
            messages.append(self._refuse(self._shadow.reference, self._shadow.failure, now, utc))
            self._forget_shadow(self._shadow.reference)
            self._end_shadow()
        if now >= self._next_report:
            self._next_report = now + REPORT_INTERVAL_S
            messages += [self._report(each, now, utc) for each in (self._shadow, self._canary) if each]
        return messages

    def announce(self, now: float, utc: float, previous: str = "") -> ModelChanged:
        """The message that names the active model."""
        self._told_providers = self.active.providers
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
            fallback=self._fallen_back,
            swaps=self._swaps,
            refusals=self.refusals,
            refusal=self._refusal,
            shadow=self._shadow.status() if self._shadow else None,
            canary=self._canary.status() if self._canary else None,
        )

    def close(self) -> None:
        """End the comparison."""
        if self._shadow:
            self._shadow.close()

    def _begin(self, text: str, purpose: Purpose, share: float = 1.0) -> str:
        store = self._writable_store()
        if self._candidate:
            raise ControlError(f"{self._candidate.reference} is being loaded; ask again when it is done")
        reference = store.resolve(text)
        store.file(reference)  # so that who asks for what is not there hears it at once
        self._load(store, reference, purpose, share)
        return str(reference)

    def _load(self, store: ModelStore, reference: Reference, purpose: Purpose, share: float) -> None:
        if self._new_versions:
            self._new_versions.decided(reference)
        previous = self._previous if str(reference) == self.reference else self.reference
        self._candidate = Candidate(
            reference, store, self._settings, self._inspected, self._loader, purpose, share, previous
        )

    def _beside(self, model: str) -> Reference:
        reference = self._writable_store().resolve(model)
        if str(reference) == self.reference:
            raise ControlError(f"{reference} is active: it scores every call already")
        return reference

    def _activates(self, model: str) -> bool:
        return (
            self._candidate is not None
            and self._candidate.purpose == "activate"
            and str(self._candidate.reference) == model
        )

    def _writable_store(self) -> ModelStore:
        if self._store is None:
            raise ControlError(
                f"model.path names one file, {self.active.path}; remove it from the configuration and set "
                "model.repository to change models while the daemon runs"
            )
        return self._store

    def _decide(self, candidate: Candidate, now: float, utc: float) -> Message:
        reference = str(candidate.reference)
        took_over = candidate.purpose != "activate" and reference == self.reference
        if candidate.model is None or took_over:
            if candidate.purpose == "shadow":
                self._forget_shadow(reference)
            reason = candidate.error or "it took over meanwhile, and scores every call"
            return self._refuse(reference, reason, now, utc)
        if candidate.purpose == "shadow":
            self._end_shadow()
            self._shadow = Shadow(candidate.model, candidate.share)
            if candidate.model.continue_from(self.active):
                for stream in self._calls:
                    self._shadow.begin(stream, known=True)
            return self._report(self._shadow, now, utc)
        if candidate.purpose == "canary":
            self._end_canary()
            self._canary = Canary(candidate.model, candidate.share)
            return self._report(self._canary, now, utc)
        before, self.active = self.active, candidate.model
        self._fallen_back = False
        self.active.continue_from(before)
        if before.reference != self.reference:
            self._previous = before.reference
            last, self._standby = [self._standby], before
            self._loader.release(last)
        self._after_exchange()
        licence, provider = self.active.metadata.licence, self.active.providers[0]
        log.info("model %s (licence %s) is active on %s", self.reference, licence, provider)
        return self.announce(now, utc, before.reference)

    def _fall_back(self, standby: EmotionModel, reason: str) -> None:
        failed, self.active, self._standby = self.active, standby, None
        self.active.continue_from(failed)
        self._previous = failed.reference
        self._fallen_back = True
        if self._candidate:
            self._candidate.previous = self.reference  # not what has failed while it was being loaded
        self._failed = failed.reference, reason
        self._after_exchange()
        try:
            self._writable_store().activate(Reference.parse(self.reference), self._previous)
        except ModelError as error:  # the calls go on; the next start tries the failed one first
            log.error("%s", error)

    def _after_exchange(self) -> None:
        """What is active is no candidate; what still is one, is compared with another model now."""
        self._swaps += 1
        if self._shadow and self._shadow.reference == self.reference:
            self._end_shadow()
        if self._canary and self._canary.reference == self.reference:
            self._end_canary()
        if self._shadow:
            self._shadow.compare_anew()
        if self._canary:
            self._canary.compare_anew()

    def _refuse(self, model: str, reason: str, now: float, utc: float) -> ModelRefused:
        self.refusals += 1
        self._refusal = Refusal(model, reason, rfc3339(utc))
        log.error("model %s refused, %s stays active: %s", model, self.reference, reason, extra=ALWAYS)
        return ModelRefused(**self._header(now, utc), candidate=model, reason=reason)

    def _report(self, candidate: Shadow | Canary, now: float, utc: float) -> ShadowReport | CanaryReport:
        kind = ShadowReport if isinstance(candidate, Shadow) else CanaryReport
        figures = msgspec.structs.asdict(candidate.status())
        return kind(**self._header(now, utc), candidate=figures.pop("name"), **figures)

    def _try_new(self, new_versions: NewVersions, now: float, utc: float) -> list[Message]:
        reference = new_versions.due(self.active.metadata.name, now)
        if reference is None:
            return []
        try:
            self._begin(str(reference), "activate")
        except ModelError as error:
            return [self._refuse(str(reference), str(error), now, utc)]
        return []

    def _forget_shadow(self, model: str) -> None:
        """What was refused is not compared by the next start either."""
        store = self._writable_store()
        try:
            if store.pointer().shadow == model:
                store.set_shadow(None)
        except ModelError as error:  # the calls go on
            log.error("%s; the next start compares %s again", error, model)

    def _end_shadow(self) -> None:
        if self._shadow:
            self._loader.submit(self._shadow.close)
            last, self._shadow = [self._shadow], None
            self._loader.release(last)

    def _end_canary(self) -> None:
        if self._canary:
            last, self._canary = [self._canary], None
            self._loader.release(last)

    def _header(self, now: float, utc: float) -> Header:
        sequence = self._sequence
        self._sequence += 1
        return daemon_header(sequence, max(0.0, now - self._began), utc, self.reference)
