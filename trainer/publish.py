"""The gate between a trained model and the repository that daemons load from.

A draft is published if it passes the daemon's own inspection (with ONNX's checker), computes what torch did,
reaches a floor on held-out speakers, and is not significantly worse there than the model that is active. All
windows are scored as the first of their stream.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from serstream.config import SegmenterSettings
from serstream.emotion.golden import FILE_NAME, GoldenClips
from serstream.emotion.inspection import inspect_apart
from serstream.emotion.loading import load_version
from serstream.emotion.model import ON_CPU, EmotionModel
from serstream.emotion.store import MODEL_FILE, POINTER_FILE, ModelStore, Reference, read_file
from serstream.errors import ModelError
from trainer.corpora import Clip
from trainer.corpora.clip import audio_files, content
from trainer.evaluation import MIN_SPEAKERS, confusion, drawn_uar, interval, uar
from trainer.export import CARD_FILE, TOLERANCE
from trainer.windows import cut, in_silence, load_clip

logger = logging.getLogger(__name__)

PARITY = TOLERANCE
"""Largest difference of a golden clip's probability from torch's: less than the daemon accepts, which may run
on another device."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the gate found."""

    uar: float
    """Unweighted average recall over the draft's own labels, one prediction per clip, 0 to 1."""
    speakers: int
    clips: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """Of a draft with the active model, over the labels that both have."""

    active: str
    """``name@version``."""
    difference: tuple[float, float]
    """95 % interval of the draft's UAR minus the active model's, -1 to 1."""
    speakers: int

    @property
    def worse(self) -> bool:
        """Significantly so, and of speakers enough to say it."""
        return self.difference[1] < 0 and self.speakers >= MIN_SPEAKERS


def publish(
    draft: Path, clips: Sequence[Clip], store: ModelStore, floor: float
) -> tuple[Path, Judgement, Comparison | str]:
    """Judge a draft and add it to a repository; it does not become active.

    Args:
        draft: a folder as `trainer.export.write_draft` makes it.
        clips: of speakers that the draft was not trained on; its label map says what else counts as a label.
        store: the repository.
        floor: least UAR, 0 to 1.

    Returns:
        The version's folder, what was found, and how it compares with the active model or why it was not
        compared.

    Raises:
        ModelError: the draft does not pass; says why.
    """
    inspect_apart(draft)
    model = EmotionModel(draft / MODEL_FILE)
    GoldenClips.read(draft / FILE_NAME).check(model, PARITY)
    clips = [clip.relabelled(model.metadata.label_map) for clip in clips]
    judgement = judge(model, clips)
    if judgement.uar < floor:
        raise ModelError(
            f"model {draft}: UAR {judgement.uar:.1%} on {judgement.speakers} held-out speakers, "
            f"wanted {floor:.1%}"
        )
    comparison = compare(model, _active(store), clips)
    if isinstance(comparison, Comparison) and comparison.worse:
        low, high = (100 * bound for bound in comparison.difference)
        raise ModelError(
            f"model {draft}: significantly worse than {comparison.active} on the same {comparison.speakers} "
            f"speakers: UAR {low:+.1f} to {high:+.1f} points (95 %)"
        )
    files = {name: read_file(draft / name) for name in (MODEL_FILE, FILE_NAME, CARD_FILE)}
    folder = store.publish(Reference.parse(model.reference), files)
    return folder, judgement, comparison


def learned(model: EmotionModel) -> set[str]:
    """Names of the corpora that a model was trained on, in lower case."""
    sources = model.metadata.training_data
    return {re.split("[,:]", source, maxsplit=1)[0].casefold() for source in sources}


def recordings_of(names: Container[str], data: Path) -> set[bytes]:
    """`content` of every recording of corpora, named in lower case, whose folders are there."""
    folders = [folder for folder in data.iterdir() if folder.name.casefold() in names]
    return {content(path) for folder in folders for path in audio_files(folder)}


def judge(model: EmotionModel, clips: Sequence[Clip]) -> Judgement:
    """Measure a model over all of its labels.

    Raises:
        ModelError: no clip has one of them.
    """
    labels = model.metadata.labels
    judged = [clip for clip in clips if clip.emotion in labels]
    if not judged:
        raise ModelError(
            f"model {model.reference}: no held-out clip has one of the labels {', '.join(labels)}"
        )
    there = Counter(clip.emotion for clip in clips)
    if missing := [label for label in labels if label not in there]:
        others = ", ".join(f"{n} {emotion}" for emotion, n in sorted(there.items()) if emotion not in labels)
        logger.warning(
            "model %s is not judged on %s: no held-out clip has this emotion; of other emotions they have %s",
            model.reference,
            ", ".join(missing),
            others or "none",
        )
    counts = _counts(model, judged, labels)
    return Judgement(float(uar(counts.sum(axis=0))), len(counts), len(judged))


def compare(model: EmotionModel, active: EmotionModel | None, clips: Sequence[Clip]) -> Comparison | str:
    """Compare two models on the same clips, over the labels that both have.

    The interval is a paired bootstrap over speakers (Efron and Tibshirani 1993): whole speakers are drawn
    with replacement, the same ones for both models, because clips of one speaker are not independent.

    Returns:
        What was found, or why it would not be fair.
    """
    if active is None:
        return "no model is active"
    if known := sorted({clip.corpus for clip in clips if clip.corpus.casefold() in learned(active)}):
        return f"{active.reference} was trained on {', '.join(known)}"
    labels = [label for label in model.metadata.labels if label in active.metadata.labels]
    judged = [clip for clip in clips if clip.emotion in labels]
    if len(labels) < 2 or not judged:
        shared = ", ".join(labels) or "no label"
        return f"it shares {shared} with {active.reference}, wanted two and clips of them"
    own, other = _counts(model, judged, labels), _counts(active, judged, labels)
    difference = interval(drawn_uar(own) - drawn_uar(other))
    if difference is None:
        return f"too few of the {len(own)} speakers have every label, wanted several for each"
    return Comparison(active.reference, difference, len(own))


def _active(store: ModelStore) -> EmotionModel | None:
    if not (store.root / POINTER_FILE).exists():
        return None
    return load_version(store.file(Reference.parse(store.pointer().active)), ON_CPU)


def _counts(model: EmotionModel, clips: Sequence[Clip], labels: Sequence[str]) -> NDArray[np.int64]:
    """A confusion matrix for each speaker, (n_speakers, n_labels, n_labels)."""
    speakers = sorted({clip.speaker for clip in clips})
    columns = [model.metadata.labels.index(label) for label in labels]
    predicted = []
    for clip in clips:
        windows = cut(in_silence(load_clip(clip)), model.metadata.feature_spec, SegmenterSettings()).windows
        scores = np.log(np.maximum(model.score_samples(windows)[:, columns], 1e-9)).mean(axis=0)
        predicted.append(int(scores.argmax()))
    truth = np.array([labels.index(clip.emotion) for clip in clips])
    speaker = np.array([speakers.index(clip.speaker) for clip in clips])
    guess = np.array(predicted)
    return np.stack(
        [confusion(truth[speaker == s], guess[speaker == s], len(labels)) for s in range(len(speakers))]
    )
