"""An ONNX model, its labels and its feature recipe as one checked thing."""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from serstream.config import ModelSettings
from serstream.emotion.baseline import Baselines
from serstream.emotion.features import levels_dbfs, mfcc, pad
from serstream.emotion.metadata import ModelMetadata
from serstream.errors import ModelError
from serstream.shipped import default_model
from serstream.types import SAMPLE_RATE, Samples, Scores, SpeechWindow

log = logging.getLogger(__name__)

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"

MAX_BATCH = 32
"""Windows per ONNX Runtime call; more gains nothing on a CPU and delays the first."""


def load_model(settings: ModelSettings, base: Path = Path()) -> EmotionModel:
    """The model that the configuration asks for, on the device it asks for.

    Args:
        settings: ``[model]``.
        base: folder that a relative ``path`` starts from.

    Raises:
        ModelError: it cannot be loaded, or not on a GPU although ``require_gpu`` is set.
    """
    path = base / settings.path if settings.path else default_model()
    use_cuda = settings.device == "cuda" or (settings.device == "auto" and _has_cuda_driver())
    if use_cuda:
        ort.preload_dlls()
    model = EmotionModel(path, providers=[CUDA, CPU] if use_cuda else [CPU], threads=settings.threads)
    # A session falls back to the CPU in silence: only what it says it uses counts.
    if CUDA not in model.providers:
        if settings.require_gpu:
            raise ModelError(
                f"model {path}: runs on {model.providers[0]}, but require_gpu wants {CUDA}; "
                "install a CUDA driver and 'serstream[cuda]', or set require_gpu = false"
            )
        if use_cuda:
            log.warning("CUDA was asked for, but the model runs on %s", model.providers[0])
    return model


class EmotionModel:
    """Scores speech windows: ``features`` (batch, n_coeffs, n_frames) to ``logits`` (batch, n_labels).

    Raises:
        ModelError: the file is missing, is not ONNX, lacks metadata, or contradicts its metadata.
    """

    def __init__(self, path: Path, *, providers: Sequence[str] = (CPU,), threads: int = 1):
        self.path = path
        if not path.is_file():
            raise ModelError(f"model {path}: no such file; give the path of a model.onnx")
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        try:
            self._session = ort.InferenceSession(str(path), options, providers=list(providers))
        except Exception as error:  # ONNX Runtime's exceptions share no base but Exception
            raise ModelError(f"model {path}: ONNX Runtime cannot load it: {error}") from error
        self.metadata = ModelMetadata.from_props(self._session.get_modelmeta().custom_metadata_map, str(path))
        self._check_signature()
        baseline = self.metadata.feature_spec.baseline
        self._baselines = None if baseline is None else Baselines(baseline)
        self.score_samples(np.zeros((1, self.metadata.feature_spec.n_samples), np.float32))

    @property
    def providers(self) -> list[str]:
        """Execution providers the session really uses, best first."""
        return list(self._session.get_providers())

    def score(self, windows: Sequence[SpeechWindow]) -> list[Scores]:
        """Scores of each window, in order. Windows longer than the model's are cut at their start.

        A model with a speaker baseline hears each window against what it scored of the same stream before.
        """
        if not windows:
            return []
        spec = self.metadata.feature_spec
        samples = np.stack([pad(window.samples[-spec.n_samples :], spec) for window in windows])
        features = mfcc(samples, spec)
        if self._baselines is not None:
            streams = [window.stream for window in windows]
            features = self._baselines.normalise(streams, features, levels_dbfs(samples))
        return [
            Scores(labels=self.metadata.labels, probabilities=row, model=self.metadata.reference)
            for row in self._probabilities(features)
        ]

    def forget(self, stream: str) -> None:
        """The stream is over: its speaker baseline is dropped."""
        if self._baselines is not None:
            self._baselines.forget(stream)

    def score_samples(self, samples: Samples) -> NDArray[np.float32]:
        """Calibrated probabilities (n_windows, n_labels) of samples (n_windows, spec.n_samples).

        Each window is scored as the first of its stream.
        """
        return self._probabilities(mfcc(samples, self.metadata.feature_spec))

    def _probabilities(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        logits = np.concatenate(
            [
                self._session.run(["logits"], {"features": features[i : i + MAX_BATCH]})[0]
                for i in range(0, len(features), MAX_BATCH)
            ]
        )
        scaled = logits / self.metadata.temperature
        exponent = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        probabilities: NDArray[np.float32] = exponent / exponent.sum(axis=1, keepdims=True)
        return probabilities

    def _check_signature(self) -> None:
        spec, labels = self.metadata.feature_spec, self.metadata.labels
        if spec.sample_rate != SAMPLE_RATE:
            raise ModelError(
                f"model {self.path}: feature spec wants {spec.sample_rate} Hz, serstream has {SAMPLE_RATE} Hz"
            )
        inputs = {node.name: node.shape for node in self._session.get_inputs()}
        outputs = {node.name: node.shape for node in self._session.get_outputs()}
        wanted_input, wanted_output = [spec.n_coeffs, spec.n_frames], [len(labels)]
        if list(inputs) != ["features"] or inputs["features"][1:] != wanted_input:
            raise ModelError(
                f"model {self.path}: inputs are {inputs}, its feature spec wants 'features' of shape "
                f"(batch, {spec.n_coeffs}, {spec.n_frames})"
            )
        if list(outputs) != ["logits"] or outputs["logits"][1:] != wanted_output:
            raise ModelError(
                f"model {self.path}: outputs are {outputs}, its {len(labels)} labels ({', '.join(labels)}) "
                f"want 'logits' of shape (batch, {len(labels)})"
            )


def _has_cuda_driver() -> bool:
    """Whether there is a CUDA driver; trying the CUDA provider without one costs memory and noise."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True
