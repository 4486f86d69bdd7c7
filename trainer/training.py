"""The training loop."""

from __future__ import annotations

import copy
import json
import logging
import math
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import torch
from torch import nn

from serstream.emotion.features import FeatureSpec
from serstream.emotion.inputs import FEATURES
from serstream.errors import ConfigError
from trainer import checkpoint as checkpoints
from trainer import history
from trainer.batches import Draw, Targets, mixup, shift, smooth
from trainer.calls import average_speaker
from trainer.dataset import WindowSet
from trainer.device import CPU
from trainer.evaluation import clip_uar, uar
from trainer.history import Epoch
from trainer.networks import Ensemble, build
from trainer.recipe import Recipe, Training
from trainer.trained import Trained, logits_of

logger = logging.getLogger(__name__)

ABSENT = 1.0
"""What is taken off the logits of labels that a clip's corpus does not have, in its loss. That nobody acts
them there says something against them: left out of the loss altogether, they are claimed of that corpus's
voices and of new ones, because the daemon masks nothing. Held-out speakers chose it (docs/experiments.md)."""


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
    draw = Draw(windows, targets, baseline, spec, state.rng)
    state.restore(checkpoint, data)
    history.write(checkpoint.with_suffix(".csv"), state.history)
    epochs = settings.epochs if state.network.learned else 0
    for number in range(len(state.history) + 1, epochs + 1):
        if settings.patience and _epochs_without_gain(state.history) >= settings.patience:
            break
        began, draw.seconds = time.perf_counter(), 0.0
        state.network.train()
        state.counts.zero_()
        loss = float(np.mean([_step(state, draw, settings) for _ in range(steps)]))
        if not math.isfinite(loss):
            raise ConfigError(
                f"recipe {recipe.name}: the loss of epoch {number} is {loss}, wanted a finite one; lower "
                f"training.learning_rate, which is {settings.learning_rate:g}"
            )
        reached = math.nan
        if valid:
            logits = logits_of(Trained(state.averaged, spec, []), valid)
            reached = clip_uar(logits, valid.clip, targets.label, targets.known)
        seconds = time.perf_counter() - began
        rate = float(state.schedule.get_last_lr()[0])
        learned = float(uar(state.counts.cpu().numpy()))
        state.history.append(Epoch(number, loss, reached, rate, seconds, draw.seconds / seconds, learned))
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
        self.counts = torch.zeros(len(recipe.labels), len(recipe.labels), dtype=torch.long, device=device)
        """Windows of this epoch's batches, by label and what was said of them."""

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


def _step(state: _State, draw: Draw, settings: Training) -> float:
    """One batch; returns its loss."""
    inputs, label, known = draw(settings.batch)
    target = smooth(label, known, settings.label_smoothing)
    if settings.shift:
        inputs[FEATURES] = shift(inputs[FEATURES], settings.shift, state.rng)
    if settings.mixup:
        inputs, target, known = mixup(inputs, target, known, settings.mixup, state.rng)
    target, known = target.to(state.device), known.to(state.device)
    with torch.autocast(state.device.type, torch.bfloat16):  # has float32's range: no gradient scaling
        opinions = state.network.opinions(**{name: part.to(state.device) for name, part in inputs.items()})
    hidden, wanted = ~known.unsqueeze(1), target.unsqueeze(1)
    log_probability = torch.log_softmax(opinions.float() - ABSENT * hidden, dim=2)
    loss = -(wanted * log_probability).sum(dim=2).mean()
    said = log_probability.detach().mean(dim=1).where(known, -math.inf).argmax(dim=1)
    state.counts.index_put_((target.argmax(dim=1), said), torch.ones_like(said), accumulate=True)
    state.optimiser.zero_grad()
    torch.autograd.backward(loss)
    nn.utils.clip_grad_norm_(state.network.parameters(), 5.0)
    state.optimiser.step()
    state.schedule.step()
    done = state.schedule.last_epoch
    # A short training would end with its fresh weights in the average: it begins with what is there.
    _average(state.averaged, state.network, min(settings.ema, (1 + done) / (10 + done)))
    return loss.item()


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
