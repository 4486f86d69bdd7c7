"""Whether a published version may be trusted: every check that a candidate passes before it may score a call.

The checks run in a process of their own with little memory and time, because ONNX Runtime may crash, hang or
eat all memory on a file made to do so, and none of that may reach the calls.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess  # nosec B404 # this very interpreter on this very package, no shell
import sys
from pathlib import Path

import msgspec

from serstream.emotion.loading import load_version
from serstream.emotion.model import ON_CPU, EmotionModel
from serstream.emotion.store import MODEL_FILE, SUMS_FILE, check_sums, read_file
from serstream.errors import ModelError

TIMEOUT_S = 180.0
"""For what hangs. It must do for a second of work of a niced process where all cores are busy."""
CPU_LIMIT_S = 20
MEMORY_LIMIT = 2 * 2**30
"""Bytes of private memory; a model at the size limit needs a tenth."""

OPSETS = range(13, 24)
"""Versions of the standard operators that every ONNX Runtime from 1.23 on implements."""

CONTROL_FLOW = frozenset({"If", "Loop", "Scan", "SequenceMap"})
"""Operators whose run time depends on what is heard; a window must take the same time whatever it holds."""


class Inspected(msgspec.Struct, frozen=True, tag=True):
    """The version passed."""

    reference: str
    """``name@version`` of its metadata."""
    sha256: str
    """Of model.onnx; the checks hold for this content."""


class Rejected(msgspec.Struct, frozen=True, tag=True):
    """It did not, and why."""

    reason: str


def inspect_apart(path: Path) -> Inspected:
    """Run all checks on a version's folder or a model file, in a process of their own.

    Raises:
        ModelError: a check failed, or the process crashed or took too much time or memory.
    """
    # A model is not trusted, and Python code that lies beside it must not be imported for ours.
    isolation = "-I" if sys.flags.isolated else "-P"
    command = [sys.executable, isolation, "-m", __name__, str(path)]
    try:
        child = subprocess.run(command, capture_output=True, timeout=TIMEOUT_S, stdin=subprocess.DEVNULL)  # nosec B603
    except subprocess.TimeoutExpired as error:
        raise ModelError(f"model {path}: its inspection took more than {TIMEOUT_S:.0f} s") from error
    try:
        verdict: Inspected | Rejected = msgspec.json.decode(child.stdout, type=Inspected | Rejected)
    except msgspec.DecodeError as error:
        raise ModelError(f"model {path}: {_why_it_died(child)}") from error
    if isinstance(verdict, Rejected):
        raise ModelError(verdict.reason)
    return verdict


def inspect(path: Path) -> Inspected:
    """Run all checks on a version's folder or a model file, in this process.

    Raises:
        ModelError: the first check that failed.
    """
    file = path / MODEL_FILE if path.is_dir() else path
    if not os.path.lexists(file):
        raise ModelError(f"model {file}: no such file; give a version's folder or a model.onnx")
    if file.is_symlink() or not file.is_file():
        raise ModelError(f"model {file}: wanted a regular file, no link, folder or device")
    published = path.is_dir() or (file.parent / SUMS_FILE).exists()
    if published:
        check_sums(file.parent)
    _check_graph(file)
    model = load_version(file, ON_CPU) if published else EmotionModel(file)
    return Inspected(model.reference, model.sha256)


def _check_graph(file: Path) -> None:
    """What ONNX Runtime would accept and serstream does not; also, its words say what is wrong."""
    # Late: nothing else needs it, and the daemon that never swaps saves its memory.
    import google.protobuf.message
    import onnx

    try:
        model = onnx.load_model_from_string(read_file(file))
    except google.protobuf.message.DecodeError as error:
        raise ModelError(f"model {file}: not ONNX, or cut short: {error}") from error
    if not model.HasField("graph"):
        raise ModelError(f"model {file}: not ONNX: it holds no graph")
    for opset in model.opset_import:
        if opset.domain in ("", "ai.onnx") and opset.version not in OPSETS:
            raise ModelError(
                f"model {file}: standard operators of opset {opset.version}, "
                f"wanted {OPSETS[0]} to {OPSETS[-1]}"
            )
    if model.functions:
        raise ModelError(f"model {file}: defines functions of its own, wanted standard operators only")
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx"):
            raise ModelError(
                f"model {file}: operator {node.domain}.{node.op_type}, wanted standard operators only"
            )
        if node.op_type in CONTROL_FLOW:
            raise ModelError(
                f"model {file}: operator {node.op_type}: its run time may depend on what is heard; unroll it"
            )
    constants = [a.t for node in model.graph.node for a in node.attribute if a.HasField("t")]
    for tensor in (*model.graph.initializer, *constants):
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            where = {entry.key: entry.value for entry in tensor.external_data}.get("location", "")
            raise ModelError(
                f"model {file}: tensor {tensor.name!r} lies in another file, {where!r}; export it inside"
            )
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError) as error:
        raise ModelError(f"model {file}: the ONNX checker refuses it: {error}") from error


def _why_it_died(child: subprocess.CompletedProcess[bytes]) -> str:
    last = child.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2][:200]
    if child.returncode == -signal.SIGXCPU:
        return f"scoring takes more than {CPU_LIMIT_S} s of processor time"
    if child.returncode < 0:
        return f"its inspection was killed by {signal.Signals(-child.returncode).name}: {last}"
    return f"its inspection ended with exit code {child.returncode}: {last}"


def _main(path: Path) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_LIMIT_S, CPU_LIMIT_S + 1))
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_LIMIT, MEMORY_LIMIT))
    os.nice(10)  # the calls come first
    verdict: Inspected | Rejected
    try:
        verdict = inspect(path)
    except ModelError as error:
        verdict = Rejected(str(error))
    except OSError as error:
        verdict = Rejected(f"model {path}: cannot read it: {error.strerror}")
    except MemoryError:
        verdict = Rejected(f"model {path}: needs more than {MEMORY_LIMIT} bytes of memory")
    sys.stdout.buffer.write(msgspec.json.encode(verdict))


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
