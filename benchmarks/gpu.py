"""Scoring on a GPU: windows per second, latency by batch size, and where the time goes.

For each batch size: the whole scoring stage (`EmotionModel.score_samples`: MFCC on the CPU, then the
network), MFCC alone, the network with its transfers, and the network with its input on the device already,
which is the GPU's own share, plainly and as a CUDA graph (null without CUDA, or with the reason in
``graph_refused`` where ONNX Runtime cannot capture the model). On a machine without a usable GPU the same
runs on the CPU, and ``device`` says so; then network and network on the device are the same but for a copy.
Prints one JSON object as its last line.

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


def resident_network(model: EmotionModel, inputs: Inputs, *, graph: bool = False) -> Callable[[], object]:
    """The network with inputs and output on the device; as a CUDA graph or not."""
    on_cuda = (CUDA, {"enable_cuda_graph": "1"}) if graph else CUDA
    providers = [on_cuda, CPU] if CUDA in model.providers else [CPU]
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(model.path), options, providers=providers)
    device = "cuda" if CUDA in session.get_providers() else "cpu"
    binding = session.io_binding()
    for node in session.get_inputs():
        binding.bind_ortvalue_input(node.name, ort.OrtValue.ortvalue_from_numpy(inputs[node.name], device, 0))
    # A graph wants the same memory every time.
    logits = np.zeros((len(next(iter(inputs.values()))), len(model.metadata.labels)), np.float32)
    binding.bind_ortvalue_output("logits", ort.OrtValue.ortvalue_from_numpy(logits, device, 0))

    def run() -> None:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    return run


def graph_figures(model: EmotionModel, inputs: Inputs, seconds: float) -> dict[str, float | str | None]:
    """What a CUDA graph gains."""
    if CUDA not in model.providers:
        return {"network_graph_ms": None}
    try:
        taken = milliseconds(resident_network(model, inputs, graph=True), seconds)
    except Exception as error:  # ONNX Runtime's exceptions share no base but Exception
        return {"network_graph_ms": None, "graph_refused": str(error)}
    return {"network_graph_ms": round(float(np.median(taken)), 2)}


def measure(model: EmotionModel, batch: int, seconds: float) -> dict[str, float | str | None]:
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
        **graph_figures(model, inputs, seconds),
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
