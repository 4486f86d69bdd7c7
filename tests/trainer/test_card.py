from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from msgspec import UNSET

from serstream.emotion.features import FeatureSpec
from serstream.emotion.metadata import ModelMetadata
from trainer.augment import Augmentation
from trainer.calibration import calibrate
from trainer.card import augmented_with, learned_of, write_card
from trainer.corpora import Clip
from trainer.folds import PROTOCOLS
from trainer.metrics import figures
from trainer.predictions import Part, Predictions
from trainer.recipe import Recipe

ESC_10 = "ESC-10 (Piczak 2015, CC BY 3.0)"
ESC_10_NAMES = ["1-100032-A", "5-9032-A-0"]
ROOMS = "impulse responses of Chromium's web-audio samples (Apache-2.0)"
RECIPE = Recipe(name="x", network="cnn_lstm", corpora=("tiny",), labels=("angry", "sad"))


@pytest.mark.parametrize(
    ("settings", "noises", "rooms", "said"),
    [
        ({}, ESC_10_NAMES, True, f"Augmented with {ESC_10} and {ROOMS}."),
        ({"room": 0.0}, ESC_10_NAMES, True, f"Augmented with {ESC_10}."),
        ({}, ESC_10_NAMES, False, f"Augmented with {ESC_10}."),
        ({}, [*ESC_10_NAMES, "office"], False, f"Augmented with {ESC_10} and other recordings of noise."),
        ({}, ["office", "street"], False, "Augmented with other recordings of noise."),
        ({}, [], False, "Augmented with white noise."),
        ({"noise": 0.0}, ESC_10_NAMES, True, f"Augmented with {ROOMS}."),
        ({"variants": 0}, ESC_10_NAMES, True, "Augmented with no other recordings."),
    ],
)
def test_the_card_names_the_recordings_that_were_used(
    settings: dict[str, float], noises: list[str], rooms: bool, said: str
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
    mapped = msgspec.structs.replace(recipe, label_map={"calm": "sad", "boredom": "sad"}, pretraining=UNSET)
    assert learned_of(mapped, learned + left_out, [*learned, *clips("one", sad=3)]) == (
        "8 clips; 1 calm as sad, 2 boredom as sad; left out: none",
        "4 clips; left out: none; has no angry",
    )


def test_the_card_gives_the_deviation_over_seeds_and_no_row_of_a_label_without_clips() -> None:
    """The second of two trainings hears one of two sad clips as angry."""
    labels = ("angry", "fear", "sad")
    tested = [*clips("one", angry=2), *clips("two", sad=2)]
    scores = np.array([[3, 0, 0], [3, 0, 0], [0, 0, 3], [0, 0, 3]], np.float32)
    worse = np.array([[3, 0, 0], [3, 0, 0], [0, 0, 3], [3, 0, 0]], np.float32)
    parts = [
        Part(seed, f"fold {clip[0]}", "clean", 0.0, logits[clip], np.array(clip))
        for seed, logits in enumerate((scores, worse))
        for clip in ([0, 2], [1, 3])
    ]
    predictions = Predictions(labels, tested, np.ones((4, 3), np.bool_), parts, [], "")
    recipe = msgspec.structs.replace(RECIPE, labels=labels)
    metrics = figures(recipe, PROTOCOLS["corpora"], predictions, calibrate(predictions))
    metadata = ModelMetadata(
        name="x", version=1, labels=labels, feature_spec=FeatureSpec(), temperature=1.0, licence="Apache-2.0"
    )
    card = write_card(metadata, recipe, (), "Augmented.", 1, [(metrics, predictions)])
    assert "Tested: one on 2 clips of angry; two on 2 clips of sad." in card
    assert "| seeds | UA (2) | 95 % |" in card
    assert "| UA by window | UA one (1) | UA two (1) |" in card
    assert "| clean | 0 s | 2 | **87.5** ± 17.7 | " in card
    assert "\n| angry | 100 | 0 | 0 |\n| sad | 25 | 0 | 75 |\n\n" in card
