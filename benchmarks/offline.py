"""Offline scoring against pipelines that a user would build instead, on one recording in one run.

- serstream: recordings to files of JSON lines, as ``serstream replay -o``: decoding, VAD, scores, messages.
- librosa: `librosa.load` at 16 kHz, WebRTC VAD over its frames, the same windows cut out of it, librosa's
  MFCC with the parameters of the model one window at a time, the same ONNX model in ONNX Runtime, a JSON line
  a window. What else the model hears is left empty.
- librosa, the same work: pitch by `librosa.yin` as well (the strength of the voice is left empty), and
  serstream's functionals of both, so that the model hears what it was trained for.
- openSMILE: the same loading, VAD and windows, eGeMAPS functionals of each, a linear SVM of scikit-learn.

What turns the peers' VAD decisions into windows costs them nothing: they are told. Everything on one thread
of one process, processor time of the second of two runs. ``all_cores`` is the wall clock time of the same
with a process per core, their start and loading of the model included. Prints one JSON object as its last
line.
"""

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import librosa
import numpy as np
import onnxruntime as ort
import opensmile
import soundfile
import webrtcvad
from numpy.typing import NDArray
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from threadpoolctl import threadpool_limits

from serstream import offline
from serstream.config import ModelSettings, Settings
from serstream.emotion.features import pad
from serstream.emotion.inputs import FEATURES, alone
from serstream.emotion.loading import load_model
from serstream.offline import Job, score_all
from serstream.replay import recording_events
from serstream.service.allocator import keep_working_memory
from serstream.shipped import SAMPLE_CALL
from serstream.speech.segmenter import FRAME
from serstream.speech.stream import StreamSegmenter
from serstream.types import SAMPLE_RATE, AudioChunk, SpeechWindow

COPIES = 20
"""Recordings that serstream scores; the peers are slow enough for one."""
MANY_COPIES = 400
"""Recordings that all cores score."""

Windows = list[tuple[int, int, int]]
"""Channel, start and end at 16 kHz."""


def cpu_s(work: Callable[[], object]) -> float:
    """Processor time of the second of two runs."""
    work()
    began = time.process_time()
    work()
    return time.process_time() - began


def find_windows() -> Windows:
    """The speech windows of the sample call."""
    found: Windows = []
    segmenters: dict[str, StreamSegmenter] = {}
    for event in recording_events(SAMPLE_CALL, (), Settings()):
        if not isinstance(event, AudioChunk):
            continue
        sound = segmenters.setdefault(event.stream, StreamSegmenter(event.stream, Settings().segmenter))
        channel = list(segmenters).index(event.stream)
        segments = sound.push(event)
        found += [(channel, s.start, s.end) for s in segments if isinstance(s, SpeechWindow)]
    for channel, sound in enumerate(segmenters.values()):
        found += [(channel, s.start, s.end) for s in sound.flush() if isinstance(s, SpeechWindow)]
    return found


def cut(windows: Windows) -> Iterator[NDArray[np.float32]]:
    """The samples of windows, as a user of librosa and webrtcvad gets them."""
    sound, _ = librosa.load(SAMPLE_CALL, sr=SAMPLE_RATE, mono=False)
    for channel in (sound * 32767).astype(np.int16):
        vad = webrtcvad.Vad(2)
        for begin in range(0, len(channel) - FRAME + 1, FRAME):
            vad.is_speech(channel[begin : begin + FRAME].tobytes(), SAMPLE_RATE)
    for channel, start, end in windows:
        yield sound[channel, start:end]


def main() -> None:
    keep_working_memory()
    settings = Settings(model=ModelSettings(device="cpu"))
    model = load_model(settings.model)
    spec = model.metadata.feature_spec
    assert spec.pitch is not None, "the comparison with librosa wants a model that hears pitch"
    windows = find_windows()
    call_s = 2 * soundfile.info(SAMPLE_CALL).duration

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(str(model.path), options, providers=["CPUExecutionProvider"])
    inputs = {node.name: np.zeros((1, *node.shape[1:]), np.float32) for node in session.get_inputs()}

    def of_librosa(everything: bool) -> None:
        with open(os.devnull, "w") as file:
            for samples in cut(windows):
                window = pad(samples, spec)
                features = inputs[FEATURES]
                features[0, : spec.n_mfcc] = librosa.feature.mfcc(
                    y=window,
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
                if everything:
                    features[0, spec.n_mfcc] = librosa.yin(
                        window,
                        fmin=spec.pitch.f_min,
                        fmax=spec.pitch.f_max,
                        sr=spec.sample_rate,
                        frame_length=spec.n_fft,
                        hop_length=spec.hop_length,
                        center=False,
                    )
                (logits,) = session.run(None, alone(features, spec) if everything else inputs)
                file.write(json.dumps(dict(zip(model.metadata.labels, logits[0].tolist(), strict=True))))

    smile = opensmile.Smile(opensmile.FeatureSet.eGeMAPSv02, opensmile.FeatureLevel.Functionals)
    vectors = np.concatenate([smile.process_signal(s, SAMPLE_RATE).to_numpy() for s in cut(windows)])
    svm = make_pipeline(StandardScaler(), LinearSVC()).fit(vectors, np.arange(len(windows)) % 6)

    def of_opensmile() -> None:
        with open(os.devnull, "w") as file:
            for samples in cut(windows):
                label = svm.predict(smile.process_signal(samples, SAMPLE_RATE).to_numpy())
                file.write(json.dumps(label.tolist()))

    with tempfile.TemporaryDirectory() as folder, threadpool_limits(1):
        jobs = [Job(SAMPLE_CALL, Path(folder, f"{i}.jsonl")) for i in range(MANY_COPIES)]
        offline._model = model

        def of_serstream() -> None:
            for job in jobs[:COPIES]:
                done = offline._score(job, settings, ())
                assert not done.error, done.error

        seconds = {
            "serstream": cpu_s(of_serstream) / COPIES,
            "librosa_onnxruntime": cpu_s(lambda: of_librosa(everything=False)),
            "librosa_same_work": cpu_s(lambda: of_librosa(everything=True)),
            "opensmile_svm": cpu_s(of_opensmile),
        }
        began = time.monotonic()
        processes = os.cpu_count() or 1
        for done in score_all(jobs, settings, Path(), (), processes):
            assert not done.error, done.error
        wall_s = time.monotonic() - began
    ours = seconds["serstream"]
    print(
        json.dumps(
            {
                "benchmark": "offline",
                "windows_per_hour": round(len(windows) / call_s * 3600),
                "audio_hours_per_cpu_hour": {who: round(call_s / taken) for who, taken in seconds.items()},
                "times_librosa": round(seconds["librosa_onnxruntime"] / ours, 1),
                "times_librosa_same_work": round(seconds["librosa_same_work"] / ours, 1),
                "times_opensmile": round(seconds["opensmile_svm"] / ours, 1),
                "all_cores": {
                    "processes": processes,
                    "hours": round(MANY_COPIES * call_s / 3600, 2),
                    "hours_per_minute": round(MANY_COPIES * call_s / 60 / wall_s, 1),
                },
            }
        )
    )


if __name__ == "__main__":
    main()
