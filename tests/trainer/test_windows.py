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
from trainer.windows import SILENCE_S, Cut, cut, in_silence, load

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


def cut_at(*spans: tuple[int, int]) -> Cut:
    windows = np.array([[start] for start, _ in spans], np.float32)
    return Cut(windows, [float(start) for start, _ in spans], list(spans), spoken=True)


@pytest.mark.parametrize(
    ("noisy", "quiet", "kept"),
    [
        ([(0, 100), (100, 200), (200, 300)], [(40, 100), (160, 200), (240, 400)], [0, 200]),
        ([(0, 100), (150, 250)], [(50, 90), (60, 100), (240, 260)], [0]),  # overlapping ones count once
        ([(0, 100), (100, 200)], [(90, 100), (100, 140)], [100]),  # none has half: the one that has most
    ],
)
def test_windows_of_pauses_that_noise_fills_are_left_out(
    noisy: list[tuple[int, int]], quiet: list[tuple[int, int]], kept: list[int]
) -> None:
    left = cut_at(*noisy).within(cut_at(*quiet))
    assert left.seconds == left.windows[:, 0].tolist() == [start for start, _ in left.spans] == kept


@pytest.mark.parametrize("clip", CLIPS, ids=lambda clip: clip.stem)
def test_a_cut_says_where_its_windows_lie(clip: Path) -> None:
    spec, sound = FeatureSpec(), in_silence(load(clip))
    for pieces in (cut(sound, spec, SegmenterSettings()), cut(0 * sound, spec, SegmenterSettings())):
        lying = [pad(np.sign(pieces.windows.std()) * sound[start:end], spec) for start, end in pieces.spans]
        np.testing.assert_array_equal(pieces.windows, lying)
