"""What the folds of a protocol scored, and how it is kept on disk.

The folder of a run holds, for every training, ``seed-S-fold-K.npz`` (scores of the test windows) and
``seed-S-fold-K.csv`` (its log), and ``run.json``, which says what they are: enough for every figure without
recordings, features or weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from serstream.emotion.features import FloatArray
from serstream.errors import ConfigError
from trainer import history
from trainer.corpora import Clip
from trainer.corpora.clip import Sex
from trainer.history import Epoch
from trainer.recipe import Recipe
from trainer.whole import BROKEN_ARRAYS, whole

RUN_FILE = "run.json"


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Windows of one fold under one condition."""

    seed: int
    fold: str
    condition: str
    heard_s: float
    logits: FloatArray
    """(n_windows, n_labels)"""
    clip: NDArray[np.int64]
    """Index of every window's clip."""
    valid: bool = False
    """They are of validation speakers that nothing was learned from, not of the test part."""


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """What all folds and seeds of a protocol scored."""

    labels: tuple[str, ...]
    clips: list[Clip]
    known: NDArray[np.bool_]
    """Labels that may be predicted for each clip: those its corpus has and its fold taught.

    Shape (n_clips, n_labels).
    """
    parts: list[Part]
    """Of the test windows."""
    histories: list[list[Epoch]]
    """Of every training."""
    data: str
    """`WindowSet.digest` of all clips; empty in runs that did not keep it."""
    heard: dict[str, dict[str, float]] = field(default_factory=dict)
    """Seconds of other speech that clean test windows had really heard in the mean, by corpus and by those
    wanted; empty in runs without a baseline and in those that did not keep it."""
    validation: list[Part] = field(default_factory=list)
    """Of the validation windows where there is a single fold, to find its temperature with; empty where there
    are more, and in runs that did not keep it."""

    @property
    def most_heard_s(self) -> float:
        """The most speech that is said to be heard before a window, in seconds."""
        return max(part.heard_s for part in self.parts)

    @property
    def label_of_clip(self) -> NDArray[np.int64]:
        """Index of every clip's true label, shape (n_clips,)."""
        return np.array([self.labels.index(clip.emotion) for clip in self.clips])

    def parts_of(self, condition: str, heard_s: float) -> list[Part]:
        """All folds and seeds under one condition, after so many seconds of other speech."""
        return [p for p in self.parts if p.condition == condition and p.heard_s == heard_s]

    def taught(self, part: Part) -> NDArray[np.bool_]:
        """Labels that some training clip of the part's fold has, shape (n_labels,).

        ``known`` tells it for the labels of the corpora that are tested; others are trained on as a whole.
        """
        tested = np.unique(part.clip)
        corpora = {self.clips[i].corpus for i in tested}
        others = {clip.emotion for clip in self.clips if clip.corpus not in corpora}
        taught: NDArray[np.bool_] = np.isin(self.labels, list(others))
        taught |= self.known[tested].any(axis=0)
        return taught


class ClipRecord(msgspec.Struct, frozen=True):
    """A clip without its sound."""

    file: str
    corpus: str
    speaker: str
    sex: Sex
    emotion: str
    language: str


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """``run.json``."""

    recipe: Recipe
    protocol: str
    trainings: list[tuple[int, str]]
    """Seed, and name of the files without suffix."""
    clips: list[ClipRecord]
    known: list[list[bool]]
    heard_by_corpus: dict[str, dict[str, float]] = {}
    data: str = ""


def write_parts(path: Path, parts: list[Part], data: str) -> None:
    """Keep the scores of one training as arrays in one file, whole or not at all.

    Args:
        path: of the file.
        parts: of one fold.
        data: digest of the clips and of the fold, see `data_of`.
    """
    sizes = [len(part.clip) for part in parts]
    with whole(path) as unfinished:
        np.savez(
            unfinished,
            fold=np.array(parts[0].fold),
            conditions=np.array([part.condition for part in parts]),
            heard_s=np.array([part.heard_s for part in parts]),
            valid=np.array([part.valid for part in parts]),
            ends=np.cumsum(sizes)[:-1],
            logits=np.concatenate([part.logits for part in parts]),
            clip=np.concatenate([part.clip for part in parts]),
            data=np.array(data),
        )


def data_of(path: Path) -> str:
    """Digest of the clips and of the fold that scores were made with; empty: it was not kept.

    Raises:
        ConfigError: the scores cannot be read.
    """
    with _scores(path) as stored:
        return str(stored["data"]) if "data" in stored else ""


def write_run(
    folder: Path,
    recipe: Recipe,
    protocol: str,
    trainings: list[tuple[int, str]],
    clips: list[Clip],
    known: NDArray[np.bool_],
    heard: dict[str, dict[str, float]],
    data: str,
) -> None:
    """Say what the scores in a folder are, once they are all there."""
    records = [
        ClipRecord(clip.path.name, clip.corpus, clip.speaker, clip.sex, clip.emotion, clip.language)
        for clip in clips
    ]
    run = Run(
        recipe=recipe,
        protocol=protocol,
        trainings=trainings,
        clips=records,
        known=known.tolist(),
        heard_by_corpus=heard,
        data=data,
    )
    with whole(folder / RUN_FILE) as unfinished:
        unfinished.write_bytes(msgspec.json.encode(run))


def read_run(folder: Path) -> tuple[Recipe, str, Predictions]:
    """Recipe, name of the protocol and scores of a finished run; the clips' paths are only file names.

    Raises:
        ConfigError: there is no finished run in the folder, or a part of it is missing or cannot be read.
    """
    try:
        run = msgspec.json.decode((folder / RUN_FILE).read_bytes(), type=Run)
        parts = [part for seed, name in run.trainings for part in _read_parts(folder / f"{name}.npz", seed)]
        histories = [history.read(folder / f"{name}.csv") for _, name in run.trainings]
    except FileNotFoundError as error:
        raise ConfigError(
            f"{error.filename}: no such file; a finished run has one, wanted a folder such as "
            "runs/NAME-HASH/PROTOCOL that 'serstream-train evaluate' went through to its end"
        ) from error
    except msgspec.MsgspecError as error:
        path = folder / RUN_FILE
        raise ConfigError(
            f"{path}: cannot read it: {error}; delete it and run 'serstream-train evaluate' again"
        ) from error
    clips = [
        Clip(Path(clip.file), clip.corpus, clip.speaker, clip.sex, clip.emotion, clip.language)
        for clip in run.clips
    ]
    known = np.array(run.known, np.bool_)
    heard = run.heard_by_corpus
    tests, validation = ([part for part in parts if part.valid is valid] for valid in (False, True))
    predictions = Predictions(run.recipe.labels, clips, known, tests, histories, run.data, heard, validation)
    return run.recipe, run.protocol, predictions


@contextmanager
def _scores(path: Path) -> Iterator[NpzFile]:
    try:
        with np.load(path) as stored:
            yield stored
    except BROKEN_ARRAYS as error:
        raise ConfigError(
            f"{path}: cannot read it: {error}; delete it and run 'serstream-train evaluate' again"
        ) from error


def _read_parts(path: Path, seed: int) -> list[Part]:
    with _scores(path) as stored:
        logits, clips = (np.split(stored[name], stored["ends"]) for name in ("logits", "clip"))
        conditions, heard = stored["conditions"].tolist(), stored["heard_s"].tolist()
        valid = stored["valid"].tolist() if "valid" in stored else [False] * len(conditions)
        fold = str(stored["fold"])
    return [Part(seed, fold, *part) for part in zip(conditions, heard, logits, clips, valid, strict=True)]
