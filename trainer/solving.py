"""Training in closed form: ridge regression of the labels (Hoerl and Kennard 1970).

Squared error against 0 and 1 with a strong penalty is what a few hundred clips support, and it has a
solution: no epochs, and speakers are left out by subtraction.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import scipy.linalg
import torch
from numpy.typing import NDArray
from torch import nn

from serstream.emotion.features import FloatArray
from serstream.emotion.inputs import FUNCTIONALS
from serstream.errors import ConfigError
from trainer import history
from trainer.calls import Calls, as_heard, average_speaker
from trainer.dataset import WindowSet
from trainer.evaluation import clip_scores, fit_temperature, log_softmax, uar
from trainer.folds import deal
from trainer.history import Epoch
from trainer.networks import Ridge
from trainer.recipe import Recipe
from trainer.training import MASKED, Targets, Trained

PENALTY = 0.1
"""Of both maps, relative to the number of windows, for values of unit variance. Training speakers left out
chose it, of EMO-DB and RAVDESS together, with and without a baseline; those of a single fold are too few."""
GROUPS = 5
"""Of training speakers; each validates once."""
BLOCK = 256
"""Windows drawn at once."""

Values = Callable[[FloatArray], FloatArray]
"""Functionals (n, ...) to what the maps are applied to and a one behind it, (n, n_values + 1)."""


def solve(recipe: Recipe, windows: WindowSet, log: Path, on_epoch: Callable[[Epoch], None]) -> Trained:
    """Solve for the weights of a `Ridge` network.

    Every window counts once without a baseline, for the first map, and after ``training.epochs`` random
    histories, for the second. The scale of each map's logits is what calibrates it on groups of training
    speakers that were left out.

    Args:
        recipe: of network ``ridge``.
        windows: the training part.
        log: written at the end; its validation UAR is of the speakers left out, the better map's.
        on_epoch: told about the end.

    Returns:
        The network and the feature spec it needs; the same for the same seed.

    Raises:
        ConfigError: the training part has only one speaker.
    """
    began = time.perf_counter()
    rng = np.random.default_rng(recipe.training.seed)
    spec = recipe.features
    if recipe.baseline is not None:
        spec = msgspec.structs.replace(spec, baseline=average_speaker(windows, spec, recipe.baseline))
    network = Ridge(spec, len(recipe.labels))
    network.fit(torch.from_numpy(windows.functionals), recipe.training.seed)
    part = _Part.of(windows, recipe.labels)

    def values(functionals: FloatArray) -> FloatArray:
        with_constant = nn.functional.pad(network.values(torch.from_numpy(functionals)), (0, 1), value=1.0)
        return with_constant.numpy()

    first = as_heard(windows, spec, 0.0)[FUNCTIONALS]
    solutions = [_solution(network.cold, [first], values, part)]
    if recipe.baseline is not None and network.warm is not None:
        calls, settings = Calls(windows, spec), msgspec.structs.replace(recipe.baseline, cold=0.0)
        rows = np.array_split(np.arange(len(first)), -(-len(first) // BLOCK))
        draws = [
            np.concatenate([calls.draw(block, settings, rng)[FUNCTIONALS] for block in rows])
            for _ in range(recipe.training.epochs)
        ]
        solutions.append(_solution(network.warm, draws, values, part))
    best = max(solutions, key=lambda solution: solution.uar)
    seconds = time.perf_counter() - began
    told = Epoch(recipe.training.epochs, best.loss, best.uar, 0.0, seconds, 0.0)
    history.write(log, [told])
    on_epoch(told)
    return Trained(network.eval(), spec, [told])


@dataclass(frozen=True, slots=True)
class _Solution:
    loss: float
    """Cross-entropy of the windows of speakers left out."""
    uar: float
    """Of their clips, 0 to 1."""


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
    """Normal equations, apart for every group of speakers and every set of known labels."""

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
                self._left[k, g] += x.T @ x
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
                )
        return weights


def _solution(layer: nn.Linear, draws: list[FloatArray], values: Values, part: _Part) -> _Solution:
    """Find the scale by the speakers left out, and give the layer the weights of all."""
    equations = _Equations(draws, values, part)
    heard, clip, group = values(draws[0][part.clean]), part.clip[part.clean], part.group[part.clean]
    label, known = part.targets.label, part.targets.known
    scores = np.empty((len(clip), known.shape[1]), np.float32)
    for g in np.unique(group):
        scores[group == g] = heard[group == g] @ equations.solve(PENALTY, without=int(g))
    clips, of_clips = clip_scores(scores, clip)
    reached = uar(label[clips], np.where(known[clips], of_clips, -np.inf).argmax(axis=1))
    masked: FloatArray = np.where(known[clip], scores, np.float32(MASKED))
    temperature = fit_temperature(masked, label[clip])
    chances = log_softmax((masked / temperature).astype(np.float32))
    loss = -chances[np.arange(len(clip)), label[clip]].mean()
    weights = equations.solve(PENALTY) / temperature
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weights[:-1].T))
        layer.bias.copy_(torch.from_numpy(weights[-1]))
    return _Solution(float(loss), reached)
