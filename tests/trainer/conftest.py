"""A tiny corpus of generated voices: what the trainer does can be tested without recordings."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile

if TYPE_CHECKING:
    from trainer.corpora import Clip
    from trainer.dataset import WindowSet
    from trainer.experiment import Workplace
    from trainer.recipe import Recipe

# Several test processes run at once: spinning threads of torch would stand in each other's way.
os.environ.setdefault("OMP_NUM_THREADS", "1")

RATE = 16_000
EMOTIONS = {"angry": (220, 0.3), "neutral": (120, 0.1), "sad": (100, 0.03)}
"""Fundamental in Hz and amplitude."""


def voice(emotion: str, seed: int, seconds: float = 1.5) -> np.ndarray:
    """Buzz at the emotion's pitch in syllables of 200 ms; enough for a voice activity detector."""
    rng = np.random.default_rng(seed)
    pitch, amplitude = EMOTIONS[emotion]
    time = np.arange(round(seconds * RATE)) / RATE
    phase = 2 * np.pi * pitch * rng.uniform(0.9, 1.1) * time
    buzz = sum(np.sin(k * phase) / k for k in range(1, 20))
    syllables = 0.6 + 0.4 * np.sin(2 * np.pi * 5 * time)
    noise = rng.normal(0, 0.002, len(time))
    return (amplitude * buzz * syllables / 2 + noise).astype(np.float32)


@pytest.fixture(scope="session")
def voice_of() -> Callable[[str, int], np.ndarray]:
    """`voice`, for tests that lay out a corpus of their own."""
    return voice


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with one corpus, ``tiny``: 4 speakers, 3 emotions, 3 clips of each."""
    folder = tmp_path_factory.mktemp("data") / "tiny"
    folder.mkdir()
    rows = ["file,speaker,sex,emotion,language"]
    for speaker in range(4):
        for emotion in EMOTIONS:
            for take in range(3):
                name = f"{speaker}-{emotion}-{take}.wav"
                seed = 100 * speaker + 10 * take + len(emotion)
                soundfile.write(folder / name, voice(emotion, seed), RATE)
                rows.append(f"{name},s{speaker},{'female' if speaker % 2 else 'male'},{emotion},de")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    return folder.parent


@pytest.fixture(scope="session")
def clips(tiny_data: Path) -> list[Clip]:
    """Those of ``tiny``."""
    from trainer import corpora

    return corpora.read("tiny", tiny_data)


RECIPE = """
name = "{corpus}"
network = "{network}"
corpora = ["{corpus}"]
labels = ["angry", "neutral", "sad"]
[features]
n_mels = 32
n_mfcc = 32
n_fft = 1024
win_length = 1024
hop_length = 320
[features.pitch]
[features.functionals]
[augmentation]
variants = {variants}
[training]
{training}
[baseline]
windows = {windows}
"""


@pytest.fixture(scope="session")
def write_recipe(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes a recipe for the generated voices of a corpus."""

    def write(corpus: str, **values: object) -> Path:
        path = tmp_path_factory.mktemp("recipe") / f"{corpus}.toml"
        path.write_text(RECIPE.format(corpus=corpus, **values))
        return path

    return write


@pytest.fixture(scope="session")
def tiny_recipe(write_recipe: Callable[..., Path]) -> Path:
    return write_recipe("tiny", network="cnn_lstm", variants=1, training="epochs = 3\nbatch = 8", windows=4)


@pytest.fixture(scope="module")
def tiny(tiny_recipe: Path) -> Recipe:
    """Of a network that learns in steps."""
    from trainer import recipe

    return recipe.load(tiny_recipe)


@pytest.fixture(scope="module")
def workplace(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """With an own runs folder for every file of tests."""
    from trainer.experiment import Workplace

    return Workplace(tiny_data, tiny_data, tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def windows(tiny: Recipe, workplace: Workplace) -> WindowSet:
    """What the tiny recipe trains with."""
    return workplace.windows(tiny)
