"""The studies' training loop: what ``model.fit`` of Keras does with their settings."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from serstream.emotion.features import FloatArray
from serstream.emotion.inputs import FEATURES, Inputs, alone
from serstream.emotion.metadata import ModelMetadata
from trainer import checkpoint as checkpoints
from trainer.comparison.splits import Indices, Split
from trainer.comparison.system import Learning
from trainer.device import CPU
from trainer.evaluation import Labels
from trainer.export import export
from trainer.networks import Ensemble
from trainer.networks.studies import StudyNetwork, keras_parameters


@dataclass(frozen=True, slots=True)
class Epoch:
    """What one epoch brought."""

    loss: float
    """Cross-entropy of the training part while it was trained, without the regulariser."""
    valid_loss: float
    valid_accuracy: float


class Learner(Protocol):
    """What a cell trains."""

    @property
    def n_parameters(self) -> int:
        """As Keras counts them; 0 where that means nothing."""

    @property
    def settings(self) -> Learning | None:
        """What it is trained with; None where that means nothing."""

    def fit(
        self,
        features: FloatArray,
        label: Labels,
        split: Split,
        checkpoint: Path,
        on_epoch: Callable[[int, Epoch], None],
    ) -> list[Epoch]:
        """Learn.

        Args:
            features: of all examples, (n, ...).
            label: of all examples, (n,).
            split: which of them train and validate.
            checkpoint: written after every epoch; an interrupted training, or one of more epochs, goes on
                from it to the same result.
            on_epoch: told the number of every epoch and what it brought.

        Returns:
            Every epoch.
        """

    def predict(self, features: FloatArray) -> Labels:
        """The most likely label of each, (n,)."""

    def export(self, metadata: ModelMetadata | None, path: Path, examples: FloatArray) -> object:
        """Write ONNX, see `trainer.export.export`."""


class NetworkLearner:
    """A network, trained as its study did."""

    def __init__(
        self,
        network: Ensemble | StudyNetwork,
        settings: Learning,
        epochs: int,
        seed: int,
        device: torch.device = CPU,
    ):
        """Take a network with fresh weights.

        Args:
            network: trained in place.
            settings: of the study.
            epochs: at most.
            seed: of the order of examples and of dropout.
            device: computes the network.
        """
        self.network, self.settings, self.epochs, self.seed = network, settings, epochs, seed
        self.device = device
        self.n_parameters = keras_parameters(network)

    def fit(
        self,
        features: FloatArray,
        label: Labels,
        split: Split,
        checkpoint: Path,
        on_epoch: Callable[[int, Epoch], None],
    ) -> list[Epoch]:
        """Learn, see `Learner.fit`.

        The weights are those of the epoch with the best validation loss if training may stop early, else the
        last ones.
        """
        network = self.network
        network.standardise(**tensors(network, features[split.train]))
        torch.manual_seed(self.seed)
        network.to(self.device)
        for weight in network.parameters():
            if weight.dim() == 4:  # convolutions and pooling run twice as fast on a CPU with channels last
                weight.data = weight.data.to(memory_format=torch.channels_last)
        state = _State(network, self.settings, self.device)
        state.restore(checkpoint, self.epochs)
        while len(state.history) < self.epochs and not state.finished:
            order = np.random.default_rng([self.seed, len(state.history)]).permutation(split.train)
            loss = _epoch(state, features, label, order)
            logits = self.logits(features[split.valid])
            target = torch.from_numpy(label[split.valid])
            valid_loss = nn.functional.cross_entropy(torch.from_numpy(logits), target).item()
            accuracy = float(np.mean(logits.argmax(axis=1) == label[split.valid]))
            state.end_epoch(Epoch(loss, valid_loss, accuracy))
            state.save(checkpoint)
            on_epoch(len(state.history), state.history[-1])
        if self.settings.early_stopping:
            network.load_state_dict(state.best)
        return state.history

    def logits(self, features: FloatArray) -> FloatArray:
        """(n, n_labels)."""
        self.network.eval()
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16):
            batches = [
                self.network(**tensors(self.network, features[i : i + 64], self.device)).float()
                for i in range(0, len(features), 64)
            ]
        joined: FloatArray = torch.cat(batches).cpu().numpy()
        return joined

    def predict(self, features: FloatArray) -> Labels:
        """The most likely label of each, (n,)."""
        predicted: Labels = self.logits(features).argmax(axis=1)
        return predicted

    def export(self, metadata: ModelMetadata | None, path: Path, examples: FloatArray) -> float:
        """Write ONNX, see `trainer.export.export`."""
        return export(self.network.to(CPU), metadata, path, _inputs(self.network, examples))


class _State:
    """All that changes while training."""

    def __init__(self, network: Ensemble | StudyNetwork, settings: Learning, device: torch.device):
        self.network, self.settings, self.device = network, settings, device
        kernels = [weight for weight in network.parameters() if weight.dim() > 1]
        others = [weight for weight in network.parameters() if weight.dim() <= 1]
        # The gradient of l2 * w ** 2; AdamW takes its decay apart from the gradient, as it is meant to.
        decay = settings.weight_decay if settings.optimiser == "adamw" else 2 * settings.l2
        self.optimiser = _OPTIMISERS[settings.optimiser](
            [{"params": kernels, "weight_decay": decay}, {"params": others}], lr=settings.learning_rate
        )
        self.schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(
            self.optimiser, factor=0.5, patience=settings.plateau
        )
        self.best = copy.deepcopy(network.state_dict())
        self.history: list[Epoch] = []

    @property
    def finished(self) -> bool:
        losses = [epoch.valid_loss for epoch in self.history]
        patience = self.settings.early_stopping
        return bool(patience and losses) and len(losses) - 1 - losses.index(min(losses)) >= patience

    def end_epoch(self, epoch: Epoch) -> None:
        self.history.append(epoch)
        if self.settings.plateau:
            self.schedule.step(epoch.valid_loss)
        if epoch.valid_loss <= min(other.valid_loss for other in self.history):
            self.best = copy.deepcopy(self.network.state_dict())

    def save(self, path: Path) -> None:
        parts = {
            "network": self.network.state_dict(),
            "best": self.best,
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
        }
        checkpoints.save(path, parts, self.history, self.device)

    def restore(self, path: Path, at_most: int) -> None:
        """Go on from there, unless nothing is there or more epochs than that lie behind it."""
        stored = checkpoints.load(path)
        if stored is None or len(stored["history"]) > at_most:
            return
        parts = stored["parts"]
        self.network.load_state_dict(parts["network"])
        self.best = parts["best"]
        self.optimiser.load_state_dict(parts["optimiser"])
        self.schedule.load_state_dict(parts["schedule"])
        checkpoints.restore_rng(stored, self.device)
        self.history = [Epoch(*epoch) for epoch in stored["history"]]


_OPTIMISERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": partial(torch.optim.Adam, eps=1e-7),
    "adamw": torch.optim.AdamW,
    "rmsprop": partial(torch.optim.RMSprop, alpha=0.9, eps=1e-7),
}
"""With the constants of Keras where the studies used it."""


def _epoch(state: _State, features: FloatArray, label: Labels, order: Indices) -> float:
    """Every training example once; returns the mean loss."""
    state.network.train()
    losses = []
    # A last batch of one would stop batch normalisation; Keras would train on it, one example in an epoch.
    for begin in range(0, len(order) - 1, state.settings.batch):
        batch = order[begin : begin + state.settings.batch]
        with torch.autocast(state.device.type, torch.bfloat16):
            opinions = _opinions(state.network, tensors(state.network, features[batch], state.device))
        target = torch.from_numpy(label[batch]).to(state.device).repeat_interleave(opinions.shape[1])
        loss = nn.functional.cross_entropy(opinions.flatten(0, 1).float(), target)
        state.optimiser.zero_grad()
        torch.autograd.backward(loss)
        state.optimiser.step()
        losses.append(loss.item())
    return float(np.mean(losses))


def _inputs(network: Ensemble | StudyNetwork, features: FloatArray) -> Inputs:
    """What a network hears of its features: ours their functionals too, the studies' nothing else."""
    return alone(features, network.spec) if isinstance(network, Ensemble) else {FEATURES: features}


def tensors(
    network: Ensemble | StudyNetwork, features: FloatArray, device: torch.device = CPU
) -> dict[str, Tensor]:
    """What a network hears, by the names of its inputs."""
    heard = _inputs(network, features)
    return {name: torch.from_numpy(values).to(device) for name, values in heard.items()}


def _opinions(network: Ensemble | StudyNetwork, inputs: dict[str, Tensor]) -> Tensor:
    """What is trained, (batch, n_opinions, n_labels): our networks have several, the studies' one."""
    if isinstance(network, Ensemble):
        return network.opinions(**inputs)
    logits: Tensor = network(**inputs)
    return logits.unsqueeze(1)
