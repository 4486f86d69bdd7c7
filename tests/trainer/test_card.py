from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from trainer.augment import Augmentation
from trainer.card import augmented_with, learned_of
from trainer.corpora import Clip
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


def clips(corpus: str, **emotions: int) -> list[Clip]:
    return [
        Clip(Path(f"{emotion}-{k}.wav"), corpus, f"{corpus}/s", "unknown", emotion, "de")
        for emotion, n in emotions.items()
        for k in range(n)
    ]


def test_the_card_says_of_each_corpus_what_was_left_out_and_what_it_lacks() -> None:
    recipe = msgspec.structs.replace(RECIPE, corpora=("one", "two"), pretraining=("three",))
    learned = [*clips("one", angry=3, sad=2), *clips("two", sad=4)]
    left_out = [*clips("one", boredom=2, calm=1), *clips("three", angry=1, calm=1)]
    assert learned_of(recipe, learned + left_out, learned) == (
        "5 clips; left out: 2 boredom, 1 calm",
        "4 clips; left out: none; has no angry",
        "2 clips of all emotions, for the convolution alone, first",
    )
