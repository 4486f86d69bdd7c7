"""CUDA's behaviour without CUDA: a runtime that says it has it, and breaks when it is told to."""

from pathlib import Path
from typing import ClassVar

import numpy as np
import onnxruntime as ort
import pytest
from tiny_model import SPEC

from serstream.config import ModelSettings
from serstream.emotion import session
from serstream.emotion.inputs import Inputs
from serstream.emotion.session import CUDA, Session
from serstream.errors import ModelError

Runtime = ort.InferenceSession


class FakeCuda:
    """Calculates on the CPU and calls it CUDA."""

    broken_at_start = False
    broken = False
    sizes: ClassVar[list[int]] = []
    cpu_sizes: ClassVar[list[int]] = []

    def __init__(
        self, content: bytes, options: ort.SessionOptions, providers: list[str], enable_fallback: int
    ):
        self._runtime = Runtime(content, options, providers=["CPUExecutionProvider"])
        self._providers = providers
        if self.broken_at_start and CUDA in providers:
            raise RuntimeError("CUDA failure 100: no CUDA-capable device is detected")

    def get_providers(self) -> list[str]:
        return self._providers

    def run_with_iobinding(self, binding: object) -> None:
        if self.broken:
            raise RuntimeError("CUDA failure 700: an illegal memory access was encountered")
        self._runtime.run_with_iobinding(binding)
        FakeCuda.sizes.append(binding.copy_outputs_to_cpu()[0].shape[0])

    def run(self, outputs: list[str], inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        FakeCuda.cpu_sizes.append(len(inputs["features"]))
        return self._runtime.run(outputs, inputs)

    def __getattr__(self, name: str) -> object:
        return getattr(self._runtime, name)


@pytest.fixture(autouse=True)
def cuda(monkeypatch: pytest.MonkeyPatch) -> type[FakeCuda]:
    monkeypatch.setattr(ort, "InferenceSession", FakeCuda)
    monkeypatch.setattr(ort, "preload_dlls", lambda: None)
    monkeypatch.setattr(session, "_has_cuda_driver", lambda: True)
    for name in ("broken", "broken_at_start"):
        monkeypatch.setattr(FakeCuda, name, False)
    for name in ("sizes", "cpu_sizes"):
        monkeypatch.setattr(FakeCuda, name, [])
    return FakeCuda


def features(n: int) -> Inputs:
    rows = np.random.default_rng(n).normal(size=(n, SPEC.n_coeffs, SPEC.n_frames))
    return {"features": rows.astype(np.float32)}


def on_cpu(model: Path, n: int) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    return Session(model.read_bytes(), "m", ModelSettings(device="cpu")).run(features(n))


def test_batches_on_cuda_have_fixed_sizes(tiny_model: Path, cuda: type[FakeCuda]) -> None:
    on_cuda = Session(tiny_model.read_bytes(), "m", ModelSettings(device="auto"))
    for n in (1, 3, 8, 33, 70):
        assert np.allclose(on_cuda.run(features(n)), on_cpu(tiny_model, n), atol=1e-6)
    assert cuda.sizes == [1, 4, 8, 32, 1, 32, 32, 8]


def test_batches_on_a_cpu_are_small_and_not_filled_up(tiny_model: Path, cuda: type[FakeCuda]) -> None:
    assert on_cpu(tiny_model, 21).shape == (21, 6)
    assert (cuda.sizes, cuda.cpu_sizes) == ([], [8, 8, 5])


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_every_size_that_is_run_is_warm(tiny_model: Path, cuda: type[FakeCuda], device: str) -> None:
    running = Session(tiny_model.read_bytes(), "m", ModelSettings(device=device))
    running.warm_up()
    warm = len(cuda.sizes), len(cuda.cpu_sizes)
    for n in range(1, 70):
        running.run(features(n))
    for sizes, warmed in zip((cuda.sizes, cuda.cpu_sizes), warm, strict=True):
        assert set(sizes[warmed:]) == set(sizes[:warmed])


def test_cuda_that_breaks_while_it_runs_is_left_once_and_loudly(
    tiny_model: Path, cuda: type[FakeCuda], caplog: pytest.LogCaptureFixture
) -> None:
    running = Session(tiny_model.read_bytes(), "m", ModelSettings(device="cuda"))
    running.run(features(2))
    cuda.broken = True
    for n in (70, 2, 2):
        assert np.allclose(running.run(features(n)), on_cpu(tiny_model, n), atol=1e-6)
    assert cuda.cpu_sizes[:8] == [1, 2, 3, 4, 5, 6, 7, 8], "warm before it scores"
    assert max(cuda.cpu_sizes) == 8
    assert running.providers == ["CPUExecutionProvider"]
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert "model m runs on the CPU from here on: CUDA failure 700" in record.message


def test_cuda_that_cannot_start_is_left_loudly(
    tiny_model: Path, cuda: type[FakeCuda], caplog: pytest.LogCaptureFixture
) -> None:
    cuda.broken_at_start = True
    assert Session(tiny_model.read_bytes(), "m", ModelSettings()).providers == ["CPUExecutionProvider"]
    assert len(caplog.records) == 1
    assert "CUDA failure 100" in caplog.text


@pytest.mark.parametrize("broken", ["broken", "broken_at_start"])
def test_require_gpu_makes_a_failure_fatal(
    tiny_model: Path, cuda: type[FakeCuda], monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    monkeypatch.setattr(FakeCuda, broken, True)
    with pytest.raises(ModelError, match="require_gpu wants CUDAExecutionProvider: CUDA failure"):
        Session(tiny_model.read_bytes(), "m", ModelSettings(require_gpu=True)).run(features(1))
