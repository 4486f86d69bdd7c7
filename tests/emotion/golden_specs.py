"""Recipes of the golden MFCC vectors, shared by the script that makes them and the test."""

from __future__ import annotations

from serstream.emotion.features import FeatureSpec

SPECS = {
    "default": FeatureSpec(level_dbfs=None),
    "long_frames": FeatureSpec(
        level_dbfs=None, n_fft=1024, win_length=1024, hop_length=256, n_mfcc=64, f_max=4000, deltas=1
    ),
}
