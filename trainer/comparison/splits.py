"""Ways to part the same clips: what each of them lets the network know about its test."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split

from serstream.errors import ConfigError
from trainer.comparison.examples import Examples
from trainer.corpora import Clip
from trainer.folds import deal

Within: TypeAlias = Literal["random", "leak", "speakers"]
Protocol: TypeAlias = Within | Literal["corpora"]
PROTOCOLS: tuple[Within, ...] = get_args(Within)
"""Of one corpus; ``corpora`` wants several."""

Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Indices of examples."""

    train: Indices
    valid: Indices
    """Drawn from the training part; lowers the learning rate and stops training."""
    test: Indices

    def of_at_most(self, n_clips: int | None, examples: Examples, seed: int) -> Split:
        """The same, with so many training clips drawn; None leaves it."""
        taught = np.unique(examples.clip[self.train])
        if n_clips is None or n_clips >= len(taught):
            return self
        drawn = np.random.default_rng(seed).choice(taught, n_clips, replace=False)
        return replace(self, train=self.train[np.isin(examples.clip[self.train], drawn)])


def n_splits(protocol: Protocol, clips: list[Clip], test_share: float) -> int:
    """How many splits make every clip a test once, about."""
    if protocol == "corpora":
        return len(corpora_of(clips))
    wanted = round(1 / test_share)
    return min(wanted, len({clip.speaker for clip in clips})) if protocol == "speakers" else wanted


def corpora_of(clips: list[Clip]) -> list[str]:
    """Their names, in the order in which protocol ``corpora`` tests them."""
    return sorted({clip.corpus for clip in clips})


def shared(clips: list[Clip]) -> list[Clip]:
    """Those of emotions that all corpora have."""
    acted = [{clip.emotion for clip in clips if clip.corpus == name} for name in corpora_of(clips)]
    return [clip for clip in clips if clip.emotion in set.intersection(*acted)]


def split(
    protocol: Protocol,
    number: int,
    clips: list[Clip],
    examples: Examples,
    test_share: float,
    valid_share: float,
) -> Split:
    """Part the examples.

    ``random``: clips are drawn; copies of training clips are trained on, the others are tested without their
    copies. ``leak``: clips and copies are drawn alike, so that copies of what is tested are trained on.
    ``speakers``: as ``random``, with women and men dealt into groups of which one is tested. ``corpora``: as
    ``random``, with one corpus tested as a whole.

    Args:
        protocol: which of them.
        number: of the split; the draw's seed, or the group.
        clips: that are parted.
        examples: clips and copies.
        test_share: of clips, examples or speakers.
        valid_share: of the training part, drawn as ``random`` draws.

    Raises:
        ConfigError: there is one speaker or one corpus only.
    """
    emotion = np.array([clip.emotion for clip in clips])
    if protocol == "leak":
        everything = np.arange(len(examples.clip))
        train, test = _draw(everything, emotion[examples.clip], test_share, number)
        train, valid = _draw(train, emotion[examples.clip[train]], valid_share, number)
        return Split(train, valid, test)
    everyone = np.arange(len(clips))
    if protocol == "random":
        taught, tested = _draw(everyone, emotion, test_share, number)
    else:
        held_out = _held_out(protocol, number, clips, n_splits(protocol, clips, test_share))
        taught, tested = everyone[~held_out], everyone[held_out]
    taught, watched = _draw(taught, emotion[taught], valid_share, number)
    return Split(
        np.flatnonzero(np.isin(examples.clip, taught)),
        np.flatnonzero(np.isin(examples.clip, watched) & examples.original),
        np.flatnonzero(np.isin(examples.clip, tested) & examples.original),
    )


def _held_out(
    protocol: Literal["speakers", "corpora"], number: int, clips: list[Clip], n_groups: int
) -> NDArray[np.bool_]:
    if n_groups < 2:
        alone = clips[0].speaker if protocol == "speakers" else clips[0].corpus
        raise ConfigError(
            f"corpus {clips[0].corpus}: all clips are of {alone}, wanted at least two {protocol} to keep one "
            "of them for the test"
        )
    if protocol == "corpora":
        return np.array([clip.corpus == corpora_of(clips)[number] for clip in clips])
    return np.isin([clip.speaker for clip in clips], list(deal(clips, n_groups)[number]))


def _draw(indices: Indices, emotion: NDArray[np.str_], share: float, seed: int) -> tuple[Indices, Indices]:
    """All but a share, and the share, every emotion alike where there are clips enough."""
    counts = np.unique(emotion, return_counts=True)[1]
    n_share = round(share * len(indices))
    stratified = counts.min() >= 2 and min(n_share, len(indices) - n_share) >= len(counts)
    rest, drawn = train_test_split(
        indices, test_size=max(1, n_share), random_state=seed, stratify=emotion if stratified else None
    )
    return np.sort(rest), np.sort(drawn)
