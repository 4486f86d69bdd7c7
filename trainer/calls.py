"""What a monitor would have heard of a speaker before a window: the baseline in training and tests."""

from __future__ import annotations

from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from serstream.emotion.baseline import BaselineSpec, Heard, normalise, window_statistics
from serstream.emotion.features import FeatureSpec, FloatArray
from serstream.emotion.inputs import Inputs, alone, as_inputs, observed
from trainer.dataset import WindowSet

Rows = NDArray[np.intp]


class BaselineTraining(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``[baseline]`` of a recipe: one network learns to work with and without a speaker baseline."""

    prior: Annotated[float, Meta(gt=0, le=1000)] = 4.0
    """The average speaker counts as so many windows."""
    trust_limit: Annotated[float, Meta(gt=0, le=1)] = 1.0
    """Greatest weight of what was heard against the average speaker."""
    cold: Annotated[float, Meta(ge=0, le=1)] = 0.3
    """Share of training windows that are the first of their stream."""
    windows: Annotated[int, Meta(ge=1, le=1000)] = 40
    """The others come after 1 to so many windows."""
    deviation: bool = True
    """Whether the speaker's deviation is mapped too, or only the mean."""


def average_speaker(windows: WindowSet, spec: FeatureSpec, settings: BaselineTraining) -> BaselineSpec:
    """The baseline's prior: mean and deviation of every coefficient over the training windows.

    Where rows are normalised, the level relative to the call's mean goes into the first coefficient, which
    holds it. Functionals leave it out: it does not travel between corpora.
    """
    values = _observed(windows, spec, slice(None))
    deviation = tuple(np.maximum(values.std(axis=(0, 2)), 1e-3).round(4).tolist())
    per_db = np.log(10) / 10 * np.sqrt(spec.n_mels)
    return BaselineSpec(
        mean=tuple(values.mean(axis=(0, 2)).round(4).tolist()),
        deviation=deviation if settings.deviation else None,
        prior=settings.prior,
        trust_limit=settings.trust_limit,
        level_per_db=0.0 if spec.functionals else round(float(per_db), 6),
        trust_row=spec.functionals is not None,
    )


def as_heard(windows: WindowSet, spec: FeatureSpec, seconds: float) -> Inputs:
    """What a model is given: each window after so much other speech of its speaker, if it has a baseline."""
    if spec.baseline is not None and seconds:
        return Calls(windows, spec).after(seconds, seed=0)
    return alone(windows.features.astype(np.float32), spec, windows.functionals)


class Calls:
    """Simulated calls: windows of one speaker over one line, in random order.

    Args:
        windows: of any speakers.
        spec: with a baseline.
    """

    def __init__(self, windows: WindowSet, spec: FeatureSpec):
        if spec.baseline is None:
            raise ValueError("spec has no baseline, wanted one")
        self._windows = windows
        self._spec = spec
        self._baseline = spec.baseline
        self._statistics = np.concatenate(
            [
                window_statistics(_observed(windows, spec, slice(i, i + 256)), spec.baseline)
                for i in range(0, len(windows.features), 256)
            ]
        )
        speakers = {name: i for i, name in enumerate(sorted({clip.speaker for clip in windows.clips}))}
        speaker = np.array([speakers[clip.speaker] for clip in windows.clips])[windows.clip]
        _, self._call = np.unique(np.stack([speaker, windows.line]), axis=1, return_inverse=True)
        order = np.argsort(self._call, kind="stable")
        self._members = np.split(order, np.cumsum(np.bincount(self._call))[:-1])

    def draw(self, rows: Rows, settings: BaselineTraining, rng: np.random.Generator) -> Inputs:
        """Inputs for windows, each normalised after a random number of other windows of its call."""
        counts = rng.integers(1, settings.windows + 1, len(rows))
        counts[rng.random(len(rows)) < settings.cold] = 0
        before = [
            self._pick(row, count, rng) for row, count in zip(rows.tolist(), counts.tolist(), strict=True)
        ]
        return self._normalised(rows, before)

    def after(self, seconds: float, seed: int) -> Inputs:
        """Inputs for all windows, each normalised after so much other speech of its speaker.

        The windows come from other clips, in an order that is random but the same for all windows of a clip.
        """
        rows = np.arange(len(self._windows.clip))
        before = []
        for row in rows.tolist():
            rng = np.random.default_rng([seed, int(self._windows.clip[row])])
            others = rng.permutation(self._others(row))
            heard = np.cumsum(self._windows.seconds[others])
            before.append(others[: int(np.searchsorted(heard, seconds)) + 1 if seconds else 0])
        parts = [self._normalised(rows[i : i + 256], before[i : i + 256]) for i in range(0, len(rows), 256)]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _others(self, row: int) -> Rows:
        """Windows of other clips in the same call."""
        members = self._members[self._call[row]]
        others: Rows = members[self._windows.clip[members] != self._windows.clip[row]]
        return others

    def _pick(self, row: int, count: int, rng: np.random.Generator) -> Rows:
        others = self._others(row)
        if not count or not len(others):
            return others[:0]
        return others[rng.integers(len(others), size=count)]

    def _normalised(self, rows: Rows, before: list[Rows]) -> Inputs:
        windows = self._windows
        heard = Heard(
            windows=np.array([len(others) for others in before], np.float32),
            statistics=_means(self._statistics, before),
            level=_means(windows.levels, before),
        )
        values = _observed(windows, self._spec, rows)
        normalised = normalise(values, windows.levels[rows], heard, self._baseline)
        return as_inputs(windows.features[rows].astype(np.float32), normalised, self._spec)


def heard_at_most(windows: WindowSet, seconds: float) -> FloatArray:
    """How much of so much other speech of its speaker there is for each window, seconds, shape (n_windows,).

    Args:
        windows: of one line.
        seconds: wanted.
    """
    _, speakers = np.unique([clip.speaker for clip in windows.clips], return_inverse=True)
    speaker = speakers[windows.clip]
    of_speaker = np.bincount(speaker, windows.seconds)[speaker]
    of_clip = np.bincount(windows.clip, windows.seconds)[windows.clip]
    at_most: FloatArray = np.minimum(of_speaker - of_clip, seconds).astype(np.float32)
    return at_most


def _observed(windows: WindowSet, spec: FeatureSpec, rows: slice | Rows) -> FloatArray:
    return observed(windows.features[rows].astype(np.float32), windows.functionals[rows], spec)


def _means(values: FloatArray, chosen: list[Rows]) -> FloatArray:
    """Mean over the chosen rows; 0 where none is chosen."""
    means = np.zeros((len(chosen), *values.shape[1:]), np.float32)
    for i, rows in enumerate(chosen):
        if len(rows):
            means[i] = values[rows].mean(axis=0)
    return means
