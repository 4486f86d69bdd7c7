"""The training loop."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from serstream.emotion.features import FloatArray
from trainer.corpora import Clip
from trainer.dataset import WindowSet
from trainer.evaluation import clip_scores, uar
from trainer.networks import Network, build
from trainer.recipe import Recipe, Training

logger = logging.getLogger(__name__)

MASKED = -1e4
"""Logit of a label that the clip's corpus does not have; finite, so that mixup stays finite."""


@dataclass(frozen=True, slots=True)
class Epoch:
    """What one epoch brought."""

    number: int
    loss: float
    valid_uar: float


@dataclass(frozen=True, slots=True, eq=False)
class Targets:
    """Labels of clips, and which labels their corpora have."""

    label: NDArray[np.int64]
    """(n_clips,)"""
    known: NDArray[np.bool_]
    """(n_clips, n_labels)"""
    weight: NDArray[np.float64]
    """Chance of a clip to be drawn: every corpus and every class in it counts the same; (n_clips,)"""

    @staticmethod
    def of(clips: list[Clip], labels: tuple[str, ...]) -> Targets:
        """Every clip's emotion must be among the labels."""
        label = np.array([labels.index(clip.emotion) for clip in clips])
        corpora = np.array([clip.corpus for clip in clips])
        known = np.zeros((len(clips), len(labels)), np.bool_)
        weight = np.zeros(len(clips))
        for corpus in np.unique(corpora):
            own = corpora == corpus
            counts = np.bincount(label[own], minlength=len(labels))
            known[own] = counts > 0
            weight[own] = np.sqrt(own.sum()) / counts[label[own]]
        return Targets(label, known, weight)


def train(
    recipe: Recipe, windows: WindowSet, valid: WindowSet | None, on_epoch: Callable[[Epoch], None]
) -> Network:
    """Train a network.

    Args:
        recipe: everything that can be chosen.
        windows: the training part.
        valid: the epoch is chosen by clip UAR on these; None takes the last one.
        on_epoch: told about every epoch.

    Returns:
        The averaged weights of that epoch.
    """
    settings = recipe.training
    torch.manual_seed(settings.seed)
    rng = np.random.default_rng(settings.seed)
    targets = Targets.of(windows.clips, recipe.labels)
    network = build(recipe.network, recipe.features, len(recipe.labels))
    network.front.standardise(torch.from_numpy(windows.features[::4].astype(np.float32)))
    for parameter in network.parameters():
        if parameter.dim() == 4:  # convolutions run twice as fast on a CPU with their channels last
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    averaged = copy.deepcopy(network).eval()
    draw = _Draw(windows, targets, rng)
    steps = max(1, len(np.unique(windows.clip)) * 2 // settings.batch)
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, settings.learning_rate, total_steps=steps * settings.epochs, pct_start=0.2
    )
    best, best_uar = averaged, -1.0
    for number in range(settings.epochs):
        network.train()
        losses = []
        for _ in range(steps):
            features, label, known = draw(settings.batch)
            target = _smooth(label, known, settings.label_smoothing)
            if settings.mixup:
                features, target, known = _mixup(features, target, known, settings, rng)
            with torch.autocast("cpu", torch.bfloat16):
                logits = network(features)
            log_probability = torch.log_softmax(logits.float().masked_fill(~known, MASKED), dim=1)
            loss = -(target * log_probability).sum(dim=1).mean()
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(network.parameters(), 5.0)
            optimiser.step()
            schedule.step()
            _average(averaged, network, settings.ema)
            losses.append(loss.item())
        reached = _valid_uar(averaged, valid, targets) if valid else math.nan
        if reached >= best_uar:
            best, best_uar = copy.deepcopy(averaged), reached
        on_epoch(Epoch(number, float(np.mean(losses)), reached))
    return best


def logits_of(network: Network, windows: WindowSet) -> FloatArray:
    """Logits of every window, shape (n_windows, n_labels)."""
    network.eval()
    with torch.inference_mode():
        batches = [
            network(torch.from_numpy(windows.features[i : i + 256].astype(np.float32)))
            for i in range(0, len(windows.features), 256)
        ]
    joined: FloatArray = torch.cat(batches).float().numpy()
    return joined


class _Draw:
    """Draws a clip by weight, then one of its windows under any line."""

    def __init__(self, windows: WindowSet, targets: Targets, rng: np.random.Generator):
        self._windows, self._targets, self._rng = windows, targets, rng
        order = np.argsort(windows.clip, kind="stable")
        self._clips, starts = np.unique(windows.clip[order], return_index=True)
        self._rows = np.split(order, starts[1:])
        weight = targets.weight[self._clips]
        self._chance = weight / weight.sum()

    def __call__(self, n: int) -> tuple[Tensor, Tensor, Tensor]:
        chosen = self._rng.choice(len(self._clips), n, p=self._chance)
        rows = np.array([self._rng.choice(self._rows[k]) for k in chosen])
        clips = self._clips[chosen]
        return (
            torch.from_numpy(self._windows.features[rows].astype(np.float32)),
            torch.from_numpy(self._targets.label[clips]),
            torch.from_numpy(self._targets.known[clips]),
        )


def _smooth(label: Tensor, known: Tensor, smoothing: float) -> Tensor:
    """One-hot targets with a share spread over the labels that the corpus has."""
    one_hot = nn.functional.one_hot(label, known.shape[1]).float()
    return (1 - smoothing) * one_hot + smoothing * known / known.sum(dim=1, keepdim=True)


def _mixup(
    features: Tensor, target: Tensor, known: Tensor, settings: Training, rng: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    share = float(rng.beta(settings.mixup, settings.mixup))
    other = torch.from_numpy(rng.permutation(len(features)))
    return (
        share * features + (1 - share) * features[other],
        share * target + (1 - share) * target[other],
        known | known[other],
    )


def _average(averaged: nn.Module, network: nn.Module, decay: float) -> None:
    with torch.no_grad():
        for kept, new in zip(averaged.state_dict().values(), network.state_dict().values(), strict=True):
            if kept.dtype.is_floating_point:
                kept.lerp_(new, 1 - decay)
            else:
                kept.copy_(new)


def _valid_uar(network: Network, valid: WindowSet, targets: Targets) -> float:
    clips, scores = clip_scores(logits_of(network, valid), valid)
    predicted = np.where(targets.known[clips], scores, -np.inf).argmax(axis=1)
    return uar(targets.label[clips], predicted)
