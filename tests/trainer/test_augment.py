from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

pytest.importorskip("python_stretch", reason="needs the trainer extra")

from serstream.types import Samples
from trainer.augment import (
    CLEAN,
    Augmentation,
    Line,
    Sounds,
    beside_neutral,
    draw_line,
    level_dbfs,
    transmit,
)
from trainer.corpora import CorpusError

pytestmark = pytest.mark.trainer

NOISE = np.random.default_rng(1).normal(0, 10 ** (-26 / 20), 16_000).astype(np.float32)
SPEECH = (0.05 * np.sin(2 * np.pi * 300 * np.arange(32_000) / 16_000)).astype(np.float32)
SOUNDS = Sounds(noises=[NOISE], test_noises=[NOISE], rooms=[])


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_a_clean_line_changes_nothing() -> None:
    np.testing.assert_array_equal(transmit(SPEECH, CLEAN, rng()), SPEECH)


def test_noise_has_the_ratio_asked_for() -> None:
    noisy = transmit(np.zeros(32_000, np.float32), Line(noise=NOISE, noise_db=10), rng())
    assert level_dbfs(noisy) == pytest.approx(-36, abs=0.2)


def test_the_silence_that_fills_a_recording_up_is_no_noise(tmp_path: Path) -> None:
    for name, level in (("a", 0.5), ("b", 0.01)):
        samples = np.zeros(80_000)
        samples[8_000:16_000] = level * NOISE[:8_000]
        soundfile.write(tmp_path / f"{name}.wav", samples, 16_000, subtype="FLOAT")
    sounds = Sounds.load(tmp_path, tmp_path / "no rooms")
    assert [len(sounds.noises), len(sounds.test_noises)] == [1, 1]
    for noise in (*sounds.noises, *sounds.test_noises):
        assert len(noise) == pytest.approx(8_000, abs=320)
        assert level_dbfs(noise) == pytest.approx(-26, abs=0.1)


@pytest.mark.parametrize("n_noises", [2, 5, 11])
def test_every_seed_keeps_other_noises_for_tests(tmp_path: Path, n_noises: int) -> None:
    for number in range(n_noises):
        noise = np.roll(NOISE, 1_000 * number)
        soundfile.write(tmp_path / f"{number:02}.wav", noise, 16_000, subtype="FLOAT")
    by_seed = [Sounds.load(tmp_path, tmp_path / "no rooms", seed) for seed in range(5)]
    tested = [{noise.tobytes() for noise in sounds.test_noises} for sounds in by_seed]
    for sounds, own in zip(by_seed, tested, strict=True):
        assert own and own.isdisjoint(noise.tobytes() for noise in sounds.noises)
        assert len(sounds.noises) + len(own) == n_noises
    assert tested[0] != tested[4]
    if n_noises >= 5:
        assert len(set.union(*tested)) == n_noises
    assert len({sounds.digest() for sounds in by_seed}) == 1


@pytest.mark.parametrize(
    ("noises", "rooms", "said"),
    [
        ([NOISE], [], "has one recording, wanted two or more"),
        ([NOISE, 0 * NOISE], [], r"1\.wav: is silent or too short, wanted noise"),
        ([NOISE, NOISE[:200]], [], r"1\.wav: is silent or too short, wanted noise"),
        ([], [0 * NOISE], r"0\.wav: is silent after its peak, wanted an impulse response"),
    ],
)
def test_sounds_that_are_none_are_refused(
    tmp_path: Path, noises: list[Samples], rooms: list[Samples], said: str
) -> None:
    for folder, sounds in (("noises", noises), ("rooms", rooms)):
        (tmp_path / folder).mkdir()
        for number, samples in enumerate(sounds):
            soundfile.write(tmp_path / folder / f"{number}.wav", samples, 16_000, subtype="FLOAT")
    with pytest.raises(CorpusError, match=said):
        Sounds.load(tmp_path / "noises", tmp_path / "rooms")


@pytest.mark.parametrize("law", ["ULAW", "ALAW"])
def test_a_telephone_passes_the_voice_band_only(law: str) -> None:
    low = transmit(SPEECH, Line(law=law), rng())
    assert level_dbfs(low) == pytest.approx(level_dbfs(SPEECH), abs=0.3)
    high = (0.05 * np.sin(2 * np.pi * 6000 * np.arange(32_000) / 16_000)).astype(np.float32)
    assert level_dbfs(transmit(high, Line(law=law), rng())) < level_dbfs(high) - 30


@pytest.mark.parametrize("law", ["ULAW", "ALAW"])
def test_a_telephone_saturates_what_is_too_loud(law: str) -> None:
    loud = np.clip(60 * SPEECH, -1, 1)
    overshoot = soxr.resample(loud, 16_000, 8_000)
    assert np.abs(overshoot).max() > 1.02
    received = soxr.resample(transmit(loud, Line(law=law), rng()), 16_000, 8_000)
    np.testing.assert_allclose(received, np.clip(overshoot, -1, 1), atol=0.1)


def test_lost_packets_are_concealed() -> None:
    whole = transmit(SPEECH, Line(law="ULAW"), rng())
    lossy = transmit(SPEECH, Line(law="ULAW", loss=0.2), rng())
    changed = np.abs(whole - lossy).reshape(-1, 320).max(axis=1) > 1e-3
    assert 0.05 < changed.mean() < 0.5


def test_speed_changes_the_length() -> None:
    assert len(transmit(SPEECH, Line(speed=1.1), rng())) == pytest.approx(32_000 / 1.1, abs=2)


def pitch_hz(samples: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum) * 16_000 / len(samples))


@pytest.mark.parametrize(("stretch", "pitch"), [(0.8, 0.0), (1.25, 0.0), (1.0, -3.0), (1.0, 3.0), (0.9, 2.0)])
def test_tempo_and_pitch_change_independently_and_keep_the_level(stretch: float, pitch: float) -> None:
    changed = transmit(SPEECH, Line(stretch=stretch, pitch=pitch), rng())
    assert changed.dtype == np.float32
    assert len(changed) == pytest.approx(32_000 / stretch, abs=2)
    assert pitch_hz(changed) == pytest.approx(300 * 2 ** (pitch / 12), rel=0.01)
    assert level_dbfs(changed) == pytest.approx(level_dbfs(SPEECH), abs=1)


def test_neutral_speech_stands_before_or_after() -> None:
    clip, neutral = np.arange(1, 5), -np.arange(1, 10)
    joined = {tuple(beside_neutral(clip, neutral, 2, np.random.default_rng(seed))) for seed in range(8)}
    assert joined == {(1, 2, 3, 4, -1, -2), (-8, -9, 1, 2, 3, 4)}


def test_nothing_but_the_voice_depends_on_the_settings_of_the_voice() -> None:
    """So that an experiment with them compares like with like."""
    one = draw_line(Augmentation(), SOUNDS, np.random.default_rng(5))
    other = draw_line(Augmentation(pitch=2.0, stretch=0.1), SOUNDS, np.random.default_rng(5))
    assert (one.stretch, one.pitch) == (1.0, 0.0)
    assert abs(other.pitch) > 0.01 and abs(other.stretch - 1) > 0.001
    assert (one.speed, one.gain_db, one.law, one.loss) == (other.speed, other.gain_db, other.law, other.loss)


def test_lines_are_drawn_alike_from_the_same_seed() -> None:
    one, other = (draw_line(Augmentation(), SOUNDS, np.random.default_rng(5)) for _ in range(2))
    assert (one.speed, one.gain_db, one.law, one.loss) == (other.speed, other.gain_db, other.law, other.loss)
