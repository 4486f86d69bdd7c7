"""The training loop."""

from __future__ import annotations

import copy
import json
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from serstream.emotion.features import FeatureSpec, FloatArray
from serstream.emotion.inputs import FEATURES, Inputs
from serstream.errors import ConfigError
from trainer import checkpoint as checkpoints
from trainer import history
from trainer.calls import BaselineTraining, Calls, as_heard, average_speaker
from trainer.dataset import WindowSet
from trainer.device import CPU
from trainer.evaluation import clip_scores, confusion, uar
from trainer.history import Epoch
from trainer.networks import Ensemble, build
from trainer.recipe import Recipe, Training
from trainer.whole import BROKEN_WEIGHTS, whole

logger = logging.getLogger(__name__)

ABSENT = 1.0
"""What is taken off the logits of labels that a clip's corpus does not have, in its loss. That nobody acts
them there says something against them: left out of the loss altogether, they are claimed of that corpus's
voices and of new ones, because the daemon masks nothing. Held-out speakers chose it (docs/experiments.md)."""


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """A network and the features it learned from."""

    network: Ensemble
    spec: FeatureSpec
    history: list[Epoch]
    data: str = ""
    """`WindowSet.digest` of what it learned from; empty: not known."""


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

        With ``by_sex`` women and men weigh alike in every class too.
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
        return Targets(label, known, weight)


def train(
    recipe: Recipe,
    windows: WindowSet,
    valid: WindowSet | None,
    checkpoint: Path,
    on_epoch: Callable[[Epoch], None],
    device: torch.device = CPU,
    pretrained: Trained | None = None,
) -> Trained:
    """Train what a network learns in steps.

    Args:
        recipe: everything that can be chosen.
        windows: the training part.
        valid: the epoch is chosen by clip UAR on these; None takes the last one.
        checkpoint: written after every epoch, with the log beside it as ``.csv``; an interrupted training
            goes on from it to the same result, unless the data are others by now.
        on_epoch: told about every epoch.
        device: computes the network; bfloat16 where that loses nothing.
        pretrained: the convolution begins with its weights; what these learned from counts among the data.

    Returns:
        The averaged weights of that epoch, and the feature spec they need.

    Raises:
        ConfigError: the loss is not finite any more.
    """
    settings = recipe.training
    torch.manual_seed(settings.seed)
    targets = Targets.of(windows, recipe.labels)
    spec = recipe.features
    if recipe.baseline is not None:
        spec = msgspec.structs.replace(spec, baseline=average_speaker(windows, spec, recipe.baseline))
    steps = max(1, len(np.unique(windows.clip)) * 2 // settings.batch)
    data = windows.digest + (valid.digest if valid else "") + (pretrained.data if pretrained else "")
    state = _State(recipe, spec, windows, steps, device, pretrained.network if pretrained else None)
    baseline = recipe.baseline if state.network.learned_with_baseline else None
    draw = _Draw(windows, targets, baseline, spec, state.rng)
    state.restore(checkpoint, data)
    history.write(checkpoint.with_suffix(".csv"), state.history)
    epochs = settings.epochs if state.network.learned else 0
    for number in range(len(state.history) + 1, epochs + 1):
        if settings.patience and _epochs_without_gain(state.history) >= settings.patience:
            break
        began, draw.seconds = time.perf_counter(), 0.0
        state.network.train()
        loss = float(np.mean([_step(state, draw, settings) for _ in range(steps)]))
        if not math.isfinite(loss):
            raise ConfigError(
                f"recipe {recipe.name}: the loss of epoch {number} is {loss}, wanted a finite one; lower "
                f"training.learning_rate, which is {settings.learning_rate:g}"
            )
        reached = _valid_uar(Trained(state.averaged, spec, []), valid, targets) if valid else math.nan
        seconds = time.perf_counter() - began
        rate = float(state.schedule.get_last_lr()[0])
        state.history.append(Epoch(number, loss, reached, rate, seconds, draw.seconds / seconds))
        if valid is None or reached >= max(epoch.valid_uar for epoch in state.history):
            state.best.load_state_dict(state.averaged.state_dict())
        state.save(checkpoint, data)
        history.write(checkpoint.with_suffix(".csv"), state.history)
        on_epoch(state.history[-1])
    return Trained(state.best, spec, state.history, data)


class _State:
    """All that changes while training."""

    def __init__(
        self,
        recipe: Recipe,
        spec: FeatureSpec,
        windows: WindowSet,
        steps: int,
        device: torch.device,
        pretrained: Ensemble | None,
    ):
        settings = recipe.training
        self.device = device
        self.network = build(recipe.network, spec, len(recipe.labels))
        some = (windows.features[::4].astype(np.float32), windows.functionals[::4])
        self.network.standardise(*map(torch.from_numpy, some))
        if pretrained is not None:
            self.network.begin_with(pretrained)
        self.network.to(device)
        for parameter in self.network.parameters():
            if parameter.dim() == 4:  # convolutions run twice as fast on a CPU with their channels last
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        self.averaged = copy.deepcopy(self.network).eval()
        self.best = copy.deepcopy(self.averaged)
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        n_steps = steps * settings.epochs
        rise = (
            0.4 if n_steps == 5 else 0.2
        )  # of five steps a fifth is one, and the schedule divides by one less
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimiser, settings.learning_rate, total_steps=n_steps, pct_start=rise
        )
        self.rng = np.random.default_rng(settings.seed)
        self.history: list[Epoch] = []

    def save(self, path: Path, data: str) -> None:
        parts = {name: getattr(self, name).state_dict() for name in _STATEFUL}
        numpy_rng = json.dumps(self.rng.bit_generator.state)
        checkpoints.save(path, parts, self.history, self.device, data=data, numpy_rng=numpy_rng)

    def restore(self, path: Path, data: str) -> None:
        """Go on from there, unless nothing is there or that training had other data."""
        stored = checkpoints.load(path)
        if stored is None:
            return
        if stored.get("data", data) != data:
            logger.warning("%s: the recordings or their labels have changed; training begins anew", path)
            return
        for name in _STATEFUL:
            getattr(self, name).load_state_dict(stored["parts"][name])
        checkpoints.restore_rng(stored, self.device)
        self.rng.bit_generator.state = json.loads(stored["numpy_rng"])
        self.history = [Epoch(*epoch) for epoch in stored["history"]]


_STATEFUL = ("network", "averaged", "best", "optimiser", "schedule")


def _step(state: _State, draw: _Draw, settings: Training) -> float:
    """One batch; returns its loss."""
    inputs, label, known = draw(settings.batch)
    target = _smooth(label, known, settings.label_smoothing)
    if settings.shift:
        inputs[FEATURES] = _shift(inputs[FEATURES], settings.shift, state.rng)
    if settings.mixup:
        inputs, target, known = _mixup(inputs, target, known, settings.mixup, state.rng)
    target, known = target.to(state.device), known.to(state.device)
    with torch.autocast(state.device.type, torch.bfloat16):  # has float32's range: no gradient scaling
        opinions = state.network.opinions(**{name: part.to(state.device) for name, part in inputs.items()})
    hidden, wanted = ~known.unsqueeze(1), target.unsqueeze(1)
    log_probability = torch.log_softmax(opinions.float() - ABSENT * hidden, dim=2)
    loss = -(wanted * log_probability).sum(dim=2).mean()
    state.optimiser.zero_grad()
    torch.autograd.backward(loss)
    nn.utils.clip_grad_norm_(state.network.parameters(), 5.0)
    state.optimiser.step()
    state.schedule.step()
    done = state.schedule.last_epoch
    # A short training would end with its fresh weights in the average: it begins with what is there.
    _average(state.averaged, state.network, min(settings.ema, (1 + done) / (10 + done)))
    return loss.item()


def logits_of(trained: Trained, windows: WindowSet, heard_s: float = 0.0) -> FloatArray:
    """Logits of every window after so much other speech of its speaker, shape (n_windows, n_labels)."""
    trained.network.eval()
    device = next(trained.network.parameters()).device
    inputs = as_heard(windows, trained.spec, heard_s)
    with torch.inference_mode():
        batches = [
            trained.network(
                **{name: torch.from_numpy(part[i : i + 256]).to(device) for name, part in inputs.items()}
            )
            for i in range(0, len(windows.clip), 256)
        ]
    joined: FloatArray = torch.cat(batches).float().cpu().numpy()
    return joined


class _Draw:
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


def _smooth(label: Tensor, known: Tensor, smoothing: float) -> Tensor:
    """One-hot targets with a share spread over the labels that the corpus has."""
    one_hot = nn.functional.one_hot(label, known.shape[1]).float()
    return (1 - smoothing) * one_hot + smoothing * known / known.sum(dim=1, keepdim=True)


def _shift(features: Tensor, share: float, rng: np.random.Generator) -> Tensor:
    """Roll every window (n_coeffs, n_frames) around its end by its own number of frames."""
    reach = round(share * features.shape[2])
    steps = rng.integers(-reach, reach + 1, len(features)).tolist()
    return torch.stack([window.roll(step, dims=1) for window, step in zip(features, steps, strict=True)])


def _mixup(
    inputs: dict[str, Tensor], target: Tensor, known: Tensor, alpha: float, rng: np.random.Generator
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    share = float(rng.beta(alpha, alpha))
    other = torch.from_numpy(rng.permutation(len(target)))
    return (
        {name: share * part + (1 - share) * part[other] for name, part in inputs.items()},
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


def _epochs_without_gain(past: list[Epoch]) -> int:
    """Since the best validation UAR; 0 where nobody validates."""
    reached = [epoch.valid_uar for epoch in past]
    if not reached or math.isnan(reached[0]):
        return 0
    return len(reached) - 1 - reached.index(max(reached))


def _valid_uar(trained: Trained, valid: WindowSet, targets: Targets) -> float:
    clips, scores = clip_scores(logits_of(trained, valid), valid.clip)
    predicted = np.where(targets.known[clips], scores, -np.inf).argmax(axis=1)
    return float(uar(confusion(targets.label[clips], predicted, scores.shape[1])))


def save(recipe: Recipe, trained: Trained, path: Path) -> None:
    """Keep trained weights with their feature spec and the recipe they come from."""
    weights = {name: values.cpu() for name, values in trained.network.state_dict().items()}
    spec, data = trained.spec.to_json(), trained.data
    with whole(path) as unfinished:
        torch.save({"network": weights, "spec": spec, "data": data, "recipe": recipe.sha256}, unfinished)


def load(recipe: Recipe, path: Path) -> Trained:
    """Read trained weights back.

    Raises:
        ConfigError: there are none, they cannot be read, or another recipe or seed trained them.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: no weights of recipe {recipe.name}; run 'serstream-train train' first")
    try:
        stored = torch.load(path, weights_only=True)
    except BROKEN_WEIGHTS as error:
        raise ConfigError(
            f"{path}: cannot read these weights: {error}; run 'serstream-train train' again"
        ) from error
    made_by = stored.get("recipe", "unknown")
    if made_by != recipe.sha256:
        raise ConfigError(
            f"{path}: trained by recipe {made_by[:12]}, wanted {recipe.sha256[:12]}, which is "
            f"{recipe.name} with seed {recipe.training.seed}; run 'serstream-train train' again"
        )
    spec = FeatureSpec.from_json(stored["spec"])
    network = build(recipe.network, spec, len(recipe.labels))
    network.load_state_dict(stored["network"])
    return Trained(network.eval(), spec, [], stored.get("data", ""))
