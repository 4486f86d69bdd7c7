"""Augmented copies of a clip, as the studies made them: one effect each."""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np

from serstream.types import SAMPLE_RATE, Samples
from trainer.augment import Line, transmit

Effect: TypeAlias = Literal["noise", "shift", "pitch", "stretch", "low_pass"]

SHIFT_S = 0.25


def copy(samples: Samples, effect: Effect, rng: np.random.Generator) -> Samples:
    """One copy of a clip, shape (about n,).

    ``noise``: white, 15 to 25 dB below the clip. ``shift``: rolled by at most 0.25 s. ``pitch``: up to 2
    semitones up or down. ``stretch``: 0.8 to 1.2 times the tempo. ``low_pass``: from 2 to 4 kHz. The
    studies give no ranges; these are ours.
    """
    match effect:
        case "shift":
            return np.roll(samples, round(rng.uniform(-SHIFT_S, SHIFT_S) * SAMPLE_RATE))
        case "noise":
            level = np.sqrt(np.mean(np.square(samples)))
            noise = (level * rng.standard_normal(len(samples))).astype(np.float32)
            line = Line(noise=noise, noise_db=rng.uniform(15, 25))
        case "pitch":
            line = Line(pitch=rng.uniform(-2, 2))
        case "stretch":
            line = Line(stretch=rng.uniform(0.8, 1.2))
        case "low_pass":
            line = Line(low_pass_hz=rng.uniform(2000, 4000))
    return transmit(samples, line, rng)
