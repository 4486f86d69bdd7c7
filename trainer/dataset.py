"""Features of a corpus under one condition, computed once and kept on disk by content and recipe."""

from __future__ import annotations

import hashlib
import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from serstream.config import SegmenterSettings
from serstream.emotion.features import FeatureSpec, FloatArray, levels_dbfs, mfcc, summarise
from serstream.types import Samples
from trainer.augment import (
    CLEAN,
    SPEECH_DBFS,
    Augmentation,
    Line,
    Sounds,
    beside_neutral,
    draw_line,
    level_dbfs,
    test_line,
    transmit,
)
from trainer.corpora import Clip
from trainer.corpora.clip import content
from trainer.whole import BROKEN_ARRAYS, whole
from trainer.windows import cut, in_silence, load_clip

logger = logging.getLogger(__name__)

FORMAT = 7
"""Raise it when the code here or in augment.py gives other features for the same recipe."""

SEGMENTER = SegmenterSettings()
"""The daemon's defaults: training windows are the daemon's windows."""

SHARD = ("features", "functionals", "levels", "seconds", "clip", "silent")
"""Arrays of a file in the cache."""
CLEAN_CONDITION = "clean"
TRAIN_CONDITION = "train-"
"""Begins the names of the augmented ones."""


@dataclass(frozen=True, slots=True, eq=False)
class WindowSet:
    """Windows of many clips."""

    features: NDArray[np.float16]
    """(n_windows, n_coeffs, n_frames); half precision halves the memory, and rounds far below the noise."""
    functionals: FloatArray
    """(n_windows, n_functionals); no columns where the recipe has none."""
    levels: FloatArray
    """RMS level of every window before it was normalised, dBFS, shape (n_windows,)."""
    seconds: FloatArray
    """Sound of every window that no earlier window of its clip held, shape (n_windows,)."""
    clip: NDArray[np.int32]
    """Index of the clip each window is cut from."""
    line: NDArray[np.int32]
    """Number of the condition; windows of one speaker and line share voice, room, noise and codec."""
    clips: list[Clip]
    silent: int
    """Clips (times conditions) in which no speech was detected."""
    source: str
    """SHA-256 of the recordings, of what is said of each, and of the sounds they are augmented with."""

    @property
    def digest(self) -> str:
        """Changes with the recordings, with what is said of them, and with which of them are chosen."""
        chosen = np.unique(self.clip).tolist()
        return hashlib.sha256(msgspec.json.encode([self.source, chosen])).hexdigest()[:16]

    def of_clips(self, chosen: Iterable[int]) -> WindowSet:
        """Only the windows of some clips; ``clips`` and their indices stay."""
        return self.at(np.isin(self.clip, list(chosen)))

    def of_line(self, line: int) -> WindowSet:
        """Only the windows of one condition."""
        return self.at(self.line == line)

    def at(self, chosen: NDArray[np.bool_] | NDArray[np.intp]) -> WindowSet:
        """Only the windows at some places; ``clips`` and their indices stay."""
        return replace(
            self,
            features=self.features[chosen],
            functionals=self.functionals[chosen],
            levels=self.levels[chosen],
            seconds=self.seconds[chosen],
            clip=self.clip[chosen],
            line=self.line[chosen],
        )

    def relabelled(self, label_map: Mapping[str, str]) -> WindowSet:
        """The same windows, of clips whose emotions are called otherwise."""
        return replace(
            self,
            clips=[clip.relabelled(label_map) for clip in self.clips],
            source=hashlib.sha256(msgspec.json.encode([self.source, label_map])).hexdigest(),
        )

    def with_emotions(self, labels: Sequence[str]) -> WindowSet:
        """Without the clips of other emotions; the rest is numbered anew."""
        kept = [i for i, clip in enumerate(self.clips) if clip.emotion in labels]
        chosen = self.of_clips(kept)
        return replace(
            chosen,
            clip=np.searchsorted(kept, chosen.clip).astype(np.int32),
            clips=[self.clips[i] for i in kept],
        )


@dataclass(frozen=True, slots=True)
class Preparation:
    """Everything that decides what the cached features of a corpus are."""

    spec: FeatureSpec
    augmentation: Augmentation
    sounds: Sounds
    cache: Path
    seed: int = 0
    """Draws the lines; ``sounds`` are to be loaded with it, too."""
    segmenter: SegmenterSettings = SEGMENTER

    def conditions(self) -> list[str]:
        """Names of the conditions that training uses: clean, and one per augmented line."""
        return [CLEAN_CONDITION, *(f"{TRAIN_CONDITION}{i}" for i in range(self.augmentation.variants))]

    def shard(self, clips: list[Clip], condition: str) -> Path:
        """File that holds, or will hold, the features of a corpus under a condition."""
        digest = hashlib.sha256(condition.encode())
        digest.update(str(FORMAT).encode())
        digest.update(self.spec.to_json().encode())
        digest.update(msgspec.json.encode(self.segmenter))
        if condition != CLEAN_CONDITION:
            digest.update(self.sounds.digest() + str(self.seed).encode())
        if condition.startswith(TRAIN_CONDITION):
            digest.update(msgspec.json.encode(msgspec.structs.replace(self.augmentation, variants=0)))
            if self.augmentation.neutral:
                digest.update(" ".join(clip.emotion for clip in clips).encode())
        for clip in clips:
            digest.update(f"{clip.name} {_own_name(clip)} ".encode() + content(clip.path))
        return self.cache / f"{clips[0].corpus}-{condition}-{digest.hexdigest()[:16]}.npz"

    def arrays(
        self, clips: list[Clip], condition: str, on_clip: Callable[[], None]
    ) -> dict[str, NDArray[Any]]:
        """Features of one corpus under one condition, by name.

        They are computed, and kept, where they are not in the cache or cannot be read; ``on_clip`` is told
        about every clip then.
        """
        path = self.shard(clips, condition)
        if not path.is_file():
            self._compute(clips, condition, path, on_clip)
        try:
            return _read(path)
        except BROKEN_ARRAYS as error:
            logger.warning("%s: cannot read it: %s; computed anew", path, error)
            self._compute(clips, condition, path, on_clip)
            return _read(path)

    def _compute(self, clips: list[Clip], condition: str, path: Path, on_clip: Callable[[], None]) -> None:
        augmented = condition.startswith(TRAIN_CONDITION)
        features, functionals, levels, seconds, clip_index, silent = [], [], [], [], [], 0
        for speaker in sorted({_own_name(clip) for clip in clips}):
            own = [i for i, clip in enumerate(clips) if _own_name(clip) == speaker]
            rng = np.random.default_rng([self.seed, *f"{condition} {speaker}".encode()])
            line = self._line(condition, rng)
            loudness = [level_dbfs(load_clip(clips[i])) for i in own]
            gain = np.float32(10 ** ((SPEECH_DBFS - np.median(loudness)) / 20))
            neutral = [clips[i] for i in own if clips[i].emotion == "neutral"]
            for i in own:
                sound = load_clip(clips[i])
                if augmented and neutral and clips[i].emotion != "neutral":
                    sound = self._beside_neutral(sound, neutral, rng)
                sound = in_silence(sound * gain)
                pieces = cut(transmit(sound, line, rng), self.spec, self.segmenter)
                if augmented and line.noise is not None:
                    quiet = transmit(sound, replace(line, noise=None), rng)
                    pieces = pieces.within(cut(quiet, self.spec, self.segmenter))
                silent += not pieces.spoken
                rows = mfcc(pieces.windows, self.spec)
                features.append(rows.astype(np.float16))
                functionals.append(summarise(rows, self.spec))
                levels.append(levels_dbfs(pieces.windows))
                seconds.extend(pieces.seconds)
                clip_index.extend([i] * len(pieces.windows))
                on_clip()
        self.cache.mkdir(parents=True, exist_ok=True)
        with whole(path) as unfinished:
            np.savez(
                unfinished,
                features=np.concatenate(features),
                functionals=np.concatenate(functionals),
                levels=np.concatenate(levels),
                seconds=np.array(seconds, np.float32),
                clip=np.array(clip_index, np.int32),
                silent=np.array(silent),
            )

    def _line(self, condition: str, rng: np.random.Generator) -> Line:
        if condition == CLEAN_CONDITION:
            return CLEAN
        if condition.startswith(TRAIN_CONDITION):
            return draw_line(self.augmentation, self.sounds, rng)
        return test_line(condition, self.sounds, rng)

    def _beside_neutral(self, sound: Samples, neutral: list[Clip], rng: np.random.Generator) -> Samples:
        if rng.random() >= self.augmentation.neutral:
            return sound
        other = load_clip(neutral[rng.integers(len(neutral))])
        return beside_neutral(sound, other, self.spec.n_samples // 2, rng)


def gather(preparation: Preparation, clips: list[Clip], conditions: list[str]) -> WindowSet:
    """Windows of clips of any corpora under some conditions, from the cache where they are there.

    What is computed is a progress bar on a terminal; elsewhere every part is a line.
    """
    parts: dict[str, list[NDArray[Any]]] = {
        name: [] for name in ("features", "functionals", "levels", "seconds", "clip", "line")
    }
    silent = 0
    names = sorted({clip.corpus for clip in clips})
    shards = [(name, line, condition) for name in names for line, condition in enumerate(conditions)]
    with _progress(len(clips) * len(conditions)) as (bar, task):

        def on_clip() -> None:
            bar.start()  # not before: what is all in the cache wants no bar
            bar.advance(task)

        done = 0
        for number, (name, line, condition) in enumerate(shards, start=1):
            own = [i for i, clip in enumerate(clips) if clip.corpus == name]
            began = time.perf_counter()
            bar.update(task, completed=done, description=f"features of {name}, {condition}")
            shard = preparation.arrays([clips[i] for i in own], condition, on_clip)
            done += len(own)
            for array in ("features", "functionals", "levels", "seconds"):
                parts[array].append(shard[array])
            parts["clip"].append(np.array(own, np.int32)[shard["clip"]])
            parts["line"].append(np.full(len(shard["clip"]), line, np.int32))
            silent += int(shard["silent"])
            if bar.disable:
                logger.info(
                    "features %s of %s: %s, %s: %s windows, %s clips without detected speech, %.0f s",
                    number,
                    len(shards),
                    name,
                    condition,
                    len(shard["clip"]),
                    shard["silent"],
                    time.perf_counter() - began,
                )
        bar.update(task, completed=done)
    joined = {name: np.concatenate(arrays) for name, arrays in parts.items()}
    return WindowSet(
        **joined,
        clips=clips,
        silent=silent,
        source=fingerprint(clips, str(FORMAT).encode() + preparation.sounds.digest()),
    )


@contextmanager
def _progress(n_clips: int) -> Iterator[tuple[Progress, TaskID]]:
    """A bar that the first clip starts; disabled off a terminal."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("clips"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
    )
    try:
        yield bar, bar.add_task("", total=n_clips)
    finally:
        if not bar.disable:
            bar.stop()


def _read(path: Path) -> dict[str, NDArray[Any]]:
    with np.load(path) as stored:
        return {name: stored[name] for name in SHARD}


def _own_name(clip: Clip) -> str:
    """The speaker as the corpus names it: the draws of its lines do not depend on the name of the folder."""
    return clip.speaker.removeprefix(f"{clip.corpus}/")


def fingerprint(clips: Sequence[Clip], beside: bytes = b"") -> str:
    """SHA-256, in hex, of recordings, of what is said about them, and of what else made the windows."""
    digest = hashlib.sha256(beside)
    for clip in clips:
        said = (clip.name, clip.corpus, clip.speaker, clip.sex, clip.emotion)
        digest.update(msgspec.json.encode(said) + content(clip.path))
    return digest.hexdigest()
