"""From trained weights to one ONNX file that carries its recipe, checked against the network it came from."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch

from serstream.emotion.features import FloatArray
from serstream.emotion.metadata import ModelMetadata
from serstream.errors import ModelError
from trainer.dataset import CLEAN_CONDITION
from trainer.experiment import Workplace
from trainer.networks import Network
from trainer.recipe import Recipe
from trainer.training import Trained

OPSET = 17
PROTOCOL = (
    "5-fold cross-validation by speakers; the weights here were trained by the same recipe on all speakers, "
    "and nothing was chosen with them."
)
TOLERANCE = 1e-4
"""Largest difference of a logit between torch and ONNX Runtime."""


def export(network: Network, metadata: ModelMetadata, path: Path, examples: FloatArray) -> float:
    """Write ``model.onnx``: one file, any batch size, weights and metadata inside.

    Args:
        network: trained.
        metadata: written into the file.
        path: replaced as a whole, or not at all.
        examples: features (n, n_coeffs, n_frames) on which both runtimes must agree.

    Returns:
        The largest difference of a logit.

    Raises:
        ModelError: torch and ONNX Runtime disagree.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".tmp")
    network.eval()
    with warnings.catch_warnings():
        # The graph-tracing exporter writes one self-contained file and needs no further package; torch
        # warns that it will go one day, and that an LSTM may freeze the batch size: checked below.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (torch.from_numpy(examples[:2]),),
            unfinished,
            input_names=["features"],
            output_names=["logits"],
            dynamic_axes={"features": {0: "batch"}, "logits": {0: "batch"}},
            opset_version=OPSET,
            dynamo=False,
        )
    model = onnx.load(unfinished)
    onnx.helper.set_model_props(model, metadata.to_props())
    onnx.checker.check_model(model)
    unfinished.write_bytes(model.SerializeToString())
    difference = _difference(network, unfinished, examples)
    if difference > TOLERANCE:
        raise ModelError(
            f"{path}: torch and ONNX Runtime differ by {difference:.2g}, allowed is {TOLERANCE:.2g}"
        )
    os.replace(unfinished, path)
    return difference


def write_model(
    recipe: Recipe,
    trained: Trained,
    measured: Sequence[Mapping[str, Any]],
    training_data: tuple[str, ...],
    workplace: Workplace,
    folder: Path,
    version: int,
) -> tuple[ModelMetadata, float]:
    """Write the ``model.onnx`` of a trained and measured recipe.

    Args:
        recipe: that was trained.
        trained: its weights.
        measured: metrics.json of each protocol; temperature and threshold come from ``speakers``.
        training_data: corpora with their licences.
        workplace: where the corpora are; both runtimes are compared on all of their clean windows.
        folder: the model's.
        version: its number.

    Returns:
        The metadata, and the largest difference of a logit between the runtimes.
    """
    held_out = next(metrics for metrics in measured if metrics["protocol"] == "speakers")
    metadata = ModelMetadata(
        name=recipe.name,
        version=version,
        labels=recipe.labels,
        feature_spec=trained.spec,
        temperature=held_out["temperature"],
        licence=recipe.licence,
        abstain_below=held_out["abstain_below"],
        training_data=training_data,
        protocol=PROTOCOL,
        metrics={
            f"{metrics['protocol']}, {row['condition']}, after {row['heard_s']:.0f} s: {name}": row[name]
            for metrics in measured
            for row in metrics["modes"]
            for name in row
            if name == "ua" or name.startswith("ua ")
        },
        recipe_sha256=recipe.sha256,
    )
    windows = workplace.windows(recipe, [CLEAN_CONDITION])
    path = folder / "model.onnx"
    difference = export(trained.network, metadata, path, windows.features.astype(np.float32))
    return metadata, difference


def _difference(network: Network, path: Path, examples: FloatArray) -> float:
    """Over batches of several sizes, so that a frozen batch size is noticed."""
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    largest = 0.0
    for begin, end in ((0, 1), (1, 8), (8, len(examples))):
        batch = examples[begin:end]
        if not len(batch):
            continue
        with torch.inference_mode():
            expected = network(torch.from_numpy(batch)).numpy()
        actual = session.run(["logits"], {"features": batch})[0]
        largest = max(largest, float(np.abs(actual - expected).max()))
    return largest
