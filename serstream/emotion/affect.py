"""Arousal and valence of a distribution over emotions.

Each emotion has a place in the plane of pleasure and arousal: the mean ratings in Russell & Mehrabian 1977,
"Evidence for a three-factor theory of emotions", Journal of Research in Personality 11, table 2 (angry,
disgusted, fearful, happy, sad, surprised, bored; *relaxed* for calm). Neutral is the origin. A distribution
lies at the mean of the places, weighted by their probabilities. It is a convention that makes emotions
comparable on two axes, not a second measurement of the voice.
"""

from __future__ import annotations

from collections.abc import Mapping

PLACES: Mapping[str, tuple[float, float]] = {
    "angry": (0.59, -0.51),
    "boredom": (-0.62, -0.65),
    "calm": (-0.46, 0.68),
    "disgust": (0.35, -0.60),
    "fear": (0.60, -0.64),
    "happy": (0.51, 0.81),
    "neutral": (0.0, 0.0),
    "sad": (-0.27, -0.63),
    "surprise": (0.67, 0.40),
}
"""Label to (arousal, valence), each in [-1, 1]."""


def arousal_valence(probabilities: Mapping[str, float]) -> tuple[float, float]:
    """Where a distribution lies.

    Args:
        probabilities: label to probability, sum 1. A label without a place counts as neutral.

    Returns:
        Arousal (-1 sleepy to 1 excited) and valence (-1 unpleasant to 1 pleasant).
    """
    arousal = valence = 0.0
    for label, probability in probabilities.items():
        place = PLACES.get(label, (0.0, 0.0))
        arousal += probability * place[0]
        valence += probability * place[1]
    return round(arousal, 4), round(valence, 4)
