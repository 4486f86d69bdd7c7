"""A model on its way in: inspected in a process of its own, then loaded beside the calls."""

from __future__ import annotations

import hashlib
import logging
import threading
from pathlib import Path
from typing import Literal, TypeAlias

from serstream.config import ModelSettings
from serstream.emotion.inspection import inspect_apart
from serstream.emotion.loading import load_version
from serstream.emotion.model import EmotionModel
from serstream.emotion.store import SUMS_FILE, ModelStore, Reference, read_file
from serstream.errors import ModelError
from serstream.service.loader import Loader

log = logging.getLogger(__name__)

Contents: TypeAlias = set[str]
"""SHA-256 of the sum lists of versions that passed; what was inspected once need not be again."""

Purpose: TypeAlias = Literal["activate", "shadow", "canary"]


class Candidate:
    """Loads at once, in the background.

    Args:
        reference: which version.
        store: where it is.
        settings: ``[model]``: its device.
        inspected: contents that passed before; a new one is added.
        loader: where it is loaded.
        purpose: what it shall be. The repository's pointer says so as soon as it is loaded, so that a daemon
            killed here starts with what was asked for; but a canary that kills the daemon must not come back.
        share: what a shadow or canary shall hear.
        previous: ``name@version`` that the pointer shall name as the one before it, once it is active. What
            the pointer calls active may never have scored: another process writes it, too.
    """

    def __init__(
        self,
        reference: Reference,
        store: ModelStore,
        settings: ModelSettings,
        inspected: Contents,
        loader: Loader,
        purpose: Purpose,
        share: float,
        previous: str,
    ):
        self.reference = reference
        self.purpose = purpose
        self.share = share
        self.model: EmotionModel | None = None
        """Loaded and warm, once `is_done` and unless ``error`` says why not."""
        self.error = ""
        self._store = store
        self._settings = settings
        self._inspected = inspected
        self.previous = previous
        self._done = threading.Event()
        loader.submit(self._run)

    def is_done(self) -> bool:
        """Whether ``model`` or ``error`` is there."""
        return self._done.is_set()

    def _run(self) -> None:
        try:
            self.model = self._load()
        except ModelError as error:
            self.error = str(error)
        except Exception as error:  # whatever a candidate breaks must not reach the calls; counted as refusal
            log.exception("model %s cannot be loaded", self.reference)
            self.error = f"model {self.reference}: {error!r}"
        finally:
            self._done.set()

    def _load(self) -> EmotionModel:
        file = self._store.file(self.reference)
        content = _digest(file.parent)
        if content not in self._inspected:
            inspect_apart(file.parent)
        model = load_version(file, self._settings)
        if _digest(file.parent) != content:
            raise ModelError(f"model {self.reference}: {file.parent} changed while it was loaded")
        self._inspected.add(content)
        if self.purpose == "shadow":
            self._store.set_shadow(self.reference)
        elif self.purpose == "activate":
            self._store.activate(self.reference, self.previous)
        return model


def _digest(folder: Path) -> str:
    """Of everything that the inspection depends on; `load_version` holds the files to the sums."""
    try:
        return hashlib.sha256(read_file(folder / SUMS_FILE)).hexdigest()
    except ModelError:
        return ""  # of nothing that passed: the inspection says what is wrong
