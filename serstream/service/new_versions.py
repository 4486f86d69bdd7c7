"""What ``auto_activate`` tries: new versions in the repository, once they are complete."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable

from serstream.emotion.store import ModelStore, Reference
from serstream.errors import ModelError

log = logging.getLogger(__name__)

LOOK_INTERVAL_S = 5.0
"""How often the repository is looked at."""
COPYING_S = 60.0
"""A new version that is not complete after this is told: whoever copied it waits for it."""


class NewVersions:
    """Newer than every version of the same model that was decided about; each is tried once.

    What was decided is written into the repository before anything comes of it: what ends the daemon, or was
    rolled back, is no news to its next start either.

    Args:
        store: where to look.
        known: versions that are no news, as the active one and the one before.
        now: monotonic seconds.
    """

    def __init__(self, store: ModelStore, known: Iterable[Reference], now: float):
        self._store = store
        self._newest = dict(store.pointer().decided)
        self._copied_since: dict[Reference, float] = {}
        """When each version that is not complete was first seen; infinity once that is told."""
        self._next_look = now
        for reference in known:
            self._raise(reference)

    def decided(self, reference: Reference) -> None:
        """A person activates it, rolls it back or compares it: neither it nor an older one is news."""
        self._raise(reference)
        try:
            self._store.decide(self._newest)
        except ModelError as error:
            log.warning("%s; the next start with auto_activate may try %s", error, reference)

    def due(self, name: str, now: float) -> Reference | None:
        """The newest complete version to be tried now, which counts as decided about from here on.

        Args:
            name: of the active model; its folder is looked at every `LOOK_INTERVAL_S`.
            now: monotonic seconds.
        """
        if now < self._next_look:
            return None
        self._next_look = now + LOOK_INTERVAL_S
        for reference in self._store.newer(Reference(name, self._newest[name])):
            if not (lacking := self._store.lacks(reference)):
                self.decided(reference)
                return reference
            self._tell_incomplete(reference, lacking, now)
        return None

    def _raise(self, reference: Reference) -> None:
        self._newest[reference.name] = max(self._newest.get(reference.name, 0), reference.version)

    def _tell_incomplete(self, reference: Reference, lacking: str, now: float) -> None:
        since = self._copied_since.setdefault(reference, now)
        if now - since >= COPYING_S:
            self._copied_since[reference] = math.inf
            log.warning("model %s is not tried before it is complete: %s", reference, lacking)
