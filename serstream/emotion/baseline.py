"""Speaker baseline: running statistics of one stream's own features, and what they do to its next window.

Anger is what is angry *for this speaker*: mean and deviation of every coefficient over the speech heard so
far map the speaker onto the average speaker of the training set. Cepstral mean and variance normalisation
(Viikki and Laurila 1998), the training statistics being the prior: nothing heard leaves features as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]


class BaselineSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The average speaker, and how fast a stream departs from it.

    The state is per stream: how many windows were scored, the sums over them of every coefficient's mean and
    mean square, and of the windows' levels. A window is normalised by what was heard before it and then joins
    the sums, in stream order. The state starts at nothing and is reset when the stream ends.
    """

    mean: tuple[float, ...]
    """Of every coefficient in training, shape (n_coeffs,)."""
    deviation: tuple[Annotated[float, Meta(gt=0)], ...]
    """Standard deviation of every coefficient in training, shape (n_coeffs,)."""
    prior: Annotated[float, Meta(gt=0, le=1000)] = 4.0
    """The average speaker counts as so many windows."""
    level_per_db: Annotated[float, Meta(ge=0)] = 0.0
    """What one dB above the stream's mean level adds to the first coefficient; 0 leaves the level out."""
    trust_row: bool = False
    """One more row below the features: the weight of what was heard against the average speaker, 0 to 1."""

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.deviation):
            raise ValueError(
                f"baseline has {len(self.mean)} means and {len(self.deviation)} deviations, wanted as many"
            )


@dataclass(frozen=True, slots=True, eq=False)
class Heard:
    """What was heard of a number of speakers, one per row."""

    windows: FloatArray
    """How many windows, shape (n,)."""
    mean: FloatArray
    """Mean of every coefficient over them, shape (n, n_coeffs)."""
    square: FloatArray
    """Mean square of every coefficient, shape (n, n_coeffs)."""
    level: FloatArray
    """Mean level in dBFS, shape (n,)."""


def window_statistics(features: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean and mean square over time.

    Args:
        features: shape (n, n_coeffs, n_frames).

    Returns:
        Two arrays of shape (n, n_coeffs).
    """
    return features.mean(axis=2), np.square(features).mean(axis=2)


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
    average = np.array(spec.mean, np.float32)
    deviation = np.array(spec.deviation, np.float32)
    trust = (heard.windows / (heard.windows + np.float32(spec.prior)))[:, None]
    mean = average + trust * (heard.mean - average)
    variance = deviation**2 + trust * (heard.square - heard.mean**2 - deviation**2)
    scale = deviation / np.sqrt(np.maximum(variance, 1e-6))
    shift = average - mean * scale
    shift[:, 0] += spec.level_per_db * trust[:, 0] * (levels - heard.level)
    normalised: FloatArray = features * scale[:, :, None] + shift[:, :, None]
    if not spec.trust_row:
        return normalised
    row = np.broadcast_to(trust[:, :, None], (len(features), 1, features.shape[2]))
    return np.concatenate([normalised, row.astype(np.float32)], axis=1)


def first_of_streams(features: FloatArray, spec: BaselineSpec) -> FloatArray:
    """`normalise` windows (n, n_coeffs, n_frames) before which nothing was heard."""
    n, n_coeffs = features.shape[:2]
    nothing, none = np.zeros((n, n_coeffs), np.float32), np.zeros(n, np.float32)
    return normalise(features, none, Heard(windows=none, mean=nothing, square=nothing, level=none), spec)


class Baselines:
    """The baselines of all living streams; one owner, no locks."""

    def __init__(self, spec: BaselineSpec):
        self._spec = spec
        self._sums: dict[str, NDArray[np.float64]] = {}

    def normalise(self, streams: Sequence[str], features: FloatArray, levels: FloatArray) -> FloatArray:
        """Normalise windows, each by what was heard of its stream before it, and remember them.

        Args:
            streams: stream of every window; the windows of one stream are in order.
            features: shape (n, n_coeffs, n_frames).
            levels: dBFS, shape (n,).

        Returns:
            As `normalise`; how the windows are grouped into calls changes nothing.
        """
        mean, square = window_statistics(features)
        n_coeffs = features.shape[1]
        own = np.concatenate([np.ones((len(mean), 1)), levels[:, None], mean, square], axis=1)
        before = np.empty_like(own)
        for row, stream in enumerate(streams):
            sums = self._sums.setdefault(stream, np.zeros(own.shape[1]))
            before[row] = sums
            sums += own[row]
        count = before[:, :1]
        means = (before / np.maximum(count, 1)).astype(np.float32)
        heard = Heard(
            windows=count[:, 0].astype(np.float32),
            level=means[:, 1],
            mean=means[:, 2 : 2 + n_coeffs],
            square=means[:, 2 + n_coeffs :],
        )
        return normalise(features, levels, heard, self._spec)

    def copy(self, other: Baselines) -> None:
        """Begin with what another model with the same features has heard."""
        self._sums = {stream: sums.copy() for stream, sums in other._sums.items()}

    def forget(self, stream: str) -> None:
        """The stream is over."""
        self._sums.pop(stream, None)
