"""Speaker baseline: running statistics of one stream's own features, and what they do to its next window.

Anger is what is angry *for this speaker*: mean and, if the recipe says so, deviation of every coefficient
over the speech heard so far map the speaker onto the average speaker of the training set. Cepstral mean and
variance normalisation (Viikki and Laurila 1998), the training statistics being the prior: before anything is
heard, features stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
Sums = dict[str, NDArray[np.float64]]
"""Of every stream: how many windows, and the sums of their levels and statistics; never changed in place."""


class BaselineSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, dict=True):
    """The average speaker, and how fast a stream departs from it.

    *Coefficients* are what `serstream.emotion.inputs.observed` says: functionals, or rows of the features.

    The state is per stream: how many windows were scored, the sums over them of every coefficient's mean and,
    where the deviation counts, mean square, and of the windows' levels. A window is normalised by what was
    heard before it and then joins the sums, in stream order. The state starts at nothing and is reset when
    the stream ends.
    """

    mean: tuple[float, ...]
    """Of every coefficient in training, shape (n_coeffs,)."""
    deviation: tuple[Annotated[float, Meta(gt=0)], ...] | None = None
    """Standard deviation of every coefficient in training, shape (n_coeffs,); None: only means are mapped."""
    prior: Annotated[float, Meta(gt=0, le=1000)] = 4.0
    """The average speaker counts as so many windows."""
    trust_limit: Annotated[float, Meta(gt=0, le=1)] = 1.0
    """Greatest weight of what was heard, against the average speaker: with 1, somebody who stays in one mood
    becomes an average speaker in no mood."""
    level_per_db: Annotated[float, Meta(ge=0)] = 0.0
    """What one dB above the stream's mean level adds to the first coefficient; 0 leaves the level out."""
    trust_row: bool = False
    """One more row below the features: the weight of what was heard against the average speaker, 0 to 1."""

    def __post_init__(self) -> None:
        if self.deviation is not None and len(self.mean) != len(self.deviation):
            raise ValueError(
                f"baseline has {len(self.mean)} means and {len(self.deviation)} deviations, wanted as many"
            )

    @cached_property
    def arrays(self) -> tuple[FloatArray, FloatArray | None]:
        """``mean`` and ``deviation``, each of shape (n_coeffs,)."""
        deviation = None if self.deviation is None else np.array(self.deviation, np.float32)
        return np.array(self.mean, np.float32), deviation


@dataclass(frozen=True, slots=True, eq=False)
class Heard:
    """What was heard of a number of speakers, one per row."""

    windows: FloatArray
    """How many windows, shape (n,)."""
    statistics: FloatArray
    """Mean over them of `window_statistics`, shape (n, n_statistics)."""
    level: FloatArray
    """Mean level in dBFS, shape (n,)."""


def window_statistics(features: FloatArray, spec: BaselineSpec) -> FloatArray:
    """What is kept of windows (n, n_coeffs, n_frames).

    Returns:
        Mean over time of every coefficient, shape (n, n_coeffs); with a ``deviation``, of its square behind
        that, shape (n, 2 * n_coeffs).
    """
    mean: FloatArray = features.mean(axis=2)
    if spec.deviation is None:
        return mean
    return np.concatenate([mean, np.square(features).mean(axis=2)], axis=1)


def normalise(features: FloatArray, levels: FloatArray, heard: Heard, spec: BaselineSpec) -> FloatArray:
    """Map every window from its speaker onto the average speaker.

    Args:
        features: shape (n, n_coeffs, n_frames).
        levels: RMS level of every window, dBFS, shape (n,).
        heard: of the speaker of each window.
        spec: the average speaker.

    Returns:
        Same shape as ``features``, one row more with ``spec.trust_row``.
    """
    average, deviation = spec.arrays
    n, n_coeffs, n_frames = features.shape
    normalised = np.empty((n, n_coeffs + spec.trust_row, n_frames), np.float32)
    trust = np.minimum(heard.windows / (heard.windows + np.float32(spec.prior)), np.float32(spec.trust_limit))
    trust = trust[:, None]
    mean = average + trust * (heard.statistics[:, :n_coeffs] - average)
    if deviation is None:
        shift = average - mean
        np.add(features, shift[:, :, None], out=normalised[:, :n_coeffs])
    else:
        square = heard.statistics[:, n_coeffs:]
        variance = deviation**2 + trust * (square - heard.statistics[:, :n_coeffs] ** 2 - deviation**2)
        scale = deviation / np.sqrt(np.maximum(variance, 1e-6))
        shift = average - mean * scale
        np.multiply(features, scale[:, :, None], out=normalised[:, :n_coeffs])
        normalised[:, :n_coeffs] += shift[:, :, None]
    normalised[:, 0] += (spec.level_per_db * trust[:, 0] * (levels - heard.level))[:, None]
    if spec.trust_row:
        normalised[:, -1] = trust
    return normalised


def first_of_streams(features: FloatArray, spec: BaselineSpec) -> FloatArray:
    """`normalise` windows (n, n_coeffs, n_frames) before which nothing was heard."""
    none = np.zeros(len(features), np.float32)
    nothing = np.zeros_like(window_statistics(features, spec))
    return normalise(features, none, Heard(windows=none, statistics=nothing, level=none), spec)


class Baselines:
    """The baselines of all living streams; one owner, no locks."""

    def __init__(self, spec: BaselineSpec):
        self._spec = spec
        self._sums: Sums = {}

    def normalise(
        self, streams: Sequence[str], features: FloatArray, levels: FloatArray
    ) -> tuple[FloatArray, Sums]:
        """Normalise windows, each by what was heard of its stream before it.

        Args:
            streams: stream of every window; the windows of one stream are in order.
            features: shape (n, n_coeffs, n_frames).
            levels: dBFS, shape (n,).

        Returns:
            As `normalise`, and what to `remember` once the windows are scored; how the windows are grouped
            into calls changes nothing.
        """
        own = np.column_stack([np.ones_like(levels), levels, window_statistics(features, self._spec)]).astype(
            np.float64
        )
        before = np.empty_like(own)
        after: Sums = {}
        for row, stream in enumerate(streams):
            sums = after.get(stream, self._sums.get(stream))
            before[row] = 0.0 if sums is None else sums
            after[stream] = before[row] + own[row]
        count = before[:, 0]
        means = (before / np.maximum(count, 1)[:, None]).astype(np.float32)
        heard = Heard(windows=count.astype(np.float32), level=means[:, 1], statistics=means[:, 2:])
        return normalise(features, levels, heard, self._spec), after

    def remember(self, sums: Sums) -> None:
        """The windows of a `normalise` are scored: they join what was heard of their streams."""
        self._sums.update(sums)

    def copy(self, other: Baselines) -> None:
        """Begin with what another has heard that keeps the same statistics of the same features."""
        self._sums = dict(other._sums)

    def forget(self, stream: str) -> None:
        """The stream is over."""
        self._sums.pop(stream, None)
