"""The gate between a trained model and the repository that daemons load from.

A draft is published if it passes the daemon's own inspection (with ONNX's checker), computes what torch did,
reaches a floor on held-out speakers, and is not significantly worse there than the model that is active.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from serstream.config import ModelSettings, SegmenterSettings
from serstream.emotion.golden import FILE_NAME, GoldenClips
from serstream.emotion.inspection import inspect_apart
from serstream.emotion.loading import load_version
from serstream.emotion.model import EmotionModel
from serstream.emotion.store import MODEL_FILE, POINTER_FILE, ModelStore, Reference, read_file
from serstream.errors import ModelError
from trainer.corpora import Clip
from trainer.evaluation import confusion, recalls
from trainer.export import CARD_FILE, TOLERANCE
from trainer.windows import cut, load_clip

ON_CPU = ModelSettings(device="cpu")

PARITY = TOLERANCE
"""Largest difference of a golden clip's probability from torch's: less than the daemon accepts, which may run
on another device."""
DRAWS = 10_000
"""Resamplings of the bootstrap."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the gate found; shares from 0 to 1."""

    uar: float
    """Unweighted average recall of the draft on the held-out speakers, one prediction per clip."""
    active: str
    """``name@version`` that it was compared with; empty: none was active."""
    difference: tuple[float, float]
    """95 % interval of its UAR minus the active model's; zeros when there was none."""
    speakers: int
    clips: int


def publish(draft: Path, clips: Sequence[Clip], store: ModelStore, floor: float) -> tuple[Path, Judgement]:
    """Judge a draft and add it to a repository; it does not become active.

    Args:
        draft: a folder as `trainer.export.write_draft` makes it.
        clips: of speakers that neither model was trained on.
        store: the repository.
        floor: least UAR, 0 to 1.

    Returns:
        The version's folder, and what was found.

    Raises:
        ModelError: the draft does not pass; says why.
    """
    inspect_apart(draft)
    model = EmotionModel(draft / MODEL_FILE)
    GoldenClips.read(draft / FILE_NAME).check(model, PARITY)
    judgement = judge(model, _active(store), clips)
    if judgement.uar < floor:
        raise ModelError(
            f"model {draft}: UAR {judgement.uar:.1%} on {judgement.speakers} held-out speakers, "
            f"wanted {floor:.1%}"
        )
    low, high = judgement.difference
    if high < 0:
        raise ModelError(
            f"model {draft}: significantly worse than {judgement.active} on the same {judgement.speakers} "
            f"speakers: UAR {100 * low:+.1f} to {100 * high:+.1f} points (95 %)"
        )
    files = {name: read_file(draft / name) for name in (MODEL_FILE, FILE_NAME, CARD_FILE)}
    return store.publish(Reference.parse(model.reference), files), judgement


def judge(model: EmotionModel, active: EmotionModel | None, clips: Sequence[Clip]) -> Judgement:
    """Compare two models on the same clips, over the labels that both have.

    The interval is a paired bootstrap over speakers (Efron and Tibshirani 1993): whole speakers are drawn
    with replacement, the same ones for both models, because clips of one speaker are not independent.

    Raises:
        ModelError: no clip has an emotion that both models know.
    """
    labels = [label for label in model.metadata.labels if not active or label in active.metadata.labels]
    judged = [clip for clip in clips if clip.emotion in labels]
    if not judged:
        raise ModelError(
            f"model {model.reference}: no held-out clip has one of the labels {', '.join(labels)}"
        )
    speakers = sorted({clip.speaker for clip in judged})
    own = _counts(model, judged, speakers, labels)
    uar = float(_uar(own.sum(axis=0)))
    if active is None:
        return Judgement(uar, "", (0.0, 0.0), len(speakers), len(judged))
    other = _counts(active, judged, speakers, labels)
    n = len(speakers)
    weights = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), DRAWS)
    differences = _uar(np.tensordot(weights, own, axes=1)) - _uar(np.tensordot(weights, other, axes=1))
    low, high = np.percentile(differences, [2.5, 97.5])
    return Judgement(uar, active.reference, (float(low), float(high)), n, len(judged))


def _active(store: ModelStore) -> EmotionModel | None:
    if not (store.root / POINTER_FILE).exists():
        return None
    return load_version(store.file(Reference.parse(store.pointer().active)), ON_CPU)


def _counts(
    model: EmotionModel, clips: Sequence[Clip], speakers: list[str], labels: list[str]
) -> NDArray[np.int64]:
    """A confusion matrix for each speaker, (n_speakers, n_labels, n_labels)."""
    columns = [model.metadata.labels.index(label) for label in labels]
    predicted = []
    for clip in clips:
        windows = cut(load_clip(clip), model.metadata.feature_spec, SegmenterSettings()).windows
        scores = np.log(np.maximum(model.score_samples(windows)[:, columns], 1e-9)).mean(axis=0)
        predicted.append(int(scores.argmax()))
    truth = np.array([labels.index(clip.emotion) for clip in clips])
    speaker = np.array([speakers.index(clip.speaker) for clip in clips])
    guess = np.array(predicted)
    return np.stack(
        [confusion(truth[speaker == s], guess[speaker == s], len(labels)) for s in range(len(speakers))]
    )


def _uar(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Of confusion matrices (..., n_labels, n_labels), over the labels that occur."""
    mean: NDArray[np.float64] = np.nanmean(recalls(counts), axis=-1)
    return mean
