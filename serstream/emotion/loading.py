"""From the configuration to a model that may score calls."""

from __future__ import annotations

import logging
from pathlib import Path

from serstream.config import ModelSettings
from serstream.emotion.golden import FILE_NAME, GoldenClips
from serstream.emotion.model import EmotionModel
from serstream.emotion.store import MODEL_FILE, Reference, check_sums, open_store
from serstream.errors import ModelError

log = logging.getLogger(__name__)


def load_model(settings: ModelSettings, base: Path = Path()) -> EmotionModel:
    """The model to start with: the one file that is configured, or the repository's active version.

    If that cannot be loaded, the previous version is, and an error logged: a monitor that hears with
    yesterday's model is worth more than none.

    Args:
        settings: ``[model]``.
        base: folder that relative paths start from.

    Raises:
        ModelError: neither can be loaded.
    """
    return load_or_fall_back(settings, base)[0]


def load_or_fall_back(settings: ModelSettings, base: Path) -> tuple[EmotionModel, str]:
    """As `load_model`, and why it is not the repository's active version; empty: it is, or the one file."""
    if settings.path:
        return EmotionModel(base / settings.path, settings), ""
    store = open_store(settings, base)
    pointer = store.pointer()
    try:
        return load_version(store.file(Reference.parse(pointer.active)), settings), ""
    except ModelError as error:
        if pointer.previous is None:
            raise
        log.error("%s; going on with %s", error, pointer.previous)
        return load_version(store.file(Reference.parse(pointer.previous)), settings), str(error)


def load_version(file: Path, settings: ModelSettings) -> EmotionModel:
    """A published version: complete, unchanged, in its place, and scoring as it did when published.

    Args:
        file: its model.onnx.
        settings: ``[model]``.

    Raises:
        ModelError: it is not.
    """
    check_sums(file.parent)
    model = EmotionModel(file, settings)
    place = f"{file.parent.parent.name}@{file.parent.name}"
    if model.reference != place:
        raise ModelError(
            f"model {file}: calls itself {model.reference}, its folder says {place}; "
            f"publish it instead of copying {MODEL_FILE}"
        )
    GoldenClips.read(file.with_name(FILE_NAME)).check(model)
    return model
