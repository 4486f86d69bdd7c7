"""A bad model in the service: refused with its reason, and nothing else changes.

The checks one by one, and the process of their own that they run in: tests/emotion/test_inspection.py.
"""

import shutil
from pathlib import Path

import numpy as np
import pytest
from bad_models import BAD
from published_model import clips, repository
from waiting import until

from serstream.config import ModelSettings
from serstream.emotion.inspection import inspect
from serstream.emotion.loading import load_model
from serstream.emotion.store import Reference
from serstream.errors import ModelError
from serstream.feed.messages import ModelRefused
from serstream.service import candidate
from serstream.service.models import Models
from serstream.types import Quality, SpeechWindow


def refused(models: Models) -> str:
    """Why the daemon did not take tiny@2."""
    try:
        models.activate("tiny@2")
    except ModelError as at_once:
        return str(at_once)
    (message,) = until(lambda: models.poll(1.0, 0.0))
    assert isinstance(message, ModelRefused)
    assert (message.candidate, message.model) == ("tiny@2", "tiny@1")
    refusal = models.status().refusal
    assert refusal and refusal.reason == message.reason
    return message.reason


def test_every_kind_is_refused_with_its_reason_and_the_calls_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidate, "inspect_apart", inspect)
    store = repository(tmp_path / "models")
    good = shutil.copytree(store.file(Reference("tiny", 2)).parent, tmp_path / "good")
    settings = ModelSettings(repository="models", device="cpu")
    models = Models(settings, tmp_path, load_model(settings, tmp_path), now=0.0)
    speech = clips()[0].astype(np.float32) / 32768
    window = SpeechWindow("s", speech, 0, len(speech), 0, False, Quality(0, 0, -26, 1))
    (before,) = models.score([window])
    for bad in BAD:
        folder = store.root / "tiny" / "2"
        shutil.rmtree(folder)
        shutil.copytree(good, folder)
        bad.apply(folder)
        reason = refused(models)
        assert bad.reason in reason or "a version is no link" in reason, bad.name
        (after,) = models.score([window])
        assert np.array_equal(after.probabilities, before.probabilities)
        assert models.reference == store.pointer().active == after.model == "tiny@1"
    assert models.status().swaps == 0
    models.close()
