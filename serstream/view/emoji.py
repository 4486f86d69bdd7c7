"""How an emotion looks: an emoji, and a colour that colour-blind people can tell from the others."""

from __future__ import annotations

EMOJI = {
    "angry": "😠",
    "boredom": "🥱",
    "calm": "😌",
    "disgust": "🤢",
    "fear": "😨",
    "happy": "😊",
    "neutral": "😐",
    "sad": "😢",
    "surprise": "😮",
}
"""Each two terminal cells wide."""

COLOURS = {
    "angry": "#D55E00",
    "boredom": "#A6761D",
    "calm": "#66C2A5",
    "disgust": "#009E73",
    "fear": "#CC79A7",
    "happy": "#E69F00",
    "neutral": "#999999",
    "sad": "#0072B2",
    "surprise": "#56B4E9",
}
"""Okabe & Ito 2008, "Color universal design"; boredom and calm from ColorBrewer's safe sets."""


def face(label: str) -> str:
    """The label's emoji; a question mark for labels of other models."""
    return EMOJI.get(label, "❓")


def colour_of(label: str) -> str:
    """The label's colour, ``#rrggbb``; grey for labels of other models."""
    return COLOURS.get(label, "#999999")
