from __future__ import annotations

import numpy as np
import pytest

from trainer.augment import CLEAN, Augmentation, Line, Sounds, draw_line, level_dbfs, transmit

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


@pytest.mark.parametrize("law", ["ULAW", "ALAW"])
def test_a_telephone_passes_the_voice_band_only(law: str) -> None:
    low = transmit(SPEECH, Line(law=law), rng())
    assert level_dbfs(low) == pytest.approx(level_dbfs(SPEECH), abs=0.3)
    high = (0.05 * np.sin(2 * np.pi * 6000 * np.arange(32_000) / 16_000)).astype(np.float32)
    assert level_dbfs(transmit(high, Line(law=law), rng())) < level_dbfs(high) - 30


def test_lost_packets_are_concealed() -> None:
    whole = transmit(SPEECH, Line(law="ULAW"), rng())
    lossy = transmit(SPEECH, Line(law="ULAW", loss=0.2), rng())
    changed = np.abs(whole - lossy).reshape(-1, 320).max(axis=1) > 1e-3
    assert 0.05 < changed.mean() < 0.5


def test_speed_changes_the_length() -> None:
    assert len(transmit(SPEECH, Line(speed=1.1), rng())) == pytest.approx(32_000 / 1.1, abs=2)


def test_lines_are_drawn_alike_from_the_same_seed() -> None:
    one, other = (draw_line(Augmentation(), SOUNDS, np.random.default_rng(5)) for _ in range(2))
    assert (one.speed, one.gain_db, one.law, one.loss) == (other.speed, other.gain_db, other.law, other.loss)
