from __future__ import annotations

import msgspec
import pytest

from trainer.augment import Augmentation
from trainer.card import augmented_with
from trainer.recipe import Recipe

ESC_10 = "ESC-10 (Piczak 2015, CC BY 3.0)"
ROOMS = "impulse responses of Chromium's web-audio samples (Apache-2.0)"
RECIPE = Recipe(name="x", network="cnn_lstm", corpora=("tiny",), labels=("angry", "sad"))


@pytest.mark.parametrize(
    ("settings", "noises", "rooms", "said"),
    [
        ({}, True, True, f"Augmented with {ESC_10} and {ROOMS}."),
        ({"room": 0.0}, True, True, f"Augmented with {ESC_10}."),
        ({}, True, False, f"Augmented with {ESC_10}."),
        ({}, False, False, "Augmented with white noise."),
        ({"noise": 0.0}, True, True, f"Augmented with {ROOMS}."),
        ({"variants": 0}, True, True, "Augmented with no other recordings."),
    ],
)
def test_the_card_names_the_recordings_that_were_used(
    settings: dict[str, float], noises: bool, rooms: bool, said: str
) -> None:
    recipe = msgspec.structs.replace(RECIPE, augmentation=msgspec.convert(settings, Augmentation))
    assert augmented_with(recipe, noises=noises, rooms=rooms) == said
