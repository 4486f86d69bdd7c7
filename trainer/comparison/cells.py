"""One cell of the comparison: a system on a corpus under a protocol, trained and tested split by split."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import torch

from serstream.emotion.metadata import ModelMetadata
from serstream.errors import ModelError
from trainer.comparison.copies import Effect
from trainer.comparison.examples import Examples, gather
from trainer.comparison.forest import Forest
from trainer.comparison.learning import Epoch, Learner, NetworkLearner
from trainer.comparison.splits import Protocol, n_splits, split
from trainer.comparison.system import FOREST, System
from trainer.corpora import KNOWN, Clip
from trainer.evaluation import confusion

logger = logging.getLogger(__name__)

LEAK_COPIES: tuple[Effect, ...] = ("noise", "pitch")
"""What protocol ``leak`` copies for a system whose study made no copies."""


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What one split brought, as it is kept in its JSON file."""

    labels: tuple[str, ...]
    confusion: list[list[int]]
    """Test examples; rows are true labels."""
    n_train: int
    n_copies: int
    """Augmented copies of each clip."""
    n_parameters: int
    """As Keras counts them; of a forest 0."""
    history: list[Epoch]
    """Of a forest empty."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much of the studies' work is done."""

    full: bool
    """All epochs, copies and splits; otherwise what the recipes' ``[short]`` says."""
    seed: int

    def epochs(self, system: System) -> int:
        """At most so many."""
        return system.training.epochs if self.full else system.short.epochs

    def clips(self, system: System) -> int | None:
        """Trained on, at most; None is no limit."""
        return None if self.full else system.short.clips

    def splits(self, system: System, protocol: Protocol, clips: list[Clip]) -> int:
        """How many are run."""
        there = n_splits(protocol, clips, system.test_share)
        return there if self.full else min(there, system.short.splits)

    def copies(self, system: System, protocol: Protocol) -> tuple[tuple[Effect, ...], int]:
        """Their effects, and how many each clip has."""
        effects = system.copies or (LEAK_COPIES if protocol == "leak" else ())
        return effects, len(effects) if self.full else min(len(effects), system.short.copies)


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell and where its results are.

    The network that never heard the first group of speakers is kept beside its result, as ``.onnx``; the
    daemon loads it if its features are MFCC.
    """

    name: str
    """Of the system's recipe."""
    system: System
    corpus: str
    """Or several, joined with a plus sign."""
    protocol: Protocol
    plan: Plan
    folder: Path
    """Of all results."""

    def path(self, number: int) -> Path:
        """The result of a split."""
        stem = self._stem(number)
        return stem.with_name(f"{stem.name}-{self.plan.epochs(self.system)}-epochs.json")

    def _stem(self, number: int) -> Path:
        """What trainings of a split have in common that differ in the number of epochs alone."""
        n_copies = self.plan.copies(self.system, self.protocol)[1]
        clips = f"{self.plan.clips(self.system)}-clips-" if self.plan.clips(self.system) else ""
        return (
            self.folder
            / f"{self.name}-{self.system.sha256[:8]}"
            / f"{self.corpus}-{self.protocol}-{number + 1}-{n_copies}-copies-{clips}seed-{self.plan.seed}"
        )

    def results(self, clips: list[Clip]) -> list[Result]:
        """Of the splits that were run."""
        paths = [self.path(number) for number in self._numbers(clips)]
        return [msgspec.json.decode(path.read_bytes(), type=Result) for path in paths if path.is_file()]

    def run(
        self, clips: list[Clip], device: torch.device, on_epoch: Callable[[str, int, Epoch], None]
    ) -> None:
        """Train and test every split that has no result yet."""
        missing = [number for number in self._numbers(clips) if not self.path(number).is_file()]
        if not missing:
            return
        copies = self.plan.copies(self.system, self.protocol)
        examples = gather(self.system, clips, *copies, self.folder / "features")
        for number in missing:
            title = f"{self.name}, {self.corpus}, {self.protocol}, split {number + 1}"
            self._run(number, clips, examples, device, partial(on_epoch, title))

    def _numbers(self, clips: list[Clip]) -> range:
        return range(self.plan.splits(self.system, self.protocol, clips))

    def _run(
        self,
        number: int,
        clips: list[Clip],
        examples: Examples,
        device: torch.device,
        on_epoch: Callable[[int, Epoch], None],
    ) -> None:
        system, path = self.system, self.path(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        labels = tuple(sorted({clip.emotion for clip in clips}))
        label = np.array([labels.index(clips[i].emotion) for i in examples.clip])
        parts = split(self.protocol, number, clips, examples, system.test_share, system.valid_share)
        parts = parts.of_at_most(self.plan.clips(system), examples, number)
        learner = self._learner(examples.features.shape[1:], len(labels), device)
        checkpoint = self._stem(number).with_suffix(".pt")
        history = learner.fit(examples.features, label, parts, checkpoint, on_epoch)
        predicted = learner.predict(examples.features[parts.test])
        result = Result(
            labels=labels,
            confusion=confusion(label[parts.test], predicted, len(labels)).tolist(),
            n_train=len(parts.train),
            n_copies=self.plan.copies(system, self.protocol)[1],
            n_parameters=learner.n_parameters,
            history=history,
        )
        unfinished = path.with_suffix(".tmp")
        unfinished.write_bytes(msgspec.json.encode(result))
        os.replace(unfinished, path)
        if len(history) < self.plan.epochs(system) or self.plan.epochs(system) == system.training.epochs:
            checkpoint.unlink(missing_ok=True)  # else a run of more epochs goes on from it
        if self.protocol == "speakers" and number == 0:
            tried = examples.features[parts.test[:8]]
            try:
                learner.export(self._metadata(labels), path.with_suffix(".onnx"), tried)
            except ModelError as error:  # the result stands, and hours of other cells are to come
                logger.warning("not kept as ONNX: %s", error)

    def _learner(self, shape: tuple[int, ...], n_labels: int, device: torch.device) -> Learner:
        system, seed = self.system, self.plan.seed
        if system.network == FOREST:
            return Forest(seed)
        torch.manual_seed(seed)
        network = system.build(shape, n_labels)
        return NetworkLearner(network, system.training, self.plan.epochs(system), seed, device)

    def _metadata(self, labels: tuple[str, ...]) -> ModelMetadata | None:
        """None where the daemon does not compute what the network hears."""
        if self.system.spec is None:
            return None
        licences = {
            name: KNOWN[name].licence if name in KNOWN else "see its folder"
            for name in self.corpus.split("+")
        }
        return ModelMetadata(
            name=self.name,
            version=1,
            labels=labels,
            feature_spec=self.system.spec,
            temperature=1.0,
            licence=" AND ".join(sorted(set(licences.values()))),
            training_data=tuple(f"{name} ({licence})" for name, licence in licences.items()),
            protocol="a study's system, trained for docs/comparison.md: not calibrated, not for service",
        )
