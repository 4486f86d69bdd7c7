"""Scoring on a GPU: windows per second, latency by batch size, and where the time goes.

For each batch size: the whole scoring stage (`EmotionModel.score_samples`: MFCC on the CPU, then the
network), MFCC alone, the network with its transfers, and the network with its input on the device already,
which is the GPU's own share. On a machine without a usable GPU the same runs on the CPU, and ``device`` says
so; then the last two are the same but for a copy. Prints one JSON object as its last line.

    python benchmarks/gpu.py [SECONDS]        # per batch size and part, 2 by default
"""

import json
import sys
import time
from collections.abc import Callable

import numpy as np
import onnxruntime as ort
from threadpoolctl import threadpool_limits

from serstream.config import ModelSettings
from serstream.emotion.features import mfcc
from serstream.emotion.inputs import Inputs, shapes
from serstream.emotion.loading import load_model
from serstream.emotion.model import EmotionModel
from serstream.emotion.session import CPU, CUDA, Session
from serstream.service.allocator import keep_working_memory

BATCHES = (1, 32, 256, 1024)
WARM_UP = 3


def milliseconds(work: Callable[[], object], seconds: float) -> list[float]:
    """Wall clock time of each of at least three runs, behind `WARM_UP` that do not count."""
    for _ in range(WARM_UP):
        work()
    taken: list[float] = []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or len(taken) < 3:
        began = time.perf_counter()
        work()
        taken.append(1000 * (time.perf_counter() - began))
    return taken


def resident_network(model: EmotionModel, inputs: Inputs) -> Callable[[], object]:
    """The network with inputs and output on the device."""
    providers = [provider for provider in (CUDA, CPU) if provider in model.providers]
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(model.path), options, providers=providers)
    device = "cuda" if CUDA in session.get_providers() else "cpu"
    binding = session.io_binding()
    for node in session.get_inputs():
        binding.bind_ortvalue_input(node.name, ort.OrtValue.ortvalue_from_numpy(inputs[node.name], device, 0))
    binding.bind_output("logits", device)

    def run() -> None:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    return run


def measure(model: EmotionModel, batch: int, seconds: float) -> dict[str, float]:
    """Figures of one batch size."""
    spec = model.metadata.feature_spec
    windows = np.random.default_rng(0).normal(0, 0.1, (batch, spec.n_samples)).astype(np.float32)
    inputs = {name: np.zeros((batch, *shape), np.float32) for name, shape in shapes(spec).items()}
    session = Session(model.path.read_bytes(), str(model.path), ModelSettings())
    whole = milliseconds(lambda: model.score_samples(windows), seconds)
    with_transfers = milliseconds(lambda: session.run(inputs), seconds)
    on_device = float(np.median(milliseconds(resident_network(model, inputs), seconds)))
    median = float(np.median(whole))
    return {
        "batch": batch,
        "windows_per_s": round(1000 * batch / median),
        "median_ms": round(median, 2),
        "p99_ms": round(float(np.quantile(whole, 0.99)), 2),
        "mfcc_ms": round(float(np.median(milliseconds(lambda: mfcc(windows, spec), seconds))), 2),
        "network_ms": round(float(np.median(with_transfers)), 2),
        "network_on_device_ms": round(on_device, 2),
        "device_share": round(on_device / median, 3),
    }


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 2.0
    keep_working_memory()
    model = load_model(ModelSettings())
    with threadpool_limits(1):
        steps = [measure(model, batch, seconds) for batch in BATCHES]
    print(
        json.dumps(
            {
                "benchmark": "gpu",
                "device": "cuda" if CUDA in model.providers else "cpu: no GPU that ONNX Runtime can use",
                "model": model.reference,
                "steps": steps,
            }
        )
    )


if __name__ == "__main__":
    main()
