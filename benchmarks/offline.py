"""Offline scoring against two pipelines that a user would build instead, on the same windows in the same run.

- serstream: recordings through the whole pipeline, VAD and messages included.
- librosa: the same windows, librosa's MFCC with the model's parameters one window at a time, then the same
  ONNX model. Cutting the windows is not counted.
- openSMILE: eGeMAPS functionals of the same windows, then a linear SVM of scikit-learn. Nor is it here.

Everything in one process on one thread; figures are processor time. Prints one JSON object as its last line.
"""

import json
import time
from collections.abc import Callable

import librosa
import numpy as np
import onnxruntime as ort
import opensmile
import soundfile
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from serstream.config import ModelSettings, SegmenterSettings, Settings
from serstream.emotion.features import pad
from serstream.emotion.loading import load_model
from serstream.replay import recording_events, replay
from serstream.shipped import SAMPLE_CALL
from serstream.speech.stream import StreamSegmenter
from serstream.types import AudioChunk, Samples, SpeechWindow

REPEATS = 20
OPENSMILE_WINDOWS = 24
"""openSMILE is slow enough for a few of them to be measured well."""


def cpu_s(work: Callable[[], object]) -> float:
    """Processor time of the second of two runs."""
    work()
    began = time.process_time()
    work()
    return time.process_time() - began


def windows() -> list[Samples]:
    """The speech windows of the sample call."""
    found: list[Samples] = []
    samples, rate = soundfile.read(SAMPLE_CALL, dtype="float32")
    for channel in samples.T:
        sound = StreamSegmenter("s", SegmenterSettings())
        segments = sound.push(AudioChunk("s", channel.copy(), rate, 0)) + sound.flush()
        found += [segment.samples for segment in segments if isinstance(segment, SpeechWindow)]
    return found


def main() -> None:
    model = load_model(ModelSettings(device="cpu"))
    spec = model.metadata.feature_spec
    cut = windows()
    padded = [pad(samples, spec) for samples in cut]
    stream_s = 2 * soundfile.info(SAMPLE_CALL).duration

    def of_serstream() -> None:
        for _ in range(REPEATS):
            for _ in replay(recording_events(SAMPLE_CALL, (), Settings()), Settings(), model):
                pass

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(str(model.path), options, providers=["CPUExecutionProvider"])
    names = [node.name for node in session.get_inputs()]

    def of_librosa() -> None:
        for samples in padded:
            features = librosa.feature.mfcc(
                y=samples,
                sr=spec.sample_rate,
                n_mfcc=spec.n_mfcc,
                n_fft=spec.n_fft,
                win_length=spec.win_length,
                hop_length=spec.hop_length,
                n_mels=spec.n_mels,
                fmin=spec.f_min,
                fmax=spec.f_max,
                center=False,
                htk=True,
                norm="ortho",
            )
            session.run(None, {names[0]: features[None].astype(np.float32)})

    smile = opensmile.Smile(opensmile.FeatureSet.eGeMAPSv02, opensmile.FeatureLevel.Functionals)
    few = padded[:OPENSMILE_WINDOWS]
    vectors = np.concatenate([smile.process_signal(samples, spec.sample_rate).to_numpy() for samples in few])
    svm = make_pipeline(StandardScaler(), LinearSVC()).fit(vectors, np.arange(len(few)) % 6)

    def of_opensmile() -> None:
        for samples in few:
            svm.predict(smile.process_signal(samples, spec.sample_rate).to_numpy())

    hours = stream_s / 3600
    figures = {
        "serstream": hours * REPEATS / (cpu_s(of_serstream) / 3600),
        "librosa_onnxruntime": hours / (cpu_s(of_librosa) / 3600),
        "opensmile_svm": hours * len(few) / len(cut) / (cpu_s(of_opensmile) / 3600),
    }
    ours = figures["serstream"]
    print(
        json.dumps(
            {
                "benchmark": "offline",
                "windows_per_call": len(cut),
                "audio_hours_per_cpu_hour": {name: round(value) for name, value in figures.items()},
                "times_librosa": round(ours / figures["librosa_onnxruntime"], 1),
                "times_opensmile": round(ours / figures["opensmile_svm"], 1),
            }
        )
    )


if __name__ == "__main__":
    main()
