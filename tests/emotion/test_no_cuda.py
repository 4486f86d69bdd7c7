"""A machine without a GPU, for real: ONNX Runtime itself then goes on with the CPU and says nothing."""

import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_model import SPEC

from serstream.config import ModelSettings
from serstream.emotion import session
from serstream.emotion.session import Session
from serstream.errors import ModelError

pytestmark = pytest.mark.skipif(session._has_cuda_driver(), reason="has a CUDA driver: CUDA may be had here")


def test_cuda_that_is_asked_for_and_not_there_is_said_once(
    tiny_model: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    opened = Session(tiny_model.read_bytes(), "m", ModelSettings(device="cuda"))
    for _ in range(3):
        assert opened.run({"features": np.zeros((3, SPEC.n_coeffs, SPEC.n_frames), np.float32)}).shape == (
            3,
            6,
        )
    assert opened.providers == ["CPUExecutionProvider"]
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "model m runs on the CPU from here on: CUDA was asked for and cannot be used" in record.message
    assert re.search(r"used: Failed to load lib\w+\.so.*cannot open shared object file", record.message)
    assert capfd.readouterr() == ("", ""), "nothing reaches the journal but by the log"


@pytest.mark.parametrize("device", ["auto", "cuda", "cpu"])
def test_require_gpu_is_fatal(tiny_model: Path, device: Any) -> None:
    settings = ModelSettings(device=device, require_gpu=True)
    with pytest.raises(ModelError, match="require_gpu wants CUDAExecutionProvider"):
        Session(tiny_model.read_bytes(), "m", settings)


def test_auto_takes_the_cpu_without_a_word(tiny_model: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert Session(tiny_model.read_bytes(), "m", ModelSettings()).providers == ["CPUExecutionProvider"]
    assert not caplog.records
