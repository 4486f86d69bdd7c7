from itertools import pairwise

import numpy as np
import pytest
import scipy.signal
from hypothesis import given, settings
from hypothesis import strategies as st

from serstream.audio.resample import Resampler
from serstream.types import Samples

RATES = (4000, 11025, 12000, 22050, 32000, 44100, 44101, 48000, 96000, 192000)


def noise(n: int, seed: int = 0) -> Samples:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, n).astype(np.float32)


def resample_whole(samples: Samples, rate: int) -> Samples:
    resampler = Resampler(rate, 16000)
    return np.concatenate([resampler.push(samples), resampler.flush()])


@settings(max_examples=60, deadline=None)
@given(
    rate=st.sampled_from(RATES),
    sizes=st.lists(st.integers(0, 2000), max_size=20),
)
def test_pieces_equal_whole(rate: int, sizes: list[int]) -> None:
    samples = noise(sum(sizes))
    resampler = Resampler(rate, 16000)
    bounds = np.cumsum([0, *sizes])
    pieces = [resampler.push(samples[a:b]) for a, b in pairwise(bounds)]
    assert np.array_equal(np.concatenate([*pieces, resampler.flush()]), resample_whole(samples, rate))


@settings(max_examples=100, deadline=None)
@given(rate=st.integers(1000, 192000), n=st.integers(0, 5000))
def test_length_is_that_of_the_sound(rate: int, n: int) -> None:
    assert len(resample_whole(noise(n), rate)) == round(n * 16000 / rate)


@pytest.mark.parametrize("rate", RATES)
def test_position_in_is_position_out(rate: int) -> None:
    """A chirp over the speech band lies where the mathematically resampled chirp lies."""
    seconds = 1.0

    def chirp(at_rate: int) -> Samples:
        t = np.arange(round(seconds * at_rate)) / at_rate
        return (0.5 * np.sin(2 * np.pi * (200 * t + 1500 * t**2))).astype(np.float32)

    expected = chirp(16000)
    correlation = scipy.signal.correlate(resample_whole(chirp(rate), rate), expected)
    lag = int(np.argmax(correlation)) - (len(expected) - 1)
    assert 0 <= lag <= (0 if rate <= 16000 else 2)


def test_upsampling_adds_no_image_of_the_band() -> None:
    t = np.arange(12000) / 12000
    tones = sum(0.1 * np.sin(2 * np.pi * hz * t) for hz in (300, 1000, 2500, 5000)).astype(np.float32)
    resampled = resample_whole(tones, 12000)[1000:-1000]
    power = np.abs(np.fft.rfft(resampled * np.blackman(len(resampled)))) ** 2
    above = np.fft.rfftfreq(len(resampled), 1 / 16000) > 6050
    assert 10 * np.log10(power[above].max() / power.max()) < -100


def test_what_the_target_cannot_hold_is_gone() -> None:
    t = np.arange(48000) / 48000
    tone = (0.5 * np.sin(2 * np.pi * 9000 * t)).astype(np.float32)
    assert np.sqrt(np.mean(resample_whole(tone, 48000)[1000:-1000] ** 2)) < 1e-4


@pytest.mark.parametrize(("rate", "delay_ms"), [(11025, 21.8), (44100, 13.7), (48000, 12.5)])
def test_delay_is_short_at_every_push(rate: int, delay_ms: float) -> None:
    resampler = Resampler(rate, 16000)
    block = rate // 50
    returned = 0
    for pushed in range(block, 200 * block, block):
        returned += len(resampler.push(noise(block)))
        assert pushed / rate - returned / 16000 <= delay_ms / 1000 + 1e-9


def test_nothing_of_the_old_stream_is_left() -> None:
    resampler = Resampler(44100, 16000)
    resampler.push(noise(999, seed=1))
    resampler.flush()
    samples = noise(3000)
    again = np.concatenate([resampler.push(samples), resampler.flush()])
    assert np.array_equal(again, resample_whole(samples, 44100))
