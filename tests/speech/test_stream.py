import numpy as np
import pytest
import soxr
from test_segmenter import silence, voice, windows

from serstream.config import SegmenterSettings
from serstream.speech.quality import FULL_SCALE
from serstream.speech.stream import StreamSegmenter
from serstream.types import SAMPLE_RATE, AudioChunk


@pytest.mark.parametrize("rate", [8000, 16_000, 44_100, 48_000])
@pytest.mark.parametrize("block_s", [0.02, 0.33, 10.0])
def test_clipping_is_that_of_the_sound_that_came(rate: int, block_s: float) -> None:
    """Resampling rounds clipped edges off; in pieces of any length, and of speech that is clipped in part."""
    speech = voice(4.0)
    speech[: len(speech) // 2] *= 4
    sound = soxr.resample(np.concatenate([silence(1), speech, silence(1)]), SAMPLE_RATE, rate)
    sound = np.clip(sound, -1, 1).astype(np.float32)
    n = round(block_s * rate)
    segmenter = StreamSegmenter("s", SegmenterSettings())
    cut = [
        segment
        for begin in range(0, len(sound), n)
        for segment in segmenter.push(AudioChunk("s", sound[begin : begin + n], rate, begin))
    ]
    found = windows(cut + segmenter.flush())
    expected = [
        np.mean(np.abs(sound[w.start * rate // SAMPLE_RATE : w.end * rate // SAMPLE_RATE]) >= FULL_SCALE)
        for w in found
    ]
    assert max(expected) > 0.1 > min(expected)
    assert [w.quality.clipping for w in found] == pytest.approx(expected, abs=1e-3)
