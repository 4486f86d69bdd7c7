from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs the trainer extra")

from serstream.emotion.features import FeatureSpec
from trainer import corpora
from trainer.augment import Augmentation, Sounds
from trainer.dataset import Preparation, WindowSet, gather

SPEC = FeatureSpec(n_mels=32, n_mfcc=32, hop_length=320)
UNTOUCHED = Augmentation(variants=1, speed=0.0, gain_db=0.0, noise=0.0, room=0.0, telephone=0.0, low_pass=0.0)
APPENDING = Augmentation(
    variants=1, speed=0.0, gain_db=0.0, noise=0.0, room=0.0, telephone=0.0, low_pass=0.0, neutral=1.0
)

pytestmark = pytest.mark.trainer


def windows(augmentation: Augmentation, data: Path, cache: Path) -> WindowSet:
    sounds = Sounds(noises=[], test_noises=[], rooms=[])
    preparation = Preparation(SPEC, augmentation, sounds, cache)
    clips = [clip for clip in corpora.read("tiny", data) if clip.speaker == "tiny/s0"]
    return gather(preparation, clips, ["clean", "train-0"])


def seconds(windows: WindowSet, emotion: str, line: int) -> float:
    own = windows.of_line(line)
    chosen = [own.clips[i].emotion == emotion for i in own.clip]
    return float(own.seconds[chosen].sum())


def test_only_training_clips_of_other_emotions_are_joined_to_neutral_speech(
    tiny_data: Path, tmp_path: Path
) -> None:
    plain = windows(UNTOUCHED, tiny_data, tmp_path)
    joined = windows(APPENDING, tiny_data, tmp_path)
    half_a_window = SPEC.window_s / 2
    assert seconds(joined, "angry", 1) - seconds(plain, "angry", 1) == pytest.approx(
        3 * half_a_window, abs=0.3
    )
    assert seconds(joined, "neutral", 1) == seconds(plain, "neutral", 1)
    assert seconds(joined, "angry", 0) == seconds(plain, "angry", 0)
