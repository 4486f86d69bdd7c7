"""What the tests of `Models` need."""

from pathlib import Path

import pytest
from published_model import repository

from serstream.emotion.store import ModelStore, check_sums
from serstream.service import candidate


@pytest.fixture(autouse=True)
def inspected_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, which is quicker; tests/emotion/test_inspection.py has the other one."""
    monkeypatch.setattr(candidate, "inspect_apart", check_sums)


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return repository(tmp_path / "models")
