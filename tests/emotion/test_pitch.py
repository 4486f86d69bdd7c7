from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from serstream.emotion.features import FeatureSpec, FloatArray, mfcc
from serstream.emotion.pitch import PitchSpec
from serstream.errors import ModelError

RATE = 16_000
SPEC = FeatureSpec(
    n_fft=1024, win_length=1024, hop_length=256, n_mels=64, n_mfcc=64, f_max=4000, pitch=PitchSpec()
)
GOLDEN = np.load(Path(__file__).parent / "golden_pitch.npz")


def voice(hz: FloatArray, n_harmonics: int = 6) -> FloatArray:
    """A buzz whose pitch is ``hz`` at every sample, shape (n,)."""
    phase = 2 * np.pi * np.cumsum(hz) / RATE
    buzz = sum(np.sin(k * phase) / k for k in range(1, n_harmonics + 1))
    return (0.1 * buzz).astype(np.float32)


def contour(window: FloatArray, sample_rate: int = RATE) -> tuple[FloatArray, FloatArray]:
    """Pitch in Hz and strength, both of shape (n_frames,)."""
    rows = mfcc(window[None], SPEC, sample_rate)
    assert rows.shape == (1, 66, SPEC.n_frames)
    return 60 * 2 ** rows[0, 64], rows[0, 65]


@pytest.mark.parametrize("hz", [70, 110, 175, 240, 330, 480, 570])
def test_a_steady_voice_has_its_pitch(hz: float) -> None:
    pitch, strength = contour(voice(np.full(32_000, hz)))
    np.testing.assert_allclose(pitch, hz, rtol=0.01)
    assert strength.min() > 0.9


def test_a_gliding_voice_is_followed() -> None:
    hz = np.linspace(120, 300, 32_000)
    pitch, _ = contour(voice(hz))
    centres = 512 + 256 * np.arange(SPEC.n_frames)
    np.testing.assert_allclose(pitch, hz[centres], rtol=0.02)


def test_noise_has_no_voice_and_silence_is_finite() -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 32_000).astype(np.float32)
    assert contour(noise)[1].mean() < 0.3
    pitch, strength = contour(np.zeros(32_000, np.float32))
    assert np.isfinite(pitch).all() and not strength.any()


def test_unvoiced_frames_keep_the_last_voiced_pitch() -> None:
    rng = np.random.default_rng(0)
    window = rng.normal(0, 0.05, 32_000).astype(np.float32)
    window[8000:16_000] = voice(np.full(8000, 150.0))
    pitch, strength = contour(window)
    assert (strength[:25] < 0.5).all() and (strength[70:] < 0.5).all()
    assert np.unique(pitch[:25]).size == np.unique(pitch[70:]).size == 1
    np.testing.assert_allclose(pitch[[0, -1]], 150, rtol=0.05)


def test_telephone_sound_at_its_own_rate_has_the_same_pitch() -> None:
    window = voice(np.linspace(150, 250, 32_000))  # nothing in it is above 4 kHz
    wide, narrow = contour(window), contour(window[::2].copy(), 8000)
    np.testing.assert_allclose(narrow[0], wide[0], rtol=1e-3)
    np.testing.assert_allclose(narrow[1], wide[1], atol=1e-3)


def test_windows_do_not_influence_each_other() -> None:
    windows = np.stack([voice(np.full(32_000, hz)) for hz in (90.0, 140.0, 200.0, 260.0, 310.0)])
    together = mfcc(windows, SPEC)
    for i in range(len(windows)):
        np.testing.assert_allclose(mfcc(windows[i : i + 1], SPEC)[0], together[i], atol=1e-3)


def test_speech_has_the_pitch_that_opensmile_finds() -> None:
    """Both may take a frame for the octave below or above; nine of ten agree."""
    hz = 60 * 2 ** mfcc(GOLDEN["windows"].astype(np.float32) / 32768, SPEC)[:, 64]
    voiced = GOLDEN["hz"] > 0
    assert voiced.mean() > 0.2
    close = np.abs(np.log2(hz[voiced] / GOLDEN["hz"][voiced])) < 0.07
    assert close.mean() > 0.9


@pytest.mark.parametrize(
    ("pitch", "complaint"),
    [
        ('{"f_min": 400, "f_max": 300}', r"f_min is 400\.0, must be below f_max \(300\.0\)"),
        ('{"f_min": 40}', r"win_length is 1024 samples, must hold 3 periods of the lowest pitch, 40\.0 Hz"),
        ('{"f_max": 4001}', r"f_max is 4001\.0, must be at most sample_rate / 4 \(4000\.0\)"),
        ('{"octave": 1}', "octave"),
    ],
)
def test_a_spec_that_cannot_be_is_refused(pitch: str, complaint: str) -> None:
    with pytest.raises(ModelError, match=complaint):
        FeatureSpec.from_json(f'{{"n_fft": 1024, "win_length": 1024, "pitch": {pitch}}}')
