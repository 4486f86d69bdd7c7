"""The analysis in C against the one by numpy, and when it is not to be used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from golden_specs import SPECS

from serstream.emotion import compiled, features
from serstream.emotion.compiled import CompiledAnalyser, compiled_analyser
from serstream.emotion.features import FeatureSpec, FloatArray
from serstream.emotion.pitch import PitchSpec
from serstream.emotion.spectra import NumpyAnalyser
from serstream.shipped import SAMPLE_CALL

needs_compiler = pytest.mark.skipif(not compiled.is_there(), reason="libspectra.so: there was no C compiler")

SPEECH = soundfile.read(SAMPLE_CALL, dtype="float32")[0][:, 0]
SHIPPED = FeatureSpec(n_fft=1024, win_length=1024, n_mels=64, n_mfcc=64, f_max=4000, pitch=PitchSpec())
SHAPES = SPECS | {
    "as the shipped models": SHIPPED,
    # The shortest transform, one whose length is no power of four, and the longest.
    "64": FeatureSpec(n_fft=64, win_length=48, hop_length=40, n_mels=8, n_mfcc=8),
    "2048": FeatureSpec(n_fft=2048, win_length=1500, hop_length=500, pitch=PitchSpec()),
    "8192": FeatureSpec(n_fft=8192, win_length=8192, hop_length=8000, window_s=3.0, pitch=PitchSpec()),
    # Fewer frames than are analysed side by side.
    "two frames": FeatureSpec(window_s=0.1, n_fft=1024, win_length=1024, hop_length=500, pitch=PitchSpec()),
}


def windows(spec: FeatureSpec, n: int = 7) -> FloatArray:
    return np.stack([SPEECH[begin : begin + spec.n_samples] for begin in range(0, 16_000 * n, 16_000)])


@needs_compiler
@pytest.mark.parametrize("name", SHAPES)
def test_c_and_numpy_say_the_same(name: str) -> None:
    spec = SHAPES[name]
    analysis = features._tables(spec, 1).analysis
    sound, gain = windows(spec), np.linspace(0.5, 20, 7, dtype=np.float32)
    analyse = compiled_analyser(analysis)
    assert analyse is not None
    ours, theirs = analyse(sound, gain), NumpyAnalyser(analysis)(sound, gain)
    np.testing.assert_allclose(ours.mel, theirs.mel, rtol=1e-4, atol=1e-6)
    if spec.pitch is None:
        assert ours.peaks is None and theirs.peaks is None
        return
    assert ours.peaks is not None and theirs.peaks is not None
    same = ours.peaks[:, 0] == theirs.peaks[:, 0]
    assert same.mean() > 0.99, "only ties may fall otherwise"
    for row in range(1, 4):
        np.testing.assert_allclose(ours.peaks[:, row][same], theirs.peaks[:, row][same], atol=1e-4)


@needs_compiler
def test_frames_that_are_no_power_of_two_are_left_to_numpy() -> None:
    tables = features._tables(FeatureSpec(n_fft=480, win_length=480, hop_length=120), 1)
    assert isinstance(tables.analyse, NumpyAnalyser)
    assert isinstance(features._tables(FeatureSpec(), 1).analyse, CompiledAnalyser)


def test_a_library_that_cannot_be_used_is_as_good_as_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "_FILE", tmp_path / "libspectra.so")
    assert compiled._load() is None
    (tmp_path / "libspectra.so").write_bytes(b"\x7fELF of another processor")
    assert compiled._load() is None


@needs_compiler
def test_a_library_of_another_version_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "_Plan", compiled._Transform)
    assert compiled._load() is None
