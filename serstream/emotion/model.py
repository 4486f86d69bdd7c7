"""An ONNX model, its labels and its feature recipe as one checked thing."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from serstream.config import ModelSettings
from serstream.emotion.features import levels_dbfs, mfcc, pad
from serstream.emotion.inputs import Inputs, Listener, alone, shapes
from serstream.emotion.metadata import ModelMetadata
from serstream.emotion.session import Session
from serstream.emotion.store import read_file
from serstream.errors import ModelError
from serstream.types import SAMPLE_RATE, Samples, Scores, SpeechWindow, StreamStart

ON_CPU = ModelSettings(device="cpu")


class EmotionModel:
    """Scores speech windows: inputs of `serstream.emotion.inputs` to ``logits`` (batch, n_labels).

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
        self._listener = Listener(self.metadata.feature_spec)
        self._session.warm_up()
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
        streams = [window.stream for window in windows]
        inputs, sums = self._listener.inputs(streams, features, levels)
        probabilities = self._probabilities(inputs)
        if not np.isfinite(probabilities).all():
            raise ModelError(f"model {self.path}: a window's scores are not finite")
        self._listener.remember(sums)  # not before: windows that fail are scored once more, by another model
        return [
            Scores(labels=self.metadata.labels, probabilities=row, model=self.reference)
            for row in probabilities
        ]

    def forget(self, stream: str) -> None:
        """The stream is over: its speaker baseline is dropped."""
        self._listener.forget(stream)

    def score_samples(self, samples: Samples) -> NDArray[np.float32]:
        """Calibrated probabilities (n_windows, n_labels) of samples (n_windows, spec.n_samples).

        Each window is scored as the first of its stream.
        """
        spec = self.metadata.feature_spec
        return self._probabilities(alone(mfcc(samples, spec), spec))

    def continue_from(self, previous: EmotionModel) -> bool:
        """Take over what ``previous`` has heard of the living streams; False if its features are others."""
        return self._listener.continue_from(previous._listener)

    def _probabilities(self, inputs: Inputs) -> NDArray[np.float32]:
        scaled = self._session.run(inputs) / np.float32(self.metadata.temperature)
        probabilities: NDArray[np.float32] = softmax(scaled, axis=1)
        return probabilities

    def _check_signature(self) -> None:
        spec, labels = self.metadata.feature_spec, self.metadata.labels
        if spec.sample_rate != SAMPLE_RATE:
            raise ModelError(
                f"model {self.path}: feature spec wants {spec.sample_rate} Hz, serstream has {SAMPLE_RATE} Hz"
            )
        made = shapes(spec)
        inputs = self._session.inputs
        if not inputs or not all(_fits(node, node[0], made.get(node[0], [])) for node in inputs):
            wanted = " and ".join(f"{name!r}, {_described(shape)}" for name, shape in made.items())
            raise ModelError(
                f"model {self.path}: inputs are {inputs}, its feature spec wants {wanted}, with any batch"
            )
        outputs = self._session.outputs
        if len(outputs) != 1 or not _fits(outputs[0], "logits", [len(labels)]):
            raise ModelError(
                f"model {self.path}: outputs are {outputs}, its {len(labels)} labels ({', '.join(labels)}) "
                f"want 'logits', {_described([len(labels)])}"
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


def _fits(node: tuple[str, str, list[int | str]], name: str, shape: list[int]) -> bool:
    """Whether it is a float tensor of that name and shape behind a batch axis of any size."""
    own_name, kind, (batch, *rest) = node
    return (own_name, kind, rest) == (name, "tensor(float)", shape) and not isinstance(batch, int)


def _described(shape: list[int]) -> str:
    return f"tensor(float) of shape (batch, {', '.join(map(str, shape))})"
