"""Study D's classical baseline: a random forest on functionals of MFCC."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx.compose import merge_graphs
from onnx.parser import parse_graph
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.ensemble import RandomForestClassifier

from serstream.emotion.features import FloatArray
from serstream.emotion.metadata import ModelMetadata
from serstream.errors import ModelError
from trainer.comparison.learning import Epoch
from trainer.comparison.splits import Split
from trainer.evaluation import Labels
from trainer.export import OPSET, TOLERANCE
from trainer.whole import whole

N_TREES = 300
OPSETS = {"": OPSET, "ai.onnx.ml": 3}
LEAST = 1e-3
"""Probability that stands for none: a logit must be finite, and a tree is a 300th of the votes."""

_FUNCTIONALS = """
functionals (float[batch, {rows}, {frames}] features) => (float[batch, {both}] functionals) {{
  mean = ReduceMean <axes = [2]> (features)
  from_mean = Sub (features, mean)
  square = Mul (from_mean, from_mean)
  variance = ReduceMean <axes = [2]> (square)
  deviation = Sqrt (variance)
  stacked = Concat <axis = 1> (mean, deviation)
  functionals = Flatten (stacked)
}}"""
_LOGITS = """
logits (float[batch, {labels}] probabilities) => (float[batch, {labels}] logits) {{
  least = Constant <value_float = {least}> ()
  likely = Max (probabilities, least)
  logits = Log (likely)
}}"""


class Forest:
    """``features`` (n, n_coeffs, n_frames) to labels, through their mean and deviation over time."""

    n_parameters = 0
    settings = None

    def __init__(self, seed: int):
        self._trees = RandomForestClassifier(N_TREES, random_state=seed)

    def fit(
        self,
        features: FloatArray,
        label: Labels,
        split: Split,
        checkpoint: Path,
        on_epoch: Callable[[int, Epoch], None],
    ) -> list[Epoch]:
        """Learn from training and validation part; an emotion in neither is never predicted.

        Returns:
            No epochs: trees grow once, so there is nothing to go on from either.
        """
        taught = np.concatenate([split.train, split.valid])
        self._trees.fit(_functionals(features[taught]), label[taught])
        return []

    def logits(self, features: FloatArray) -> FloatArray:
        """Logarithms of the trees' mean probabilities, (n, n_learned)."""
        probabilities = self._trees.predict_proba(_functionals(features))
        logits: FloatArray = np.log(np.maximum(probabilities, LEAST)).astype(np.float32)
        return logits

    def predict(self, features: FloatArray) -> Labels:
        """The most likely label of each, (n,)."""
        predicted: Labels = self._trees.predict(_functionals(features))
        return predicted

    def export(self, metadata: ModelMetadata | None, path: Path, examples: FloatArray) -> None:
        """Write ``model.onnx``, functionals and trees inside.

        Args:
            metadata: written into the file.
            path: replaced as a whole, or not at all.
            examples: features (n, n_coeffs, n_frames) on which ONNX Runtime must agree.

        Raises:
            ModelError: it does not, or an emotion was acted by no speaker that was learned from.
        """
        n_labels = len(self._trees.classes_)
        if metadata is not None and n_labels < len(metadata.labels):
            raise ModelError(
                f"{path}: the forest learned {n_labels} emotions of {len(metadata.labels)}; speakers who are "
                "learned from must have acted all of them"
            )
        _, rows, frames = examples.shape
        size = 2 * rows
        front = _FUNCTIONALS.format(rows=rows, frames=frames, both=size)
        end = _LOGITS.format(labels=n_labels, least=LEAST)
        trees = to_onnx(
            self._trees,
            initial_types=[("functionals", FloatTensorType([None, size]))],
            options={"zipmap": False},
            target_opset=OPSETS,
        )
        graph = merge_graphs(parse_graph(front), trees.graph, [("functionals", "functionals")])
        graph = merge_graphs(
            graph, parse_graph(end), [("probabilities", "probabilities")], outputs=["logits"]
        )
        opsets = [onnx.helper.make_opsetid(domain, version) for domain, version in OPSETS.items()]
        model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=trees.ir_version)
        if metadata is not None:
            onnx.helper.set_model_props(model, metadata.to_props())
        onnx.checker.check_model(model)
        session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        logits = session.run(["logits"], {"features": examples})[0]
        difference = float(np.abs(logits - self.logits(examples)).max())
        if difference > TOLERANCE:
            raise ModelError(f"{path}: scikit-learn and ONNX Runtime differ by {difference:.2g}")
        with whole(path) as unfinished:
            unfinished.write_bytes(model.SerializeToString())


def _functionals(features: FloatArray) -> FloatArray:
    joined: FloatArray = np.concatenate([features.mean(axis=2), features.std(axis=2)], axis=1)
    return joined
