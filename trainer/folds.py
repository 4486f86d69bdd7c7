"""Who is trained on, who chooses, who is tested: every protocol as a list of folds of clips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trainer.corpora import Clip


@dataclass(frozen=True, slots=True)
class Fold:
    """Indices into a list of clips; the parts share no speaker unless the protocol says so."""

    name: str
    train: list[int]
    valid: list[int]
    """Chooses the epoch and the temperature."""
    test: list[int]
    """Chooses nothing."""


def by_speakers(clips: Sequence[Clip], n_folds: int) -> list[Fold]:
    """Speakers of every corpus dealt into ``n_folds`` groups: one tests, the next one validates."""
    groups = _deal(clips, n_folds)
    folds = []
    for k in range(n_folds):
        test, valid = groups[k], groups[(k + 1) % n_folds]
        folds.append(_fold(clips, f"fold {k + 1}", test=test, valid=valid))
    return folds


def _fold(clips: Sequence[Clip], name: str, *, test: set[str], valid: set[str]) -> Fold:
    parts: tuple[list[int], list[int], list[int]] = ([], [], [])
    for i, clip in enumerate(clips):
        parts[2 if clip.speaker in test else 1 if clip.speaker in valid else 0].append(i)
    return Fold(name, *parts)


def _deal(clips: Sequence[Clip], n_groups: int) -> list[set[str]]:
    """Women and men of every corpus are dealt in turn, so that the groups are alike."""
    speakers = sorted({(clip.corpus, clip.sex, clip.speaker) for clip in clips})
    groups: list[set[str]] = [set() for _ in range(n_groups)]
    for i, (_, _, speaker) in enumerate(speakers):
        groups[i % n_groups].add(speaker)
    return groups
