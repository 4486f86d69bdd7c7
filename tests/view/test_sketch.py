import base64
import io
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import numpy as np
import pytest
from tiny_model import LABELS

from serstream.classify import Classified, Utterance, Verdict
from serstream.errors import SourceError
from serstream.view import sketch
from serstream.view.emoji import COLOURS

RATE = 16_000
SVG = "{http://www.w3.org/2000/svg}"
SCORES = {label: 0.9 if label == "angry" else 0.02 for label in LABELS}


def tone(seconds: float = 4.0, hz: float = 1000.0) -> Classified:
    """Silence, and from the middle on a tone that was found angry."""
    time = np.arange(round(seconds * RATE)) / RATE
    samples = (0.5 * np.sin(2 * np.pi * hz * time) * (time > seconds / 2)).astype(np.float32)
    angry = Utterance(start=seconds / 2, end=seconds, emotion="angry", confidence=0.9, probabilities=SCORES)
    verdict = Verdict(
        recording="a <tone>.wav",
        stream="tone-1",
        role="unknown",
        model="tiny@1",
        seconds=seconds,
        speech_s=seconds / 2,
        emotion="angry",
        confidence=0.9,
        probabilities=SCORES,
        windows=0,
        unscored={},
        utterances=[angry],
    )
    return Classified(verdict, [], samples, RATE)


def test_a_spectrogram_is_dark_where_the_sound_is() -> None:
    pixels = sketch.spectrogram(tone().samples, RATE, scale=(sketch.RIGHT - sketch.LEFT) / 4.0)
    height, width = sketch.ROW[sketch.SPECTROGRAM], sketch.RIGHT - sketch.LEFT
    assert pixels.shape == (height, width, 3)
    assert (pixels[:, : width // 2 - 10] > 250).all()
    darkest = pixels[:, width * 3 // 4, 0].argmin()
    assert sketch.TOP_HZ * (1 - darkest / (height - 1)) == pytest.approx(1000, abs=60)


def test_an_svg_is_whole_and_its_image_is_a_png(tmp_path: Path) -> None:
    sketch.draw(tone(), tmp_path / "tone.svg")
    root = ElementTree.parse(tmp_path / "tone.svg").getroot()
    texts = ["".join(text.itertext()) for text in root.iter(f"{SVG}text")]
    assert "angry 90%" in texts and "a <tone>.wav, 0:04" in texts and "😠" in texts
    (image,) = root.iter(f"{SVG}image")
    encoded = image.attrib["href"].removeprefix("data:image/png;base64,")
    png = pytest.importorskip("PIL.Image", reason="needs Pillow").open(io.BytesIO(base64.b64decode(encoded)))
    expected = sketch.spectrogram(tone().samples, RATE, (sketch.RIGHT - sketch.LEFT) / 4.0)
    np.testing.assert_array_equal(np.asarray(png), expected)


def test_a_png_shows_the_emotion_in_its_colour(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="needs Pillow")
    sketch.draw(tone(), tmp_path / "tone.png")
    pixels = np.asarray(image.open(tmp_path / "tone.png").convert("RGB"))
    assert pixels.shape == (2 * sketch.HEIGHT, 2 * sketch.WIDTH, 3)
    angry = [int(COLOURS["angry"][i : i + 2], 16) for i in (1, 3, 5)]
    coloured = (pixels == angry).all(axis=2)[2 * sketch.WAVEFORM : 2 * sketch.SPECTROGRAM]
    columns = np.flatnonzero(coloured.any(axis=0)) / 2
    middle = (sketch.LEFT + sketch.RIGHT) / 2
    assert columns.min() == pytest.approx(middle, abs=3)
    assert columns.max() == pytest.approx(sketch.RIGHT, abs=3)


def test_a_picture_of_silence_can_be_drawn(tmp_path: Path) -> None:
    silent = tone()
    verdict = msgspec.structs.replace(silent.verdict, emotion=None, probabilities={}, utterances=[])
    sketch.draw(Classified(verdict, [], np.zeros(50, np.float32), RATE), tmp_path / "silent.svg")
    assert "no speech" in (tmp_path / "silent.svg").read_text()


def test_a_recording_too_long_for_a_picture_is_refused(tmp_path: Path) -> None:
    long = tone()
    verdict = msgspec.structs.replace(long.verdict, seconds=7200.0)
    with pytest.raises(SourceError, match=r"a <tone>\.wav has 120 minutes, a picture has room for 30"):
        sketch.draw(Classified(verdict, [], long.samples, RATE), tmp_path / "long.svg")
