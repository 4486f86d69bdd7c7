"""An ONNX model, its labels and its feature recipe as one checked thing."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from serstream.config import ModelSettings
from serstream.emotion.baseline import Baselines, first_of_streams
from serstream.emotion.features import levels_dbfs, mfcc, pad
from serstream.emotion.metadata import ModelMetadata
from serstream.emotion.session import Session
from serstream.emotion.store import read_file
from serstream.errors import ModelError
from serstream.types import SAMPLE_RATE, Samples, Scores, SpeechWindow, StreamStart

ON_CPU = ModelSettings(device="cpu")


class EmotionModel:
    """Scores speech windows: ``features`` (batch, n_inputs, n_frames) to ``logits`` (batch, n_labels).

    Args:
        path: a model.onnx; it is read once.
        settings: ``[model]``: device, threads and ``require_gpu``.

    Raises:
        ModelError: the file is missing, is not ONNX, lacks metadata, contradicts its metadata, or cannot run
            on the device.
    """

    def __init__(self, path: Path, settings: ModelSettings = ON_CPU):
        self.path = path
        content = read_file(path)
        self.sha256 = hashlib.sha256(content).hexdigest()
        self._session = Session(content, str(path), settings)
        self.metadata = ModelMetadata.from_props(self._session.properties, str(path))
        self._check_signature()
        spec = self.metadata.feature_spec
        self._baselines = None if spec.baseline is None else Baselines(spec.baseline)
        self._session.warm_up(spec.n_inputs, spec.n_frames)
        self._check_finite()

    @property
    def providers(self) -> list[str]:
        """Execution providers the session really uses, best first."""
        return self._session.providers

    @property
    def reference(self) -> str:
        """``name@version``."""
        return self.metadata.reference

    def begin(self, start: StreamStart) -> str:
        """A stream begins; returns the model's ``name@version``. There is nothing to remember of it yet."""
        return self.reference

    def score(self, windows: Sequence[SpeechWindow]) -> list[Scores]:
        """Scores of each window, in order. Windows longer than the model's are cut at their start.

        A model with a speaker baseline hears each window against what it scored of the same stream before.

        Raises:
            ModelError: the model fails on these windows.
        """
        if not windows:
            return []
        spec = self.metadata.feature_spec
        features = np.empty((len(windows), spec.n_coeffs, spec.n_frames), np.float32)
        levels = np.empty(len(windows), np.float32)
        for rate in {window.sample_rate for window in windows}:
            rows = [row for row, window in enumerate(windows) if window.sample_rate == rate]
            longest = spec.window_length(rate)
            samples = np.stack([pad(windows[row].samples[-longest:], spec, rate) for row in rows])
            features[rows], levels[rows] = mfcc(samples, spec, rate), levels_dbfs(samples)
        if self._baselines is not None:
            features = self._baselines.normalise([window.stream for window in windows], features, levels)
        probabilities = self._probabilities(features)
        if not np.isfinite(probabilities).all():
            raise ModelError(f"model {self.path}: a window's scores are not finite")
        return [
            Scores(labels=self.metadata.labels, probabilities=row, model=self.reference)
            for row in probabilities
        ]

    def forget(self, stream: str) -> None:
        """The stream is over: its speaker baseline is dropped."""
        if self._baselines is not None:
            self._baselines.forget(stream)

    def score_samples(self, samples: Samples) -> NDArray[np.float32]:
        """Calibrated probabilities (n_windows, n_labels) of samples (n_windows, spec.n_samples).

        Each window is scored as the first of its stream.
        """
        spec = self.metadata.feature_spec
        features = mfcc(samples, spec)
        return self._probabilities(
            features if spec.baseline is None else first_of_streams(features, spec.baseline)
        )

    def continue_from(self, previous: EmotionModel) -> None:
        """Take over what ``previous`` has heard of the living streams, if its features are the same."""
        own, other = (
            msgspec.structs.replace(model.metadata.feature_spec, baseline=None) for model in (self, previous)
        )
        if self._baselines is not None and previous._baselines is not None and own == other:
            self._baselines.copy(previous._baselines)

    def _probabilities(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        scaled = self._session.run(features) / np.float32(self.metadata.temperature)
        exponent = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        probabilities: NDArray[np.float32] = exponent / exponent.sum(axis=1, keepdims=True)
        return probabilities

    def _check_signature(self) -> None:
        spec, labels = self.metadata.feature_spec, self.metadata.labels
        if spec.sample_rate != SAMPLE_RATE:
            raise ModelError(
                f"model {self.path}: feature spec wants {spec.sample_rate} Hz, serstream has {SAMPLE_RATE} Hz"
            )
        if not _fits(self._session.inputs, "features", [spec.n_inputs, spec.n_frames]):
            raise ModelError(
                f"model {self.path}: inputs are {self._session.inputs}, its feature spec wants 'features', "
                f"tensor(float) of shape (batch, {spec.n_inputs}, {spec.n_frames}) with any batch"
            )
        if not _fits(self._session.outputs, "logits", [len(labels)]):
            raise ModelError(
                f"model {self.path}: outputs are {self._session.outputs}, its {len(labels)} labels "
                f"({', '.join(labels)}) want 'logits', tensor(float) of shape (batch, {len(labels)})"
            )

    def _check_finite(self) -> None:
        """On the extremes that a line can bring."""
        n_samples = self.metadata.feature_spec.n_samples
        noise = np.random.default_rng(0).uniform(-1, 1, n_samples)
        sounds = {"silence": np.zeros(n_samples), "noise": noise, "full scale": np.sign(noise)}
        scores = self.score_samples(np.stack(list(sounds.values())).astype(np.float32))
        for sound, row in zip(sounds, scores, strict=True):
            if not np.isfinite(row).all():
                raise ModelError(
                    f"model {self.path}: scores of {sound} are {row.tolist()}, wanted finite numbers"
                )


def _fits(nodes: list[tuple[str, str, list[int | str]]], name: str, shape: list[int]) -> bool:
    """Whether there is one float tensor of that name and shape behind a batch axis of any size."""
    return (
        len(nodes) == 1
        and nodes[0][:2] == (name, "tensor(float)")
        and nodes[0][2][1:] == shape
        and not isinstance(nodes[0][2][0], int)
    )
