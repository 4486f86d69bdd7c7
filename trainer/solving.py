"""The ridge of a network in closed form: ridge regression of the labels (Hoerl and Kennard 1970).

Squared error against 0 and 1 with a strong penalty is what a few hundred clips support, and it has a
solution: no epochs, and speakers are left out by subtraction.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import numpy as np
import scipy.linalg
import torch
from numpy.typing import NDArray
from scipy.linalg.blas import ssyrk
from torch import nn

from serstream.emotion.features import FeatureSpec, FloatArray
from serstream.emotion.inputs import FUNCTIONALS
from serstream.errors import ConfigError
from trainer.batches import Targets
from trainer.calls import Calls, as_heard
from trainer.dataset import WindowSet
from trainer.evaluation import MASKED, clip_uar, fit_temperature
from trainer.folds import deal
from trainer.networks import Ridge
from trainer.recipe import Recipe

logger = logging.getLogger(__name__)

PENALTY = 0.1
"""Of both maps, relative to the number of windows, for values of unit variance. Training speakers left out
chose it, of EMO-DB and RAVDESS together, with and without a baseline; those of a single fold are too few."""
HISTORIES = 2
"""Drawn of every window for the map with a baseline."""
GROUPS = 5
"""Of training speakers; each validates once."""
BLOCK = 256
"""Windows drawn at once."""

Values = Callable[[FloatArray], FloatArray]
"""Functionals (n, ...) to what the maps are applied to and a one behind it, (n, n_values + 1)."""


def solve(ridge: Ridge, recipe: Recipe, windows: WindowSet, spec: FeatureSpec) -> float:
    """Solve for the weights of a `Ridge`, in place; the same for the same seed.

    Every window counts once without a baseline, for the first map, and after `HISTORIES` random histories,
    for the second. The scale of each map's logits is what calibrates it on groups of training speakers that
    were left out.

    Args:
        ridge: of the network of the recipe.
        recipe: says the labels, the histories and the seed.
        windows: the training part.
        spec: of its functionals, with the baseline if there is one.

    Returns:
        UAR of the speakers left out, the better map's.

    Raises:
        ConfigError: the training part has only one speaker.
    """
    began = time.perf_counter()
    rng = np.random.default_rng(recipe.training.seed)
    device = ridge.phases.device
    ridge.cpu().fit(torch.from_numpy(windows.functionals), recipe.training.seed)
    part = _Part.of(windows, recipe.labels)

    def values(functionals: FloatArray) -> FloatArray:
        with_constant = nn.functional.pad(ridge.values(torch.from_numpy(functionals)), (0, 1), value=1.0)
        return with_constant.numpy()

    first = as_heard(windows, spec, 0.0)[FUNCTIONALS]
    reached = _solution(ridge.cold, [first], values, part)
    if recipe.baseline is not None and ridge.warm is not None:
        calls, settings = Calls(windows, spec), msgspec.structs.replace(recipe.baseline, cold=0.0)
        rows = np.array_split(np.arange(len(first)), -(-len(first) // BLOCK))
        draws = [
            np.concatenate([calls.draw(block, settings, rng)[FUNCTIONALS] for block in rows])
            for _ in range(HISTORIES)
        ]
        reached = max(reached, _solution(ridge.warm, draws, values, part))
    ridge.to(device)
    logger.info(
        "ridge: solved for from %s windows in %.0f s, UAR of training speakers left out %.1f %%",
        len(first),
        time.perf_counter() - began,
        100 * reached,
    )
    return reached


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """What is known of the training windows."""

    targets: Targets
    clip: NDArray[np.int32]
    """(n_windows,)"""
    group: NDArray[np.int64]
    """Of the window's speaker, (n_windows,)"""
    weight: FloatArray
    """1 on average; in every class of a corpus women and men count the same; (n_windows,)"""
    clean: NDArray[np.bool_]
    """Whether it came over no line: those windows validate; (n_windows,)"""

    @staticmethod
    def of(windows: WindowSet, labels: tuple[str, ...]) -> _Part:
        present = [windows.clips[i] for i in np.unique(windows.clip)]
        groups = deal(present, min(GROUPS, len({clip.speaker for clip in present})))
        if len(groups) < 2:
            raise ConfigError(
                f"the training part has one speaker, {present[0].speaker}; wanted two or more to calibrate by"
            )
        group_of = {speaker: k for k, speakers in enumerate(groups) for speaker in speakers}
        group = np.array([group_of.get(clip.speaker, -1) for clip in windows.clips])
        targets = Targets.of(windows, labels, by_sex=True)
        weight = (targets.weight / np.maximum(np.bincount(windows.clip, minlength=len(group)), 1))[
            windows.clip
        ]
        return _Part(
            targets=targets,
            clip=windows.clip,
            group=group[windows.clip],
            weight=(weight / weight.mean()).astype(np.float32),
            clean=windows.line == 0,
        )


class _Equations:
    """Normal equations, apart for every group of speakers and every set of known labels.

    Of their symmetric left sides only the lower triangles are kept.
    """

    def __init__(self, draws: list[FloatArray], values: Values, part: _Part):
        known = part.targets.known[part.clip]
        self._n_rows = len(known)
        self._groups = np.unique(part.group)
        self._sets, own = np.unique(known, axis=0, return_inverse=True)
        one_hot = np.eye(known.shape[1], dtype=np.float32)[part.targets.label[part.clip]]
        size = values(draws[0][:1]).shape[1]
        self._left = np.zeros((len(self._sets), len(self._groups), size, size))
        self._right = np.zeros((len(self._sets), len(self._groups), size, one_hot.shape[1]))
        for k, g in np.ndindex(len(self._sets), len(self._groups)):
            rows = (own.ravel() == k) & (part.group == self._groups[g])
            root = np.sqrt(part.weight[rows, None] / len(draws))
            for functionals in draws:
                x = values(functionals[rows]) * root
                self._left[k, g] += ssyrk(1.0, x.T, lower=True)
                self._right[k, g] += x.T @ (one_hot[rows] * root)

    def solve(self, penalty: float, without: int | None = None) -> NDArray[np.float64]:
        """Weights (n_values + 1, n_labels), the constant last; each label by the corpora that know it."""
        groups = [g for g, group in enumerate(self._groups) if group != without]
        left, right = self._left[:, groups].sum(axis=1), self._right[:, groups].sum(axis=1)
        ridge = np.full(left.shape[1], penalty * self._n_rows)
        ridge[-1] = 0  # the constant is free
        weights = np.zeros(right.shape[1:])
        for knowing in np.unique(self._sets.T, axis=0):
            labels = (self._sets.T == knowing).all(axis=1)
            if knowing.any():
                weights[:, labels] = scipy.linalg.solve(
                    left[knowing].sum(axis=0) + np.diag(ridge),
                    right[knowing].sum(axis=0)[:, labels],
                    assume_a="pos",
                    lower=True,
                )
        return weights


def _solution(layer: nn.Linear, draws: list[FloatArray], values: Values, part: _Part) -> float:
    """Find the scale by the speakers left out, and give the layer the weights of all; UAR of the former."""
    equations = _Equations(draws, values, part)
    heard, clip, group = values(draws[0][part.clean]), part.clip[part.clean], part.group[part.clean]
    label, known = part.targets.label, part.targets.known
    scores = np.empty((len(clip), known.shape[1]), np.float32)
    for g in np.unique(group):
        scores[group == g] = heard[group == g] @ equations.solve(PENALTY, without=int(g))
    masked: FloatArray = np.where(known[clip], scores, np.float32(MASKED))
    temperature = fit_temperature(masked, label[clip])
    weights = equations.solve(PENALTY) / temperature
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weights[:-1].T))
        layer.bias.copy_(torch.from_numpy(weights[-1]))
    return clip_uar(scores, clip, label, known)
