"""Writes golden_pitch.npz with openSMILE (eGeMAPS), so that the test needs no openSMILE.

Run: python tests/emotion/make_golden_pitch.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import opensmile
import soundfile
import soxr

from serstream.shipped import SAMPLE_CALL

HERE = Path(__file__).parent
RATE = 16_000
HOP, N_FFT, N_FRAMES = 256, 1024, 122
"""Of the recipe that the test uses."""
SMILE_HOP_S, SMILE_FRAME_S = 0.01, 0.06


def main() -> None:
    smile = opensmile.Smile(
        feature_set=opensmile.FeatureSet.eGeMAPSv02,
        feature_level=opensmile.FeatureLevel.LowLevelDescriptors,
    )
    samples, rate = soundfile.read(SAMPLE_CALL, dtype="float32", always_2d=True)
    speech = np.concatenate([soxr.resample(channel, rate, RATE) for channel in samples.T])
    pieces = speech[: len(speech) // 32_000 * 32_000].reshape(-1, 32_000)
    loudest = np.argsort(-np.square(pieces).mean(axis=1))[:4]
    windows = (pieces[loudest] * 32767).astype(np.int16)
    centre = (N_FFT / 2 + HOP * np.arange(N_FRAMES)) / RATE
    frame = np.round((centre - SMILE_FRAME_S / 2) / SMILE_HOP_S).astype(int)
    hz = []
    for window in windows:
        semitones = smile.process_signal(window.astype(np.float32) / 32768, RATE)[
            "F0semitoneFrom27.5Hz_sma3nz"
        ].to_numpy()
        at_frame = semitones[np.clip(frame, 0, len(semitones) - 1)]
        hz.append(np.where(at_frame > 0, 27.5 * 2 ** (at_frame / 12), 0))
    np.savez_compressed(HERE / "golden_pitch.npz", windows=windows, hz=np.array(hz, np.float32))


if __name__ == "__main__":
    main()
