"""Batches of the training loop: what is drawn, and how it is softened, rolled and mixed."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from serstream.emotion.features import FeatureSpec
from serstream.emotion.inputs import Inputs
from trainer.calls import BaselineTraining, Calls, as_heard
from trainer.dataset import WindowSet


@dataclass(frozen=True, slots=True, eq=False)
class Targets:
    """Labels of clips, and which labels their corpora have."""

    label: NDArray[np.int64]
    """(n_clips,)"""
    known: NDArray[np.bool_]
    """(n_clips, n_labels)"""
    weight: NDArray[np.float64]
    """Chance of a clip to be drawn: every class of a corpus counts the same; (n_clips,)"""

    @staticmethod
    def of(windows: WindowSet, labels: tuple[str, ...], *, by_sex: bool = False) -> Targets:
        """Every clip's emotion must be among the labels; only clips that have windows are counted.

        With ``by_sex`` women and men weigh alike in every class too. Of a corpus without windows, which only
        validates, every label of the others may be right.
        """
        clips = windows.clips
        label = np.array([labels.index(clip.emotion) for clip in clips])
        corpora = np.array([clip.corpus for clip in clips])
        sexes, sex = np.unique([clip.sex if by_sex else "" for clip in clips], return_inverse=True)
        present = np.isin(np.arange(len(clips)), windows.clip)
        known = np.zeros((len(clips), len(labels)), np.bool_)
        weight = np.zeros(len(clips))
        for corpus in np.unique(corpora):
            own = corpora == corpus
            there = own & present
            counts = np.zeros((len(labels), len(sexes)))
            np.add.at(counts, (label[there], sex[there]), 1)
            known[own] = counts.any(axis=1)
            share = np.count_nonzero(counts, axis=1)[label[there]] * counts[label[there], sex[there]]
            weight[there] = np.sqrt(counts.sum()) / share
        known[~known.any(axis=1)] = known.any(axis=0)
        return Targets(label, known, weight)


class Draw:
    """Draws a clip by weight, then one of its windows under any line."""

    def __init__(
        self,
        windows: WindowSet,
        targets: Targets,
        settings: BaselineTraining | None,
        spec: FeatureSpec,
        rng: np.random.Generator,
    ):
        self._windows, self._targets, self._settings, self._spec = windows, targets, settings, spec
        self._rng = rng
        self._calls = None if settings is None else Calls(windows, spec)
        order = np.argsort(windows.clip, kind="stable")
        self._clips, starts = np.unique(windows.clip[order], return_index=True)
        self._rows = np.split(order, starts[1:])
        weight = targets.weight[self._clips]
        self._chance = weight / weight.sum()
        self.seconds = 0.0
        """Spent drawing."""

    def __call__(self, n: int) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """Inputs of ``n`` windows, their labels and which labels their corpora have."""
        began = time.perf_counter()
        chosen = self._rng.choice(len(self._clips), n, p=self._chance)
        rows = np.array([self._rng.choice(self._rows[k]) for k in chosen])
        clips = self._clips[chosen]
        inputs = {name: torch.from_numpy(part) for name, part in self._inputs(rows).items()}
        self.seconds += time.perf_counter() - began
        return (
            inputs,
            torch.from_numpy(self._targets.label[clips]),
            torch.from_numpy(self._targets.known[clips]),
        )

    def _inputs(self, rows: NDArray[np.intp]) -> Inputs:
        if self._calls is None or self._settings is None:
            return as_heard(self._windows.at(rows), self._spec, 0.0)
        return self._calls.draw(rows, self._settings, self._rng)


def smooth(label: Tensor, known: Tensor, smoothing: float) -> Tensor:
    """One-hot targets with a share spread over the labels that the corpus has."""
    one_hot = nn.functional.one_hot(label, known.shape[1]).float()
    return (1 - smoothing) * one_hot + smoothing * known / known.sum(dim=1, keepdim=True)


def shift(features: Tensor, share: float, rng: np.random.Generator) -> Tensor:
    """Roll every window (n_coeffs, n_frames) around its end by its own number of frames."""
    reach = round(share * features.shape[2])
    steps = rng.integers(-reach, reach + 1, len(features)).tolist()
    return torch.stack([window.roll(step, dims=1) for window, step in zip(features, steps, strict=True)])


def mixup(
    inputs: dict[str, Tensor], target: Tensor, known: Tensor, alpha: float, rng: np.random.Generator
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Every input, target and known label with those of another one of the batch (Zhang et al. 2018)."""
    share = float(rng.beta(alpha, alpha))
    other = torch.from_numpy(rng.permutation(len(target)))
    return (
        {name: share * part + (1 - share) * part[other] for name, part in inputs.items()},
        share * target + (1 - share) * target[other],
        known | known[other],
    )
