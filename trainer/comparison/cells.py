"""One cell of the comparison: a system on a corpus under a protocol, trained and tested split by split."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import msgspec
import numpy as np
import torch

from serstream.emotion.metadata import ModelMetadata
from serstream.errors import ModelError
from trainer.comparison.copies import Effect
from trainer.comparison.examples import Examples, gather
from trainer.comparison.forest import Forest
from trainer.comparison.grid import GridSearch
from trainer.comparison.learning import Epoch, Learner, NetworkLearner
from trainer.comparison.splits import Protocol, n_splits, split
from trainer.comparison.system import FOREST, Learning, System
from trainer.corpora import KNOWN, Clip
from trainer.dataset import fingerprint
from trainer.evaluation import confusion
from trainer.whole import whole

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
    training: Learning | None = None
    """What it was trained with, chosen by a grid search where there is one; of a forest null."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much of the studies' work is done."""

    full: bool
    """All epochs, copies and splits; otherwise what the recipes' ``[short]`` says."""
    seed: int

    def epochs(self, system: System, clips: list[Clip]) -> int:
        """At most so many."""
        if self.full:
            return system.training.epochs
        learned_from = min(len(clips), system.short.clips or len(clips))
        return min(system.training.epochs, max(1, system.short.heard // learned_from))

    def clips(self, system: System) -> int | None:
        """Trained on, at most; None is no limit."""
        return None if self.full else system.short.clips

    def splits(self, system: System, protocol: Protocol, clips: list[Clip]) -> int:
        """How many are run."""
        there = n_splits(protocol, clips, system.test_share)
        return there if self.full or protocol == "corpora" else min(there, system.short.splits)

    def copies(self, system: System, protocol: Protocol) -> tuple[tuple[Effect, ...], int]:
        """Their effects, and how many each clip has."""
        effects = system.copies or (LEAK_COPIES if protocol == "leak" else ())
        return effects, len(effects) if self.full else min(len(effects), system.short.copies)


@dataclass(frozen=True)
class Cell:
    """A cell and where its results are; other recordings or labels have other results.

    The network that never heard the first group of speakers is kept beside its result, as ``.onnx``; the
    daemon loads it if its features are MFCC.
    """

    name: str
    """Of the system's recipe."""
    system: System
    corpus: str
    """Or several, joined with a plus sign."""
    clips: list[Clip]
    protocol: Protocol
    plan: Plan
    folder: Path
    """Of all results."""

    def path(self, number: int) -> Path:
        """The result of a split."""
        stem = self._stem(number)
        return stem.with_name(f"{stem.name}-{self.epochs}-epochs.json")

    @property
    def epochs(self) -> int:
        """At most so many."""
        return self.plan.epochs(self.system, self.clips)

    def _stem(self, number: int) -> Path:
        """What trainings of a split have in common that differ in the number of epochs alone."""
        n_copies = self.plan.copies(self.system, self.protocol)[1]
        clips = f"{self.plan.clips(self.system)}-clips-" if self.plan.clips(self.system) else ""
        return (
            self.folder
            / f"{self.name}-{self.system.sha256[:8]}"
            / f"{self.corpus}-{self._data[:8]}-{self.protocol}-{number + 1}-{n_copies}-copies-{clips}"
            f"seed-{self.plan.seed}"
        )

    @cached_property
    def _data(self) -> str:
        return fingerprint(self.clips)

    def results(self) -> list[Result]:
        """Of the splits that were run."""
        results = (self._result(number) for number in self._numbers())
        return [result for result in results if result is not None]

    def run(self, device: torch.device, on_epoch: Callable[[str, int, Epoch], None]) -> None:
        """Train and test every split that has no result yet."""
        missing = [number for number in self._numbers() if self._result(number) is None]
        if not missing:
            return
        copies = self.plan.copies(self.system, self.protocol)
        examples = gather(self.system, self.clips, *copies, self.folder / "features")
        for number in missing:
            title = f"{self.name}, {self.corpus}, {self.protocol}, split {number + 1}"
            self._run(number, examples, device, partial(on_epoch, title))

    def _result(self, number: int) -> Result | None:
        """None where there is none that can be read."""
        path = self.path(number)
        if not path.is_file():
            return None
        try:
            return msgspec.json.decode(path.read_bytes(), type=Result)
        except msgspec.MsgspecError as error:
            logger.warning("%s: cannot read it: %s; it counts as not run", path, error)
            return None

    def _numbers(self) -> range:
        return range(self.plan.splits(self.system, self.protocol, self.clips))

    def _run(
        self,
        number: int,
        examples: Examples,
        device: torch.device,
        on_epoch: Callable[[int, Epoch], None],
    ) -> None:
        system, clips, path = self.system, self.clips, self.path(number)
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
            training=learner.settings,
        )
        with whole(path) as unfinished:
            unfinished.write_bytes(msgspec.json.encode(result))
        if len(history) < self.epochs or self.epochs == system.training.epochs:
            for finished in checkpoint.parent.glob(f"{checkpoint.stem}.*pt"):
                finished.unlink()  # else a run of more epochs goes on from it
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

        def learn(settings: Learning) -> NetworkLearner:
            torch.manual_seed(seed)
            network = system.build(shape, n_labels)
            return NetworkLearner(network, settings, self.epochs, seed, device)

        points = system.points()
        return GridSearch(learn, points) if len(points) > 1 else learn(points[0])

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
