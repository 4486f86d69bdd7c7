"""Who is trained on, who chooses, who is tested: every protocol as a list of folds of clips."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from serstream.errors import UNDECODABLE, ConfigError
from trainer.corpora import Clip
from trainer.corpora.clip import content

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Fold:
    """Indices into a list of clips; the parts share no speaker unless the protocol says so."""

    name: str
    train: list[int]
    valid: list[int]
    """Chooses the epoch, if the recipe wants it chosen, and finds the temperature of a fold that is the only
    one; otherwise it is trained on."""
    test: list[int]
    """Chooses nothing."""


@dataclass(frozen=True, slots=True)
class Protocol:
    """A published or own way to split one corpus (or all of a recipe's)."""

    name: str
    title: str
    corpus: str | None
    """The corpus that is tested (others of the recipe are always trained on); None: each of them."""
    overlap: bool
    """Speakers of the test part are also trained on: not comparable, and the table says so."""
    folds: Callable[[Sequence[Clip], Path], list[Fold]]
    """Takes the clips and the folder with fold files."""


class _Part(msgspec.Struct, frozen=True):
    """What a fold file says of a fold; other keys are ignored."""

    test_speakers: tuple[str, ...] | None = None
    valid_speakers: tuple[str, ...] | None = None
    test: tuple[str, ...] | None = None
    """Names of clips."""

    def __post_init__(self) -> None:
        if (self.test_speakers is None) == (self.test is None):
            raise ValueError("wanted either test_speakers or test, the names of clips")


class _Parts(msgspec.Struct, frozen=True):
    """A fold file."""

    folds: Annotated[tuple[_Part, ...], Meta(min_length=1)]


def leave_one_speaker_out(clips: Sequence[Clip], corpus: str) -> list[Fold]:
    """Every speaker of the corpus tests once; the next one validates."""
    speakers = sorted({clip.speaker for clip in clips if clip.corpus == corpus})
    following = speakers[1:] + speakers[:1]
    return [
        _by_speaker(clips, speaker, test={speaker}, valid={other})
        for speaker, other in zip(speakers, following, strict=True)
    ]


def leave_one_corpus_out(clips: Sequence[Clip]) -> list[Fold]:
    """Every corpus tests once, on the labels that the others have; every tenth other speaker validates.

    Raises:
        ConfigError: there is only one corpus, or one has no label of the others.
    """
    folds = []
    corpora = sorted({clip.corpus for clip in clips})
    if len(corpora) < 2:
        raise ConfigError(f"the only corpus is {', '.join(corpora)}, wanted two or more to leave one out")
    for corpus in corpora:
        known = {clip.emotion for clip in clips if clip.corpus != corpus}
        others = sorted({clip.speaker for clip in clips if clip.corpus != corpus})
        fold = _by_speaker(
            clips,
            f"without {corpus}",
            test={clip.speaker for clip in clips if clip.corpus == corpus},
            valid=set(others[::10]),
        )
        shared = [i for i in fold.test if clips[i].emotion in known]
        if not shared:
            raise ConfigError(f"corpus {corpus} has no label of the others, wanted one to test it on")
        folds.append(Fold(fold.name, fold.train, fold.valid, shared))
    return folds


def by_speakers(clips: Sequence[Clip], n_folds: int) -> list[Fold]:
    """Speakers of every corpus dealt into at most ``n_folds`` groups: one tests, the next one validates."""
    n_speakers = len({clip.speaker for clip in clips})
    if n_speakers < 3:
        raise ConfigError(
            f"the corpora have {n_speakers} speakers, wanted at least 3 to keep training and test apart"
        )
    n_folds = min(n_folds, n_speakers)
    groups = deal(clips, n_folds)
    return [
        _by_speaker(clips, f"group {k + 1}", test=groups[k], valid=groups[(k + 1) % n_folds])
        for k in range(n_folds)
    ]


def from_file(clips: Sequence[Clip], corpus: str, path: Path) -> list[Fold]:
    """Folds of a JSON file: per fold ``test_speakers`` (and ``valid_speakers``), or clip names in ``test``.

    Where no validation part is given, it is the next fold's test speakers, or, when clips are listed, no one
    (see `with_validation`).
    What is listed and not among the clips is counted in a warning.
    """
    parts = _read(path)
    own = [clip for clip in clips if clip.corpus == corpus]
    for key, there in (
        ("test_speakers", {clip.speaker for clip in own}),
        ("test", {clip.name for clip in own}),
    ):
        listed = {name for part in parts for name in getattr(part, key) or ()}
        if missing := sorted(listed - there):
            logger.warning(
                "folds %s: %s of the %s they list are not among the clips with a label of the recipe: %s",
                path,
                len(missing),
                len(listed),
                ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else ""),
            )
    folds = []
    for k, part in enumerate(parts):
        if part.test_speakers is not None:
            following = parts[(k + 1) % len(parts)].test_speakers
            valid = set(following or () if part.valid_speakers is None else part.valid_speakers)
            folds.append(_by_speaker(clips, f"fold {k + 1}", test=set(part.test_speakers), valid=valid))
            continue
        names = set(part.test or ())
        chosen = [clip.corpus == corpus and clip.name in names for clip in clips]
        folds.append(
            Fold(
                f"fold {k + 1}",
                train=[i for i, test in enumerate(chosen) if not test],
                valid=[],
                test=[i for i, test in enumerate(chosen) if test],
            )
        )
    return folds


def with_validation(clips: Sequence[Clip], fold: Fold) -> Fold:
    """The same fold, where nobody validates with every tenth woman and man of those it trains on doing so.

    They are taken from the corpora that it tests; where speakers overlap, other clips of theirs are tested.
    """
    if fold.valid:
        return fold
    tested = {clips[i].corpus for i in fold.test}
    speakers = sorted({(clip.corpus, clip.sex, clip.speaker) for clip in (clips[i] for i in fold.train)})
    alike = [list(group) for _, group in groupby(speakers, key=lambda speaker: speaker[:2])]
    chosen = {speaker for group in alike for corpus, _, speaker in group[::10] if corpus in tested}
    return replace(
        fold,
        train=[i for i in fold.train if clips[i].speaker not in chosen],
        valid=[i for i in fold.train if clips[i].speaker in chosen],
    )


def check_apart(clips: Sequence[Clip], taught: Sequence[int], fold: Fold) -> None:
    """A report would call voices new that were trained on.

    Raises:
        ConfigError: a speaker or a recording is both taught and tested.
    """
    voices: list[object] = [clip.speaker for clip in clips]
    recordings: list[object] = [content(clip.path) for clip in clips]
    for what, of in (("a speaker", voices), ("a recording", recordings)):
        heard = {of[i]: i for i in taught}
        if both := [i for i in fold.test if of[i] in heard]:
            tested, trained = clips[both[0]], clips[heard[of[both[0]]]]
            raise ConfigError(
                f"{fold.name} tests {len(both)} clips of {what} that it trains on, wanted none: "
                f"{tested.path} of {tested.speaker} beside {trained.path} of {trained.speaker}"
            )


def _listed(name: str, title: str, corpus: str, file: str, *, overlap: bool = False) -> Protocol:
    """The folds of a file."""
    return Protocol(
        name, title, corpus, overlap, lambda clips, folder: from_file(clips, corpus, folder / file)
    )


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            "emo-db-loso",
            "EMO-DB, leave one speaker out",
            "emo-db",
            overlap=False,
            folds=lambda clips, _: leave_one_speaker_out(clips, "emo-db"),
        ),
        _listed("emo-db-emobox", "EmoBox EMO-DB, 5 folds", "emo-db", "emobox-emodb.json", overlap=True),
        _listed("ravdess-5fold", "RAVDESS, 5 folds (Luna-Jiménez)", "ravdess", "ravdess-5fold.json"),
        _listed("ravdess-emobox", "EmoBox RAVDESS, 6 folds", "ravdess", "emobox-ravdess.json"),
        _listed("crema-d-evar", "CREMA-D, EVAR", "crema-d", "cremad-evar.json"),
        _listed("crema-d-emosuperb", "CREMA-D, EMO-SUPERB 5 folds", "crema-d", "cremad-emosuperb.json"),
        _listed("crema-d-emobox", "EmoBox CREMA-D", "crema-d", "emobox-cremad.json", overlap=True),
        Protocol(
            "speakers",
            "held-out speakers of every corpus, 5 folds",
            None,
            overlap=False,
            folds=lambda clips, _: by_speakers(clips, 5),
        ),
        Protocol(
            "corpora",
            "leave one corpus out, shared classes",
            None,
            overlap=False,
            folds=lambda clips, _: leave_one_corpus_out(clips),
        ),
    )
}


def _by_speaker(clips: Sequence[Clip], name: str, *, test: set[str], valid: set[str]) -> Fold:
    parts: tuple[list[int], list[int], list[int]] = ([], [], [])
    for i, clip in enumerate(clips):
        parts[2 if clip.speaker in test else 1 if clip.speaker in valid else 0].append(i)
    return Fold(name, *parts)


def deal(clips: Sequence[Clip], n_groups: int) -> list[set[str]]:
    """Women and men of every corpus are dealt in turn, so that the groups are alike."""
    speakers = sorted({(clip.corpus, clip.sex, clip.speaker) for clip in clips})
    groups: list[set[str]] = [set() for _ in range(n_groups)]
    for i, (_, _, speaker) in enumerate(speakers):
        groups[i % n_groups].add(speaker)
    return groups


def _read(path: Path) -> tuple[_Part, ...]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Parts).folds
    except (OSError, *UNDECODABLE) as error:
        raise ConfigError(
            f"folds {path}: cannot read them: {error}; give their folder with --folds"
        ) from error
