"""What many tests need."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_model import write_model


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "model.onnx")


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """Commands that are called in the tests' own process set up logging for a process of their own."""
    root = logging.getLogger()
    root.setLevel(logging.WARNING)
    filters = {handler: handler.filters[:] for handler in root.handlers}
    yield
    root.handlers[:] = filters
    for handler, before in filters.items():
        handler.filters[:] = before
