"""What a model is given of a window: rows over time, and functionals of them against the speaker's baseline.

The one way from features to a network, in training and in service.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from serstream.emotion.baseline import Baselines, Sums, first_of_streams
from serstream.emotion.features import FeatureSpec, summarise

FloatArray = NDArray[np.float32]

Inputs: TypeAlias = dict[str, FloatArray]
"""Arrays by the names of a model's inputs, all of one batch."""

FEATURES, FUNCTIONALS = "features", "functionals"


def shapes(spec: FeatureSpec) -> dict[str, list[int]]:
    """Shape of every input that a recipe makes, behind the batch axis."""
    trust = spec.baseline is not None and spec.baseline.trust_row
    if spec.functionals is None:
        return {FEATURES: [spec.n_coeffs + trust, spec.n_frames]}
    return {FEATURES: [spec.n_coeffs, spec.n_frames], FUNCTIONALS: [spec.n_functionals + trust]}


def observed(features: FloatArray, functionals: FloatArray, spec: FeatureSpec) -> FloatArray:
    """What the speaker baseline keeps statistics of: the functionals, or where there are none the rows.

    Args:
        features: of `serstream.emotion.features.mfcc`, shape (n, n_coeffs, n_frames).
        functionals: of those features, shape (n, n_functionals).
        spec: the recipe.

    Returns:
        Shape (n, n_functionals, 1) or (n, n_coeffs, n_frames).
    """
    return features if spec.functionals is None else functionals[:, :, None]


def as_inputs(features: FloatArray, normalised: FloatArray, spec: FeatureSpec) -> Inputs:
    """Rows as they are, and what was `observed` of them as the baseline leaves it."""
    if spec.functionals is None:
        return {FEATURES: normalised}
    return {FEATURES: features, FUNCTIONALS: normalised[:, :, 0]}


def alone(features: FloatArray, spec: FeatureSpec, functionals: FloatArray | None = None) -> Inputs:
    """Inputs for windows (n, n_coeffs, n_frames) before which nothing was heard; None: summarised here."""
    values = observed(features, summarise(features, spec) if functionals is None else functionals, spec)
    return as_inputs(
        features, values if spec.baseline is None else first_of_streams(values, spec.baseline), spec
    )


class Listener:
    """Makes inputs, and remembers what it has heard of every living stream; one owner, no locks."""

    def __init__(self, spec: FeatureSpec):
        self._spec = spec
        self._baselines = None if spec.baseline is None else Baselines(spec.baseline)

    def inputs(self, streams: Sequence[str], features: FloatArray, levels: FloatArray) -> tuple[Inputs, Sums]:
        """Inputs for windows, each against what was heard of its stream before it.

        Args:
            streams: stream of every window; the windows of one stream are in order.
            features: of `serstream.emotion.features.mfcc`, shape (n, n_coeffs, n_frames).
            levels: RMS level of every window, dBFS, shape (n,).

        Returns:
            The inputs, and what to `remember` once they are scored.
        """
        values = observed(features, summarise(features, self._spec), self._spec)
        sums: Sums = {}
        if self._baselines is not None:
            values, sums = self._baselines.normalise(streams, values, levels)
        return as_inputs(features, values, self._spec), sums

    def remember(self, sums: Sums) -> None:
        """The windows that these sums came with are scored."""
        if self._baselines is not None:
            self._baselines.remember(sums)

    def continue_from(self, other: Listener) -> bool:
        """Take over what another has heard; False if it does not observe the same or keep the same of it."""
        if self._baselines is None:
            return True  # it knows nothing of any stream
        if other._baselines is None or _kept(self._spec) != _kept(other._spec):
            return False
        self._baselines.copy(other._baselines)
        return True

    def forget(self, stream: str) -> None:
        """The stream is over."""
        if self._baselines is not None:
            self._baselines.forget(stream)


def _kept(spec: FeatureSpec) -> tuple[FeatureSpec, bool]:
    """What decides how the state looks: all but the average speaker."""
    scales = spec.baseline is not None and spec.baseline.deviation is not None
    return msgspec.structs.replace(spec, baseline=None), scales
