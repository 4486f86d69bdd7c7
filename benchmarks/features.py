"""MFCC of windows of 2 s: serstream, librosa and torchaudio, in one run on one thread.

All three compute the same coefficients (the default recipe without its level step, which the others do not
have), one window a call, as their users do it (``each_alone``), and eight a call (``in_batches``); each is
timed three times in turn and the least processor time counts. ``serstream_8khz`` is what telephone sound
takes: windows that were not brought to 16 kHz, as the peers need them; what that would cost the peers is not
counted. ``batch_difference`` is how far coefficients of windows alone are from those of a batch. A peer that
is not installed is left out, with the reason; ``_difference`` is a peer's largest deviation from serstream's
coefficients relative to the largest of them. ``model`` is what a window costs with the active model, step by
step: rows, functionals of them, network. Prints one JSON object as its last line.
"""

import json
import time
from collections.abc import Callable

import msgspec
import numpy as np
from threadpoolctl import threadpool_limits

from serstream.config import ModelSettings
from serstream.emotion.features import FeatureSpec, FloatArray, mfcc, summarise
from serstream.emotion.inputs import alone
from serstream.emotion.loading import load_model
from serstream.emotion.session import Session
from serstream.service.allocator import keep_working_memory

WINDOWS = 400
BATCHES = {"each_alone": 1, "in_batches": 8}
REPEATS = 3

Mfcc = Callable[[FloatArray], FloatArray]


def serstream_mfcc(spec: FeatureSpec) -> Mfcc:
    return lambda windows: mfcc(windows, spec)


def telephone_mfcc(spec: FeatureSpec) -> Mfcc:
    # Half of the samples: which ones is all the same to the cost.
    return lambda windows: mfcc(windows[:, : spec.window_length(8000)], spec, 8000)


def librosa_mfcc(spec: FeatureSpec) -> Mfcc:
    import librosa
    import scipy.fft

    def compute(windows: FloatArray) -> FloatArray:
        mel = librosa.feature.melspectrogram(
            y=windows,
            sr=spec.sample_rate,
            n_fft=spec.n_fft,
            win_length=spec.win_length,
            hop_length=spec.hop_length,
            n_mels=spec.n_mels,
            fmin=spec.f_min,
            fmax=spec.f_max,
            htk=True,
            norm=None,
            center=False,
        )
        # librosa.feature.mfcc would take decibels; the logarithm costs the same.
        log_mel = np.log(mel + np.float32(spec.log_offset))
        coefficients: FloatArray = scipy.fft.dct(log_mel, axis=-2, type=2, norm="ortho")[:, : spec.n_mfcc]
        return coefficients

    return compute


def torchaudio_mfcc(spec: FeatureSpec) -> Mfcc:
    import torch
    import torchaudio

    torch.set_num_threads(1)
    transform = torchaudio.transforms.MFCC(
        sample_rate=spec.sample_rate,
        n_mfcc=spec.n_mfcc,
        log_mels=True,
        melkwargs={
            "n_fft": spec.n_fft,
            "win_length": spec.win_length,
            "hop_length": spec.hop_length,
            "n_mels": spec.n_mels,
            "f_min": spec.f_min,
            "f_max": spec.f_max,
            "center": False,
        },
    )

    def compute(windows: FloatArray) -> FloatArray:
        with torch.inference_mode():
            coefficients: FloatArray = transform(torch.from_numpy(windows)).numpy()
        return coefficients

    return compute


def of_model(batches: list[FloatArray]) -> dict[str, object]:
    """Milliseconds that a window takes with the active model, step by step."""
    model = load_model(ModelSettings(device="cpu"))
    spec = model.metadata.feature_spec
    session = Session(model.path.read_bytes(), str(model.path), ModelSettings(device="cpu"))
    rows = [mfcc(batch, spec) for batch in batches]
    inputs = [alone(batch, spec) for batch in rows]
    steps: dict[str, Callable[[int], object]] = {
        "rows": lambda i: mfcc(batches[i], spec),
        "functionals": lambda i: summarise(rows[i], spec),
        "network": lambda i: session.run(inputs[i]),
    }
    report: dict[str, object] = {"name": model.reference}
    for name, step in steps.items():
        taken = []
        for _ in range(REPEATS):
            began = time.process_time()
            for i in range(len(batches)):
                step(i)
            taken.append(time.process_time() - began)
        report[f"{name}_ms"] = round(1000 * min(taken) / sum(map(len, batches)), 3)
    return report


def cpu_s(contenders: dict[str, Mfcc], windows: FloatArray, batch: int) -> dict[str, float]:
    """Processor time of each for all windows, the least of some runs in turn."""
    seconds = dict.fromkeys(contenders, float("inf"))
    for _ in range(REPEATS):
        for name, compute in contenders.items():
            began = time.process_time()
            for begin in range(0, len(windows), batch):
                compute(windows[begin : begin + batch])
            seconds[name] = min(seconds[name], time.process_time() - began)
    return seconds


def main() -> None:
    spec = msgspec.structs.replace(FeatureSpec(), level_dbfs=None)
    windows = np.random.default_rng(0).normal(0, 0.1, (WINDOWS, spec.n_samples)).astype(np.float32)
    few = windows[:8]
    keep_working_memory()
    makers = {
        "serstream": serstream_mfcc,
        "serstream_8khz": telephone_mfcc,
        "librosa": librosa_mfcc,
        "torchaudio": torchaudio_mfcc,
    }
    contenders: dict[str, Mfcc] = {}
    report: dict[str, object] = {"benchmark": "features", "windows": WINDOWS, "window_s": spec.window_s}
    for name, make in makers.items():
        try:
            contenders[name] = make(spec)
        except ImportError as error:
            report[f"{name}_missing"] = str(error)
    with threadpool_limits(1):
        ours = contenders["serstream"](few)
        for name in contenders.keys() - {"serstream", "serstream_8khz"}:
            difference = np.max(np.abs(contenders[name](few) - ours)) / np.max(np.abs(ours))
            report[f"{name}_difference"] = float(difference)
        alone = np.concatenate([contenders["serstream"](window[None]) for window in few])
        report["batch_difference"] = float(np.max(np.abs(alone - ours)) / np.max(np.abs(ours)))
        for how, batch in BATCHES.items():
            seconds = cpu_s(contenders, windows, batch)
            report[how] = {
                name: {
                    "ms_per_window": round(1000 * taken / WINDOWS, 3),
                    "times_serstream": round(taken / seconds["serstream"], 2),
                    "times_serstream_8khz": round(taken / seconds["serstream_8khz"], 2),
                }
                for name, taken in seconds.items()
            }
        report["model"] = of_model([windows[begin : begin + 8] for begin in range(0, WINDOWS, 8)])
    print(json.dumps(report))


if __name__ == "__main__":
    main()
