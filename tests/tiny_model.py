"""A model that is not trained but deterministic, and small enough to be made by every test."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from serstream.emotion.features import FeatureSpec
from serstream.emotion.inputs import shapes
from serstream.emotion.metadata import ModelMetadata

SPEC = FeatureSpec()
LABELS = ("angry", "disgust", "fear", "happy", "neutral", "sad")


def write_model(
    path: Path,
    *,
    spec: FeatureSpec = SPEC,
    labels: tuple[str, ...] = LABELS,
    n_outputs: int | None = None,
    props: dict[str, str] | None = None,
    name: str = "tiny",
    version: int = 1,
    seed: int = 7,
    scale: float = 0.2,
) -> Path:
    """A linear model over the mean of the features, and the functionals if the recipe has them.

    ``props`` replace its metadata entries. With weights of ``scale`` 0 it says of every window the same.
    """
    n_outputs = len(labels) if n_outputs is None else n_outputs
    made = shapes(spec)
    n_heard = sum(shape[0] for shape in made.values())
    weights = np.random.default_rng(seed).normal(0, scale, (n_heard, n_outputs)).astype(np.float32)
    heard = ["mean", *list(made)[1:]]
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["features"], ["mean"], axes=[2], keepdims=0),
            helper.make_node("Concat", heard, ["heard"], axis=1),
            helper.make_node("MatMul", ["heard", "weights"], ["logits"]),
        ],
        "tiny",
        [
            helper.make_tensor_value_info(input_, TensorProto.FLOAT, ["batch", *shape])
            for input_, shape in made.items()
        ],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", n_outputs])],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    metadata = ModelMetadata(
        name=name, version=version, labels=labels, feature_spec=spec, temperature=1.0, licence="CC0-1.0"
    )
    helper.set_model_props(model, metadata.to_props() if props is None else props)
    onnx.save(model, path)
    return path
