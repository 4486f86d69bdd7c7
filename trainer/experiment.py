"""A recipe under a protocol: train every fold with every seed, keep what the test windows scored."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from serstream.emotion.features import FloatArray
from trainer import corpora
from trainer.augment import Sounds
from trainer.dataset import CLEAN_CONDITION, Preparation, WindowSet, gather
from trainer.folds import Fold, Protocol
from trainer.recipe import Recipe
from trainer.training import Epoch, Targets, Trained, logits_of, train

TEST_CONDITIONS = (CLEAN_CONDITION, "g711", "noise10", "loss5")
HEARD_S = (0.0, 10.0, 30.0, 60.0)
"""Other speech of the speaker heard before each test window, where a recipe has a baseline."""


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Test windows of one fold under one condition."""

    seed: int
    fold: str
    condition: str
    heard_s: float
    logits: FloatArray
    """(n_windows, n_labels)"""
    clip: NDArray[np.int64]
    """Index of every window's clip."""


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """What all folds and seeds of a protocol scored."""

    labels: tuple[str, ...]
    clips: list[corpora.Clip]
    known: NDArray[np.bool_]
    """Labels that may be predicted for each clip: those its corpus has and its fold taught.

    Shape (n_clips, n_labels).
    """
    parts: list[Part]
    histories: list[list[Epoch]]
    """Of every training."""


@dataclass(frozen=True, slots=True)
class Workplace:
    """Where recordings, fold files, caches and results are."""

    data: Path
    folds: Path
    runs: Path

    def folder(self, recipe: Recipe) -> Path:
        """Where results of a recipe go; made if it is not there."""
        folder = self.runs / f"{recipe.name}-{recipe.with_seed(0).sha256[:8]}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def weights(self, recipe: Recipe) -> Path:
        """Where the weights of a recipe are kept."""
        return self.folder(recipe) / "weights.pt"

    def preparation(self, recipe: Recipe) -> Preparation:
        """How the windows of a recipe are made."""
        sounds = Sounds.load(self.data / "esc10-noise", self.data / "chromium-ir")
        return Preparation(recipe.features, recipe.augmentation, sounds, self.runs / "cache")

    def windows(self, recipe: Recipe, conditions: Sequence[str] | None = None) -> WindowSet:
        """Windows of the recipe's corpora and labels, by default under the conditions it trains with."""
        preparation = self.preparation(recipe)
        clips = corpora.read_all(recipe.corpora, self.data)
        wanted = preparation.conditions() if conditions is None else list(conditions)
        return gather(preparation, clips, wanted).with_emotions(recipe.labels)


def run(
    recipe: Recipe,
    protocol: Protocol,
    seeds: Sequence[int],
    workplace: Workplace,
    on_epoch: Callable[[str, Epoch], None],
) -> Predictions:
    """Train and test every fold with every seed; folds that an earlier run finished are read back."""
    windows = workplace.windows(recipe)
    tests = workplace.windows(recipe, TEST_CONDITIONS)
    folder = workplace.folder(recipe) / protocol.name
    folder.mkdir(exist_ok=True)
    parts: list[Part] = []
    histories = []
    for seed in seeds:
        seeded = recipe.with_seed(seed)
        for number, fold in enumerate(protocol.folds(windows.clips, workplace.folds)):
            path = folder / f"seed-{seed}-fold-{number + 1}.npz"
            if not path.is_file():
                title = f"{protocol.name}, seed {seed}, {fold.name}"
                trained = train_fold(seeded, fold, windows, path.with_suffix(".pt"), partial(on_epoch, title))
                _write(path, list(_test(trained, fold, tests)), trained.history)
                path.with_suffix(".pt").unlink()
            fold_parts, history = _read(path, seed)
            parts.extend(fold_parts)
            histories.append(history)
    known = Targets.of(windows.clips, recipe.labels).known
    for fold in protocol.folds(windows.clips, workplace.folds):
        taught = {windows.clips[i].emotion for i in fold.train + fold.valid}
        known[fold.test] &= [label in taught for label in recipe.labels]
    return Predictions(recipe.labels, windows.clips, known, parts, histories)


def train_all(recipe: Recipe, workplace: Workplace, on_epoch: Callable[[Epoch], None]) -> Trained:
    """Train on all speakers of a recipe's corpora, to the last epoch."""
    windows = workplace.windows(recipe)
    checkpoint = workplace.folder(recipe) / f"seed-{recipe.training.seed}.pt"
    return train(recipe, windows, None, checkpoint, on_epoch)


def train_fold(
    recipe: Recipe, fold: Fold, windows: WindowSet, checkpoint: Path, on_epoch: Callable[[Epoch], None]
) -> Trained:
    """Train on a fold; its validation speakers choose the epoch, or are trained on too."""
    if recipe.training.choose_epoch and fold.valid:
        valid = windows.of_clips(fold.valid).of_line(0)
        return train(recipe, windows.of_clips(fold.train), valid, checkpoint, on_epoch)
    return train(recipe, windows.of_clips(fold.train + fold.valid), None, checkpoint, on_epoch)


def _test(trained: Trained, fold: Fold, tests: WindowSet) -> Iterator[Part]:
    amounts = HEARD_S if trained.spec.baseline else HEARD_S[:1]
    for line, condition in enumerate(TEST_CONDITIONS):
        windows = tests.of_line(line).of_clips(fold.test)
        for heard_s in amounts:
            logits = logits_of(trained, windows, heard_s)
            yield Part(0, fold.name, condition, heard_s, logits, windows.clip.astype(np.int64))


def _write(path: Path, parts: list[Part], history: list[Epoch]) -> None:
    """As arrays in one file, whole or not at all."""
    sizes = [len(part.clip) for part in parts]
    unfinished = path.with_suffix(".tmp.npz")
    np.savez(
        unfinished,
        fold=np.array(parts[0].fold),
        conditions=np.array([part.condition for part in parts]),
        heard_s=np.array([part.heard_s for part in parts]),
        ends=np.cumsum(sizes)[:-1],
        logits=np.concatenate([part.logits for part in parts]),
        clip=np.concatenate([part.clip for part in parts]),
        loss=np.array([epoch.loss for epoch in history]),
        valid_uar=np.array([epoch.valid_uar for epoch in history]),
    )
    os.replace(unfinished, path)


def _read(path: Path, seed: int) -> tuple[list[Part], list[Epoch]]:
    with np.load(path) as stored:
        logits, clips = (np.split(stored[name], stored["ends"]) for name in ("logits", "clip"))
        conditions, heard = stored["conditions"].tolist(), stored["heard_s"].tolist()
        fold = str(stored["fold"])
        curves = zip(stored["loss"].tolist(), stored["valid_uar"].tolist(), strict=True)
        history = [Epoch(number, loss, valid_uar) for number, (loss, valid_uar) in enumerate(curves)]
    parts = [
        Part(seed, fold, condition, heard_s, part_logits, part_clips)
        for condition, heard_s, part_logits, part_clips in zip(conditions, heard, logits, clips, strict=True)
    ]
    return parts, history
