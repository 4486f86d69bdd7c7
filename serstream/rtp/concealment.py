"""What stands in for sound that was lost: the last pitch period again, fading to silence.

After ITU-T G.711 Appendix I: a person hardly hears 20 ms of it, the voice activity detector goes on, and
after 60 ms nothing is invented any more. Training uses the same function, so that models know its sound.
"""

from __future__ import annotations

import numpy as np

from serstream.types import Samples

HISTORY_S = 0.02
"""Seconds of sound before the loss that are looked at."""
FADE_S = 0.06
"""After so long the replacement is silent."""
SHORTEST_PITCH_S = 0.0025
LONGEST_PITCH_S = 0.0125
_STEADY_S = 0.01


def conceal(history: Samples, n_samples: int, sample_rate: int) -> Samples:
    """Sound for a loss.

    Args:
        history: the last samples before it, shape (n,); less than `HISTORY_S` of them give silence.
        n_samples: how many are wanted.
        sample_rate: Hz.

    Returns:
        float32, shape (n_samples,).
    """
    n_history = round(HISTORY_S * sample_rate)
    replacement = np.zeros(n_samples, np.float32)
    n_faded = min(n_samples, round(FADE_S * sample_rate))
    if len(history) < n_history or n_faded == 0:
        return replacement
    period = history[-_pitch_lag(history[-n_history:], sample_rate) :]
    steady, end = _STEADY_S * sample_rate, FADE_S * sample_rate
    gain = np.clip((end - np.arange(n_faded)) / (end - steady), 0, 1)
    replacement[:n_faded] = np.resize(period, n_faded) * gain
    return replacement


def _pitch_lag(history: Samples, sample_rate: int) -> int:
    """The lag, in samples, at which the end of the history resembles what came before it most."""
    shortest, longest = round(SHORTEST_PITCH_S * sample_rate), round(LONGEST_PITCH_S * sample_rate)
    template = history[longest:]
    n = len(template)
    correlation = np.correlate(history, template, "valid")[:-shortest]
    energy = np.convolve(history**2, np.ones(n, np.float32), "valid")[:-shortest]
    return longest - int(np.argmax(correlation / np.sqrt(energy + 1e-9)))
