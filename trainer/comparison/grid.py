"""Grid search as a learner: a network at every point of the grid, and the best of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from serstream.emotion.features import FloatArray
from serstream.emotion.metadata import ModelMetadata
from trainer.comparison.learning import Epoch, NetworkLearner
from trainer.comparison.splits import Split
from trainer.comparison.system import Learning
from trainer.evaluation import Labels


class GridSearch:
    """Trains at every point; validation examples alone choose the one that is tested."""

    def __init__(self, learn: Callable[[Learning], NetworkLearner], points: Sequence[Learning]):
        """Take what is searched.

        Args:
            learn: makes a learner with fresh weights.
            points: the settings that are tried.
        """
        self._learn, self._points = learn, points
        self._best = learn(points[0])

    @property
    def n_parameters(self) -> int:
        """The same at every point."""
        return self._best.n_parameters

    @property
    def settings(self) -> Learning:
        """The point that was chosen."""
        return self._best.settings

    def fit(
        self,
        features: FloatArray,
        label: Labels,
        split: Split,
        checkpoint: Path,
        on_epoch: Callable[[int, Epoch], None],
    ) -> list[Epoch]:
        """Learn at every point, see `Learner.fit`; each has a checkpoint of its own.

        Returns:
            The epochs at the point whose weights have the lowest validation loss.
        """
        least, chosen = float("inf"), []
        for number, settings in enumerate(self._points):
            learner = self._learn(settings)
            own = checkpoint.with_suffix(f".{number}{checkpoint.suffix}")
            history = learner.fit(features, label, split, own, on_epoch)
            losses = [epoch.valid_loss for epoch in history]
            loss = min(losses) if settings.early_stopping else losses[-1]
            if loss < least:
                least, chosen, self._best = loss, history, learner
        return chosen

    def predict(self, features: FloatArray) -> Labels:
        """The most likely label of each by the best, (n,)."""
        return self._best.predict(features)

    def export(self, metadata: ModelMetadata | None, path: Path, examples: FloatArray) -> float:
        """Write the best as ONNX, see `trainer.export.export`."""
        return self._best.export(metadata, path, examples)
