"""Training windows are what the daemon would cut out of a call with the clip."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

pytest.importorskip("torch", reason="needs the trainer extra")

from serstream.config import SegmenterSettings
from serstream.emotion.features import FeatureSpec, pad
from serstream.speech.stream import StreamSegmenter
from serstream.types import AudioChunk, SpeechWindow
from trainer.windows import SILENCE_S, cut, in_silence, load

pytestmark = pytest.mark.trainer

CLIPS = sorted((Path(__file__).parents[1] / "fixtures" / "emo-db").glob("*.flac"))


@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000])
@pytest.mark.parametrize("clip", CLIPS, ids=lambda clip: clip.stem)
def test_a_clip_of_any_rate_is_cut_as_the_daemon_cuts_it(clip: Path, rate: int, tmp_path: Path) -> None:
    samples, own_rate = soundfile.read(clip, dtype="float32")
    path = tmp_path / "clip.wav"
    soundfile.write(path, soxr.resample(samples, own_rate, rate), rate, subtype="FLOAT")
    sound = np.pad(soundfile.read(path, dtype="float32")[0], round(SILENCE_S * rate))
    daemon = StreamSegmenter("call", SegmenterSettings())
    segments = []
    for start in range(0, len(sound), rate // 50):
        segments += daemon.push(AudioChunk("call", sound[start : start + rate // 50], rate, start))
    spec = FeatureSpec()
    expected = [
        pad(segment.samples[-spec.n_samples :], spec)
        for segment in segments + daemon.flush()
        if isinstance(segment, SpeechWindow)
    ]
    # A resampler rings for some milliseconds after the clip, which `load` does not keep.
    np.testing.assert_allclose(
        cut(in_silence(load(path)), spec, SegmenterSettings()).windows, expected, atol=1e-3
    )
