"""EmotionML 1.0 (W3C Recommendation, 22 May 2014) of recorded calls: one ``<emotion>`` for each utterance.

The categories are the model's labels, declared as a vocabulary in the document, because the W3C's "big six"
know no neutral. The dimensions arousal and valence are those of the W3C's vocabulary ``fsre-dimensions``;
EmotionML wants values in [0, 1], so -1 to 1 is brought there linearly.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET  # nosec B405 # writes XML, reads none
from collections.abc import Iterable
from pathlib import Path

from serstream.feed.messages import UtteranceEmotion, utc_of
from serstream.feed.recording import calls

NAMESPACE = "http://www.w3.org/2009/10/emotionml"
OWN_NAMESPACE = "urn:serstream:feed:1"
"""Of what stands in ``<info>``, which EmotionML leaves to others."""
DIMENSIONS = "http://www.w3.org/TR/emotion-voc/xml#fsre-dimensions"
VOCABULARY = "labels"
_FORBIDDEN = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""By XML 1.0, even if escaped."""


def export(path: Path) -> str:
    r"""A recording as an EmotionML document; ``start`` and ``end`` of its emotions are UTC.

    Characters that XML forbids, as an id from the network may have, are written as ``\x1b``.

    Raises:
        FeedError: the recording cannot be read.
    """
    utterances = [
        utterance for call in calls(path) for party in call.parties.values() for utterance in party.utterances
    ]
    ET.register_namespace("", NAMESPACE)
    ET.register_namespace("serstream", OWN_NAMESPACE)
    root = ET.Element(_name("emotionml"), {"version": "1.0", "dimension-set": DIMENSIONS})
    if utterances:
        root.set("category-set", f"#{VOCABULARY}")
        root.append(_vocabulary({label for utterance in utterances for label in utterance.probabilities}))
    root.extend(_emotion(number, utterance) for number, utterance in enumerate(utterances))
    ET.indent(root)
    document = ET.tostring(root, encoding="unicode", xml_declaration=False)
    return _FORBIDDEN.sub(lambda found: found[0].encode("unicode_escape").decode(), document) + "\n"


def _vocabulary(labels: Iterable[str]) -> ET.Element:
    vocabulary = ET.Element(_name("vocabulary"), {"type": "category", "id": VOCABULARY})
    for label in sorted(labels):
        ET.SubElement(vocabulary, _name("item"), {"name": label})
    return vocabulary


def _emotion(number: int, utterance: UtteranceEmotion) -> ET.Element:
    end_ms = round(utc_of(utterance) * 1000)
    duration_ms = round((utterance.end - utterance.start) * 1000)
    emotion = ET.Element(
        _name("emotion"),
        {
            "id": f"e{number}",
            "start": str(end_ms - duration_ms),
            "end": str(end_ms),
            "expressed-through": "voice",
        },
    )
    info = ET.SubElement(emotion, _name("info"))
    for key in ("call", "stream", "role", "model"):
        ET.SubElement(info, f"{{{OWN_NAMESPACE}}}{key}").text = str(getattr(utterance, key))
    for label, probability in utterance.probabilities.items():
        ET.SubElement(emotion, _name("category"), {"name": label, "value": f"{probability:.4f}"})
    for dimension in ("arousal", "valence"):
        value = (getattr(utterance, dimension) + 1) / 2
        ET.SubElement(emotion, _name("dimension"), {"name": dimension, "value": f"{value:.4f}"})
    return emotion


def _name(tag: str) -> str:
    return f"{{{NAMESPACE}}}{tag}"
