from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the trainer extra")

from trainer.batches import Targets, shift
from trainer.dataset import WindowSet

pytestmark = pytest.mark.trainer


def test_labels_a_corpus_lacks_are_known_and_classes_weigh_alike(windows: WindowSet) -> None:
    targets = Targets.of(windows, ("angry", "fear", "neutral", "sad"))
    assert targets.known.tolist() == [[True, False, True, True]] * 36
    shares = [targets.weight[targets.label == k].sum() for k in (0, 2, 3)]
    assert shares == pytest.approx([shares[0]] * 3)


def test_of_a_corpus_that_only_validates_every_label_that_is_taught_may_be_right(windows: WindowSet) -> None:
    clips = [replace(clip, corpus="other") if i < 5 else clip for i, clip in enumerate(windows.clips)]
    taught = replace(windows, clips=clips).of_clips(range(5, len(clips)))
    known = Targets.of(taught, ("angry", "fear", "neutral", "sad")).known
    assert known.tolist() == [[True, False, True, True]] * 36


def test_both_sexes_of_a_class_can_weigh_alike(windows: WindowSet) -> None:
    """One woman to several men in one class, men alone in another."""
    labels = ("angry", "neutral", "sad")
    angry = [i for i, clip in enumerate(windows.clips) if clip.emotion == "angry"]
    clips = [
        replace(clip, sex="male" if clip.emotion == "neutral" or i in angry[1:] else "female")
        for i, clip in enumerate(windows.clips)
    ]
    weight = Targets.of(replace(windows, clips=clips), labels, by_sex=True).weight
    assert weight[angry[0]] == pytest.approx(weight[angry[1:]].sum())
    shares = [weight[[clip.emotion == label for clip in clips]].sum() for label in labels]
    assert shares == pytest.approx([shares[0]] * 3)


def test_shifted_windows_keep_their_frames() -> None:
    frames = torch.arange(8.0).expand(5, 2, 8)
    shifted = shift(frames, 0.25, np.random.default_rng(0))
    starts = [int(window[0, 0]) for window in shifted]
    assert set(starts) <= {6, 7, 0, 1, 2} and len(set(starts)) > 1
    for start, window in zip(starts, shifted, strict=True):
        assert window.tolist() == [[(start + k) % 8 for k in range(8)]] * 2
