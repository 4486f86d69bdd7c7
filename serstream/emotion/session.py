"""One ONNX Runtime session on the device that was asked for, or on the CPU when that fails."""

from __future__ import annotations

import ctypes
import io
import logging
from contextlib import redirect_stdout
from functools import lru_cache

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from serstream.config import ModelSettings
from serstream.emotion.inputs import Inputs
from serstream.errors import ModelError

log = logging.getLogger(__name__)

ort.set_default_logger_severity(4)  # it would write past our log

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"

CUDA_SIZES = (1, 2, 4, 8, 16, 32)
"""Batches that run on CUDA, filled up with zeros: every new shape costs a search for its kernels."""
CPU_SIZES = (1, 2, 3, 4, 5, 6, 7, 8)
"""Batches that run on a CPU, where each window is paid for: filling up would cost more than to warm a few
sizes more, and on one thread a larger batch gains nothing."""


class Session:
    """Runs inputs, float32 (batch, ...) each, to ``logits`` (batch, n_labels).

    A CUDA failure, when it is made or while it runs, is logged as an error and moves it to the CPU for good.

    Args:
        content: the model file.
        where: its name, for errors.
        settings: ``[model]``: device, threads and ``require_gpu``.

    Raises:
        ModelError: ONNX Runtime cannot load the model, or not on a GPU although ``require_gpu`` is set.
    """

    def __init__(self, content: bytes, where: str, settings: ModelSettings):
        self._content = content
        self._where = where
        self._settings = settings
        use_cuda = settings.device == "cuda" or (settings.device == "auto" and _has_cuda_driver())
        self._runtime = self._open([CUDA, CPU] if use_cuda else [CPU])
        if settings.require_gpu and CUDA not in self.providers:
            raise ModelError(self._needs_gpu("there is no CUDA driver, or device is 'cpu'"))

    @property
    def providers(self) -> list[str]:
        """Execution providers the session really uses, best first."""
        return list(self._runtime.get_providers())

    @property
    def inputs(self) -> list[tuple[str, str, list[int | str]]]:
        """Name, type and shape of every input; a size that may vary is a name."""
        return [(node.name, node.type, list(node.shape)) for node in self._runtime.get_inputs()]

    @property
    def outputs(self) -> list[tuple[str, str, list[int | str]]]:
        """As ``inputs``."""
        return [(node.name, node.type, list(node.shape)) for node in self._runtime.get_outputs()]

    @property
    def properties(self) -> dict[str, str]:
        """The model file's ``metadata_props``."""
        return dict(self._runtime.get_modelmeta().custom_metadata_map)

    def run(self, inputs: Inputs) -> NDArray[np.float32]:
        """Logits (n, n_labels) of inputs (n, ...), n > 0; what the model does not take is left out.

        Raises:
            ModelError: the model fails, on the CPU or where ``require_gpu`` forbids to fall back to it.
        """
        wanted = {name: inputs[name] for name, _, _ in self.inputs}
        n_windows = min(map(len, wanted.values()))
        logits: list[NDArray[np.float32]] = []
        done = 0
        while done < n_windows:
            end = done + self._sizes[-1]
            logits.append(self._run({name: values[done:end] for name, values in wanted.items()}))
            done += len(logits[-1])
        return np.concatenate(logits)

    def warm_up(self) -> None:
        """Run every batch size once, so that no window pays for what the first run of a size sets up.

        The model's inputs must have fixed sizes behind the batch axis.
        """
        shapes = {name: [int(size) for size in shape[1:]] for name, _, shape in self.inputs}
        for size in self._sizes:
            self.run({name: np.zeros((size, *shape), np.float32) for name, shape in shapes.items()})

    @property
    def _sizes(self) -> tuple[int, ...]:
        return CUDA_SIZES if CUDA in self.providers else CPU_SIZES

    def _run(self, batch: Inputs) -> NDArray[np.float32]:
        try:
            if CUDA in self.providers:
                return self._run_bound(batch)
            logits: NDArray[np.float32] = self._runtime.run(["logits"], batch)[0]
            return logits
        except Exception as error:  # ONNX Runtime's exceptions share no base but Exception
            if CUDA not in self.providers:
                raise ModelError(f"model {self._where}: ONNX Runtime cannot run it: {error}") from error
            self._complain(str(error))
            self._runtime = self._open([CPU])
            self.warm_up()
            return self.run(batch)

    def _run_bound(self, batch: Inputs) -> NDArray[np.float32]:
        """Through IO binding, filled up with zeros to one of the fixed sizes."""
        n_windows = min(map(len, batch.values()))
        size = next(size for size in CUDA_SIZES if size >= n_windows)
        binding = self._runtime.io_binding()
        padded = {name: np.zeros((size, *values.shape[1:]), np.float32) for name, values in batch.items()}
        for name, values in batch.items():
            padded[name][:n_windows] = values
            binding.bind_cpu_input(name, padded[name])
        binding.bind_output("logits", "cpu")
        self._runtime.run_with_iobinding(binding)
        logits: NDArray[np.float32] = binding.copy_outputs_to_cpu()[0][:n_windows]
        return logits

    def _open(self, providers: list[str]) -> ort.InferenceSession:
        missing = _preload_cuda() if CUDA in providers else ""
        options = ort.SessionOptions()
        options.intra_op_num_threads = self._settings.threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 4  # what it has to say comes back as an exception
        try:
            # Its own fallback to the CPU would only print why.
            runtime = ort.InferenceSession(self._content, options, providers=providers, enable_fallback=0)
        except Exception as error:  # ONNX Runtime's exceptions share no base but Exception
            if CUDA in providers:
                self._complain(str(error))
                return self._open([CPU])
            raise ModelError(f"model {self._where}: ONNX Runtime cannot load it: {error}") from error
        # A provider that cannot be loaded is left out in silence: only what it says it uses counts.
        if CUDA in providers and CUDA not in runtime.get_providers():
            reason = missing or "ONNX Runtime left it out without a word"
            self._complain(f"CUDA was asked for and cannot be used: {reason}; install the extra 'cuda'")
        return runtime

    def _complain(self, why: str) -> None:
        if self._settings.require_gpu:
            raise ModelError(self._needs_gpu(why))
        log.error("model %s runs on the CPU from here on: %s", self._where, why)

    def _needs_gpu(self, why: str) -> str:
        return (
            f"model {self._where}: runs on {CPU}, but require_gpu wants {CUDA}: {why}; "
            "install a CUDA driver and serstream with its extra 'cuda', or set require_gpu = false"
        )


def _preload_cuda() -> str:
    """Load CUDA's libraries; the first that cannot be loaded, and why: ONNX Runtime prints that."""
    printed = io.StringIO()
    with redirect_stdout(printed):
        ort.preload_dlls()
    lines = printed.getvalue().splitlines()
    return next((line for line in lines if line.startswith("Failed to load ")), "")


@lru_cache(maxsize=1)
def _has_cuda_driver() -> bool:
    """Whether there is a CUDA driver; trying the CUDA provider without one costs memory and noise."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True
