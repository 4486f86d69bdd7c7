"""The owner of the models, as the daemon has it, over a repository of tiny ones."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from waiting import until

from serstream.config import ModelSettings
from serstream.emotion.loading import load_or_fall_back
from serstream.emotion.model import EmotionModel
from serstream.emotion.store import ModelStore
from serstream.feed.messages import Message
from serstream.service.models import Models
from serstream.types import Quality, SpeechWindow, StreamStart


@contextmanager
def serving(store: ModelStore, **settings: Any) -> Iterator[Models]:
    options = ModelSettings(repository=store.root.name, device="cpu", **settings)
    first, refusal = load_or_fall_back(options, store.root.parent)
    models = Models(options, store.root.parent, first, 0.0, refusal)
    yield models
    models.close()


def settle(models: Models, now: float = 1.0) -> list[Message]:
    """Poll until nothing is being loaded."""
    messages: list[Message] = []

    def is_settled() -> bool:
        messages.extend(models.poll(now, 0.0))
        return not models.status().loading

    assert until(is_settled)
    return messages


def windows(n: int, stream: str = "s") -> list[SpeechWindow]:
    rng = np.random.default_rng(n)
    return [
        SpeechWindow(
            stream,
            rng.normal(0, 0.1, 32_000).astype(np.float32),
            0,
            32_000,
            0,
            False,
            Quality(0, 0, -26, 1),
        )
        for _ in range(n)
    ]


def begin(models: Models, stream: str, call: str) -> str:
    return models.begin(StreamStart(stream, call, "customer", "rtp:5004", 0.0))


@contextmanager
def full_disk() -> Iterator[None]:
    """Meanwhile no file of this process can grow."""
    _, hard = limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def break_model(model: EmotionModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on it scores whatever it hears with what is no number."""
    n_labels = len(model.metadata.labels)
    monkeypatch.setattr(
        model._session, "run", lambda inputs: np.full((len(inputs["features"]), n_labels), np.nan)
    )
