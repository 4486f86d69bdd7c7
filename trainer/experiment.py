"""A recipe under a protocol: train every fold with every seed, keep what the test windows scored."""

from __future__ import annotations

import hashlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from serstream.errors import ConfigError
from trainer import corpora
from trainer.augment import Sounds
from trainer.batches import Targets
from trainer.calls import heard_at_most
from trainer.dataset import CLEAN_CONDITION, Preparation, WindowSet, fingerprint, gather
from trainer.device import CPU
from trainer.folds import Fold, Protocol, check_apart, with_validation
from trainer.history import Epoch
from trainer.predictions import RUN_FILE, Part, Predictions, data_of, read_run, write_parts, write_run
from trainer.recipe import Recipe
from trainer.solving import solve
from trainer.trained import Trained, logits_of
from trainer.training import train

logger = logging.getLogger(__name__)

TEST_CONDITIONS = (CLEAN_CONDITION, "g711", "noise10", "loss5")
HEARD_S = (0.0, 10.0, 30.0, 60.0)
"""Other speech of the speaker heard before each test window, where a recipe has a baseline."""


@dataclass(frozen=True, slots=True)
class Workplace:
    """Where recordings, fold files, caches and results are, and what computes."""

    data: Path
    folds: Path
    runs: Path
    device: torch.device = CPU

    def folder(self, recipe: Recipe) -> Path:
        """Where results of a recipe go; made if it is not there."""
        folder = self.runs / f"{recipe.name}-{recipe.with_seed(0).sha256[:8]}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"runs folder {self.runs}: cannot make {folder}: {error.strerror}; give another with --runs"
            ) from error
        return folder

    @property
    def noises(self) -> Path:
        """Folder of the noises to augment with; may be missing."""
        return self.data / "esc10-noise"

    @property
    def rooms(self) -> Path:
        """Folder of the impulse responses to augment with; may be missing."""
        return self.data / "chromium-ir"

    def weights(self, recipe: Recipe) -> Path:
        """Where the weights of a recipe are kept."""
        return self.folder(recipe) / "weights.pt"

    def preparation(self, recipe: Recipe) -> Preparation:
        """How the windows of a recipe are made."""
        seed = recipe.training.seed
        sounds = Sounds.load(self.noises, self.rooms, seed)
        return Preparation(recipe.features, recipe.augmentation, sounds, self.runs / "cache", seed)

    def before(self, recipe: Recipe) -> Recipe | None:
        """What its convolution learns first, by all labels of those corpora; None where it begins afresh.

        Raises:
            CorpusError: a corpus cannot be read.
        """
        if not recipe.pretraining:
            return None
        clips = corpora.read_all(recipe.pretraining, self.data)
        return msgspec.structs.replace(
            recipe,
            corpora=recipe.pretraining,
            labels=tuple(sorted({clip.emotion for clip in clips})),
            label_map=msgspec.UNSET,
            pretraining=msgspec.UNSET,
        )

    def learned_before(self, recipe: Recipe) -> str:
        """Changes with the recordings of the pretraining and what is said of them; empty without any."""
        return fingerprint(corpora.read_all(recipe.pretraining, self.data)) if recipe.pretraining else ""

    def windows(self, recipe: Recipe, conditions: Sequence[str] | None = None) -> WindowSet:
        """Windows of the recipe's corpora and labels, by default under the conditions it trains with.

        Raises:
            ConfigError: a corpus may not be used commercially, and the weights may.
            CorpusError: a corpus cannot be read or has clips of no label, a label has none in all of them, or
                the label map names an emotion that nobody acts.
        """
        self._check_licence(recipe)
        preparation = self.preparation(recipe)
        wanted = preparation.conditions() if conditions is None else list(conditions)
        windows = gather(preparation, self._clips(recipe), wanted)
        if recipe.label_map:
            windows = windows.relabelled(recipe.label_map)  # only now: the cache is of clips as they are read
        return windows.with_emotions(recipe.labels)

    def _check_licence(self, recipe: Recipe) -> None:
        unsellable = [
            corpus for name in recipe.heard if not (corpus := corpora.about(name, self.data)).sellable
        ]
        if unsellable and "NC" not in recipe.licence.split("-"):
            raise ConfigError(
                f"recipe {recipe.name}: licence is {recipe.licence}, wanted a non-commercial one such as "
                f"CC-BY-NC-4.0: corpus {unsellable[0].name} is {unsellable[0].licence}"
            )

    def _clips(self, recipe: Recipe) -> list[corpora.Clip]:
        """All clips of the recipe's corpora, their emotions as these call them; says what becomes of them."""
        read = corpora.read_all(recipe.corpora, self.data)
        mapping, acted = recipe.label_map or {}, Counter(clip.emotion for clip in read)
        labels = [mapping.get(clip.emotion, clip.emotion) for clip in read]
        there = Counter(labels)
        nobody = f"no clip of {', '.join(recipe.corpora)} has this emotion, they have"
        if unknown := [emotion for emotion in mapping if emotion not in acted]:
            raise corpora.CorpusError(
                f"label_map of recipe {recipe.name} has {', '.join(unknown)}: {nobody} "
                f"{', '.join(sorted(acted))}; correct the key or remove it"
            )
        if missing := [label for label in recipe.labels if label not in there]:
            raise corpora.CorpusError(
                f"label {', '.join(missing)} of recipe {recipe.name}: {nobody} {', '.join(sorted(there))}; "
                "correct the label or the corpus, or map one of these to it in [label_map]"
            )
        for name in recipe.corpora:
            own = {label for label, clip in zip(labels, read, strict=True) if clip.corpus == name}
            if own.isdisjoint(recipe.labels):
                raise corpora.CorpusError(
                    f"corpus {name}: none of its clips has a label of recipe {recipe.name}, they have "
                    f"{', '.join(sorted(own))}, wanted some of {', '.join(recipe.labels)}; map them in "
                    "[label_map] or remove the corpus"
                )
        if mapping:
            mapped = [f"{acted[emotion]} {emotion} as {label}" for emotion, label in mapping.items()]
            logger.info("clips by the label map of recipe %s: %s", recipe.name, ", ".join(mapped))
        left_out = [f"{n} {emotion}" for emotion, n in sorted(there.items()) if emotion not in recipe.labels]
        if left_out:
            logger.info(
                "clips left out, not among the labels of recipe %s: %s", recipe.name, ", ".join(left_out)
            )
        return read


def run(
    recipe: Recipe,
    protocol: Protocol,
    seeds: Sequence[int],
    workplace: Workplace,
    on_epoch: Callable[[str, Epoch], None],
) -> Predictions:
    """Train and test every fold with every seed, which also draws lines and keeps other noises for tests.

    Folds that an earlier run finished are read back, unless their clips or lists have changed since.

    Raises:
        ConfigError: a fold has nothing to train on or to test.
    """
    clean = workplace.windows(recipe, [CLEAN_CONDITION])
    folder = workplace.folder(recipe) / protocol.name
    folder.mkdir(exist_ok=True)
    folds = _folds(recipe, protocol, clean.clips, workplace)
    alone = len(folds) == 1
    before = workplace.learned_before(recipe)
    data = [_digest(clean, fold, before, alone=alone) for fold in folds]
    trainings = []
    for seed in seeds:
        paths = [folder / f"seed-{seed}-fold-{number + 1}.npz" for number in range(len(folds))]
        for path, digest in zip(paths, data, strict=True):
            if path.is_file() and data_of(path) not in ("", digest):
                logger.warning("%s: the recordings, their labels or the folds have changed; once more", path)
                (folder / RUN_FILE).unlink(missing_ok=True)  # it describes the clips as they were
                path.unlink()
        missing = [
            (fold, path, digest)
            for fold, path, digest in zip(folds, paths, data, strict=True)
            if not path.is_file()
        ]
        if missing:
            title = f"{protocol.name}, seed {seed}"
            _run_seed(recipe.with_seed(seed), missing, workplace, title, on_epoch, alone=alone)
        trainings += [(seed, path.stem) for path in paths]
    heard = _heard(clean, folds) if recipe.baseline else {}
    known = Targets.of(clean, recipe.labels).known
    for fold in folds:
        taught = {clean.clips[i].emotion for i in _taught(recipe, fold, alone=alone)}
        known[fold.test + (fold.valid if alone else [])] &= [label in taught for label in recipe.labels]
    write_run(folder, recipe, protocol.name, trainings, clean.clips, known, heard, clean.digest + before)
    return read_run(folder)[2]


def _run_seed(
    recipe: Recipe,
    missing: Sequence[tuple[Fold, Path, str]],
    workplace: Workplace,
    title: str,
    on_epoch: Callable[[str, Epoch], None],
    *,
    alone: bool,
) -> None:
    """Train and test, with the seed of the recipe, folds whose file is missing; last stands the `_digest`."""
    windows = workplace.windows(recipe)
    tests = workplace.windows(recipe, TEST_CONDITIONS)
    pretrained = _pretrained(recipe, workplace, on_epoch)
    for fold, path, digest in missing:
        fold_title, began = f"{title}, {fold.name}", time.perf_counter()
        trained = train_fold(
            recipe,
            fold,
            windows,
            path.with_suffix(".pt"),
            partial(on_epoch, fold_title),
            workplace.device,
            pretrained,
            alone=alone,
        )
        parts = list(_test(trained, fold.name, tests.of_clips(fold.test)))
        if alone and fold.valid:
            parts += _test(trained, fold.name, tests.of_clips(fold.valid), valid=True)
        write_parts(path, parts, digest)
        path.with_suffix(".pt").unlink(missing_ok=True)  # what is only solved for has none
        logger.info("%s: trained and tested in %.0f s", fold_title, time.perf_counter() - began)


def train_all(recipe: Recipe, workplace: Workplace, on_epoch: Callable[[str, Epoch], None]) -> Trained:
    """Train on all speakers of a recipe's corpora, to the last epoch."""
    # First, as they show what is wrong with the recipe, and their bar would run over that of the epochs.
    windows = workplace.windows(recipe)
    pretrained = _pretrained(recipe, workplace, on_epoch)
    checkpoint = workplace.folder(recipe) / f"seed-{recipe.training.seed}.pt"
    told = partial(on_epoch, recipe.name)
    return _train(recipe, windows, None, checkpoint, told, workplace.device, pretrained)


def train_fold(
    recipe: Recipe,
    fold: Fold,
    windows: WindowSet,
    checkpoint: Path,
    on_epoch: Callable[[Epoch], None],
    device: torch.device,
    pretrained: Trained | None,
    *,
    alone: bool,
) -> Trained:
    """Train on a fold; who chooses no epoch and finds no temperature (of one ``alone``) is trained on too."""
    valid = windows.of_clips(fold.valid).of_line(0) if recipe.training.choose_epoch else None
    taught = windows.of_clips(_taught(recipe, fold, alone=alone))
    return _train(recipe, taught, valid, checkpoint, on_epoch, device, pretrained)


def _taught(recipe: Recipe, fold: Fold, *, alone: bool) -> list[int]:
    """Clips that a network learns from: those that choose its epoch or temperature are none of them."""
    return fold.train if recipe.training.choose_epoch or alone else fold.train + fold.valid


def _pretrained(
    recipe: Recipe, workplace: Workplace, on_epoch: Callable[[str, Epoch], None]
) -> Trained | None:
    """What the convolution begins with; its finished training is kept, and not gone through again."""
    before = workplace.before(recipe)
    if before is None:
        return None
    seed = recipe.training.seed
    checkpoint = workplace.folder(recipe) / f"pretraining-seed-{seed}.pt"
    told = partial(on_epoch, f"{recipe.name}, seed {seed}, pretraining")
    trained = train(before, workplace.windows(before), None, checkpoint, told, workplace.device)
    return replace(trained, data=workplace.learned_before(recipe))


def _folds(recipe: Recipe, protocol: Protocol, clips: list[corpora.Clip], workplace: Workplace) -> list[Fold]:
    folds = protocol.folds(clips, workplace.folds)
    alone = len(folds) == 1
    if recipe.training.choose_epoch or alone:
        folds = [with_validation(clips, fold) for fold in folds]
    for fold in folds:
        taught = _taught(recipe, fold, alone=alone)
        if not protocol.overlap:
            check_apart(clips, taught + fold.valid, fold)
        parts = {"test": fold.test, "training": taught}
        if recipe.training.choose_epoch:
            parts["validation"] = fold.valid
        for part, own in parts.items():
            if not own:
                raise ConfigError(
                    f"protocol {protocol.name}, {fold.name}: no {part} clips with a label of recipe "
                    f"{recipe.name}, wanted some; are all files of {', '.join(recipe.corpora)} there?"
                )
    if not folds:
        raise ConfigError(
            f"protocol {protocol.name}: no clips of {protocol.corpus} with a label of recipe {recipe.name}, "
            "wanted some to test"
        )
    return folds


def _heard(clean: WindowSet, folds: Sequence[Fold]) -> dict[str, dict[str, float]]:
    """Seconds that the clean test windows had really heard in the mean, by corpus and seconds wanted."""
    parts = [clean.of_clips(fold.test) for fold in folds]
    corpus = np.array([clean.clips[i].corpus for part in parts for i in part.clip])
    heard: dict[str, dict[str, float]] = {name: {} for name in np.unique(corpus).tolist()}
    for seconds in HEARD_S:
        there = np.concatenate([heard_at_most(part, seconds) for part in parts])
        for name, means in heard.items():
            means[f"{seconds:.0f}"] = round(float(there[corpus == name].mean()), 1)
    return heard


def _digest(windows: WindowSet, fold: Fold, before: str, *, alone: bool) -> str:
    parts: list[Any] = [windows.digest, fold]
    if before:
        parts.append(before)
    if alone:
        parts.append("validation speakers find the temperature")
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:16]


def _train(
    recipe: Recipe,
    windows: WindowSet,
    valid: WindowSet | None,
    checkpoint: Path,
    on_epoch: Callable[[Epoch], None],
    device: torch.device,
    pretrained: Trained | None,
) -> Trained:
    trained = train(recipe, windows, valid, checkpoint, on_epoch, device, pretrained)
    if trained.network.ridge is not None:
        solve(trained.network.ridge, recipe, windows, trained.spec)
    return trained


def _test(trained: Trained, fold: str, tests: WindowSet, *, valid: bool = False) -> Iterator[Part]:
    amounts = HEARD_S if trained.spec.baseline else HEARD_S[:1]
    for line, condition in enumerate(TEST_CONDITIONS):
        windows = tests.of_line(line)
        for heard_s in amounts:
            logits = logits_of(trained, windows, heard_s)
            yield Part(0, fold, condition, heard_s, logits, windows.clip.astype(np.int64), valid)
