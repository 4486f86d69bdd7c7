"""Golden clips: sound that travels with a model, and the scores that the model gave it when it was published.

A machine on which they come out differently runs another model than the one that was judged.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from serstream.emotion.model import EmotionModel
from serstream.errors import ModelError
from serstream.types import INT16_SCALE

FILE_NAME = "golden.npz"

TOLERANCE = 2e-3
"""Largest difference of a probability; TF32 on a GPU needs a tenth of it."""

MAX_CLIPS = 64


class GoldenClips(msgspec.Struct, frozen=True, eq=False):
    """Windows of speech and their scores."""

    samples: NDArray[np.int16]
    """16 kHz mono, shape (n_clips, n_samples)."""
    probabilities: NDArray[np.float32]
    """Shape (n_clips, n_labels)."""

    @staticmethod
    def read(path: Path) -> GoldenClips:
        """Read the file beside a model.

        Raises:
            ModelError: it is missing or not what `to_bytes` makes.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                samples, probabilities = arrays["samples"], arrays["probabilities"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise ModelError(
                f"golden clips {path}: cannot read them: {error}; "
                "publish the model with 'serstream-train publish'"
            ) from error
        kinds = (samples.dtype, samples.ndim, probabilities.dtype, probabilities.ndim)
        if kinds != (np.int16, 2, np.float32, 2) or not 1 <= len(samples) == len(probabilities) <= MAX_CLIPS:
            raise ModelError(
                f"golden clips {path}: samples {samples.dtype} {samples.shape} and probabilities "
                f"{probabilities.dtype} {probabilities.shape}, wanted int16 (n, n_samples) and "
                f"float32 (n, n_labels), n from 1 to {MAX_CLIPS}"
            )
        return GoldenClips(samples, probabilities)

    def to_bytes(self) -> bytes:
        """The file: numpy's npz, without pickles."""
        file = io.BytesIO()
        np.savez(file, samples=self.samples, probabilities=self.probabilities)
        return file.getvalue()

    def check(self, model: EmotionModel, tolerance: float = TOLERANCE) -> None:
        """Score the clips again; no probability may differ by more than ``tolerance``.

        Raises:
            ModelError: they do not fit the model, or come out differently.
        """
        spec, labels = model.metadata.feature_spec, model.metadata.labels
        if self.samples.shape[1] != spec.n_samples or self.probabilities.shape[1] != len(labels):
            raise ModelError(
                f"model {model.path}: golden clips have {self.samples.shape[1]} samples and "
                f"{self.probabilities.shape[1]} scores, the model wants {spec.n_samples} and {len(labels)}"
            )
        scores = model.score_samples(_to_float(self.samples))
        differences = np.abs(scores - self.probabilities).max(axis=1)
        worst = int(differences.argmax())
        # Written so that a score that is not a number fails.
        if not differences[worst] <= tolerance:
            seen, recorded = scores[worst].round(3).tolist(), self.probabilities[worst].round(3).tolist()
            raise ModelError(
                f"model {model.path}: golden clip {worst} scores {seen}, recorded were {recorded}; "
                "this is not the model that was judged, or this machine computes it wrongly"
            )


def _to_float(samples: NDArray[np.int16]) -> NDArray[np.float32]:
    return samples.astype(np.float32) / np.float32(INT16_SCALE)
