"""Clips and their augmented copies as features of one system, computed once and kept on disk."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from serstream.emotion.features import FloatArray
from trainer.comparison.copies import Effect, copy
from trainer.comparison.system import System, canonical
from trainer.corpora import Clip
from trainer.whole import BROKEN_ARRAYS, whole
from trainer.windows import load_clip

logger = logging.getLogger(__name__)

FORMAT = 2
"""Raise it when the code here, in windows.py, features.py or copies.py gives other features for a recipe."""


@dataclass(frozen=True, slots=True, eq=False)
class Examples:
    """What a network is trained and tested on: every clip, then its copies."""

    features: FloatArray
    """(n, ...)"""
    clip: NDArray[np.int64]
    """Index of the clip, (n,)."""
    original: NDArray[np.bool_]
    """False for augmented copies, (n,)."""


def gather(
    system: System, clips: list[Clip], effects: tuple[Effect, ...], n_copies: int, cache: Path
) -> Examples:
    """Features of clips and of ``n_copies`` copies of each.

    The effects go round from clip to clip, so that with fewer copies than effects all are still heard; with
    as many, every clip has each.
    """
    layers = [_layer(system, clips, (), 0, cache)]
    layers += [_layer(system, clips, effects, number, cache) for number in range(n_copies)]
    index = np.arange(len(clips))
    return Examples(
        np.concatenate(layers),
        np.tile(index, len(layers)),
        np.repeat([True, *[False] * n_copies], len(clips)),
    )


def _layer(
    system: System, clips: list[Clip], effects: tuple[Effect, ...], number: int, cache: Path
) -> FloatArray:
    """Features of one copy of each clip, or of the clips themselves where there are no effects."""
    digest = hashlib.sha256(f"{FORMAT} {system.features} {system.trim} {effects} {number}".encode())
    digest.update(canonical(system.spec))
    for clip in clips:
        digest.update(f"{clip.name} {clip.sex} ".encode() + hashlib.sha256(clip.path.read_bytes()).digest())
    path = cache / f"{clips[0].corpus}-{system.features}-{digest.hexdigest()[:16]}.npy"
    if path.is_file():
        try:
            kept: FloatArray = np.load(path)
        except BROKEN_ARRAYS as error:
            logger.warning("%s: cannot read it: %s; computed anew", path, error)
        else:
            return kept
    logger.info("%s: features of %s clips", path.name, len(clips))
    feature_set = system.feature_set()
    rows = []
    for i, clip in enumerate(clips):
        samples = load_clip(clip)
        if effects:
            rng = np.random.default_rng(list(f"{clip.name} {number}".encode()))
            samples = copy(samples, effects[(i + number) % len(effects)], rng)
        rows.append(feature_set(samples, clip))
    cache.mkdir(parents=True, exist_ok=True)
    features = np.stack(rows)
    with whole(path) as unfinished:
        np.save(unfinished, features)
    return features
