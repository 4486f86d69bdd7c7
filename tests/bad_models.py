"""Ways in which a published version can be bad: each damages a good one, and has its own reason."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from published_model import reseal
from tiny_model import SPEC

from serstream.emotion.golden import GoldenClips
from serstream.emotion.store import MODEL_FILE, SUMS_FILE

Damage = Callable[[Path], object]
"""Takes a version's folder."""


@dataclass(frozen=True)
class Bad:
    name: str
    reason: str
    """Part of the message."""
    damage: Damage
    sealed: bool = True
    """Whether the sums are made to fit afterwards, so that the next check has to find it."""

    def apply(self, folder: Path) -> None:
        self.damage(folder)
        if self.sealed:
            reseal(folder)


def edit(change: Callable[[onnx.ModelProto], object]) -> Damage:
    """Change the ONNX model."""

    def damage(folder: Path) -> None:
        model = onnx.load(folder / MODEL_FILE)
        change(model)
        (folder / MODEL_FILE).write_bytes(model.SerializeToString())

    return damage


def metadata(key: str, value: object) -> Damage:
    """Change one metadata entry; None removes it."""

    def change(model: onnx.ModelProto) -> None:
        kept = {entry.key: entry.value for entry in model.metadata_props if entry.key != key}
        if value is not None:
            kept[key] = value if isinstance(value, str) else msgspec.json.encode(value).decode()
        del model.metadata_props[:]
        helper.set_model_props(model, kept)

    return edit(change)


def spec(**changes: object) -> Damage:
    return metadata("feature_spec", msgspec.to_builtins(SPEC) | changes)


def truncate(share: float) -> Damage:
    def damage(folder: Path) -> None:
        content = (folder / MODEL_FILE).read_bytes()
        (folder / MODEL_FILE).write_bytes(content[: int(share * len(content))])

    return damage


def cut_behind_graph(folder: Path) -> None:
    """A whole message, and yet without its end: fields are written in the order of their numbers."""
    model = onnx.load(folder / MODEL_FILE)
    for field in ("opset_import", "metadata_props"):
        model.ClearField(field)
    head = model.SerializeToString()
    assert (folder / MODEL_FILE).read_bytes().startswith(head)
    (folder / MODEL_FILE).write_bytes(head)


def write(content: bytes, name: str = MODEL_FILE) -> Damage:
    return lambda folder: (folder / name).write_bytes(content)


def weights(value: float) -> Damage:
    def change(model: onnx.ModelProto) -> None:
        array = np.full(model.graph.initializer[0].dims, value, np.float32)
        model.graph.initializer[0].CopyFrom(numpy_helper.from_array(array, "weights"))

    return edit(change)


def operator(name: str, domain: str = "", **attributes: object) -> Damage:
    """Put an operator behind the logits."""

    def change(model: onnx.ModelProto) -> None:
        model.graph.node[-1].output[0] = "raw"
        model.graph.node.append(helper.make_node(name, ["raw"], ["logits"], domain=domain, **attributes))
        if domain:
            model.opset_import.append(helper.make_opsetid(domain, 1))

    return edit(change)


def nodes(*added: onnx.NodeProto, initializers: dict[str, np.ndarray] | None = None) -> Damage:
    """Put nodes from "raw" to "logits" behind the logits."""

    def change(model: onnx.ModelProto) -> None:
        model.graph.node[-1].output[0] = "raw"
        model.graph.node.extend(added)
        for name, array in (initializers or {}).items():
            model.graph.initializer.append(numpy_helper.from_array(array, name))

    return edit(change)


def external(location: str) -> Damage:
    def change(model: onnx.ModelProto) -> None:
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)

    return edit(change)


def loop() -> Damage:
    """A loop of 2**62 turns."""
    body = helper.make_graph(
        [helper.make_node("Identity", [name], [f"{name}_out"]) for name in ("go", "x")],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("go_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x_out", TensorProto.FLOAT, None),
        ],
    )
    return nodes(
        helper.make_node("Loop", ["turns", "go", "raw"], ["logits"], body=body),
        initializers={"turns": np.array(2**62), "go": np.array(True)},
    )


def dimensions(model: onnx.ModelProto, dims: list[int]) -> None:
    del model.graph.initializer[0].dims[:]
    model.graph.initializer[0].dims.extend(dims)


def input_shape(shape: list[int | str], kind: int = TensorProto.FLOAT) -> Damage:
    def change(model: onnx.ModelProto) -> None:
        model.graph.input[0].CopyFrom(helper.make_tensor_value_info("features", kind, shape))

    return edit(change)


def rename(old: str, new: str) -> Damage:
    def change(model: onnx.ModelProto) -> None:
        for node in model.graph.node:
            for names in (node.input, node.output):
                for i, name in enumerate(names):
                    names[i] = new if name == old else name
        for value in (*model.graph.input, *model.graph.output):
            value.name = new if value.name == old else value.name

    return edit(change)


def golden(change: Callable[[GoldenClips], GoldenClips]) -> Damage:
    def damage(folder: Path) -> None:
        path = folder / "golden.npz"
        path.write_bytes(change(GoldenClips.read(path)).to_bytes())

    return damage


def to_directory(folder: Path) -> None:
    (folder / MODEL_FILE).unlink()
    (folder / MODEL_FILE).mkdir()
    sums = folder / SUMS_FILE
    sums.write_text("0" * 64 + f"  {MODEL_FILE}\n")


def to_link(folder: Path) -> None:
    outside = folder.parent.parent.parent / "outside.onnx"
    outside.write_bytes((folder / MODEL_FILE).read_bytes())
    (folder / MODEL_FILE).unlink()
    (folder / MODEL_FILE).symlink_to(outside)


def to_pipe(folder: Path) -> None:
    (folder / MODEL_FILE).unlink()
    os.mkfifo(folder / MODEL_FILE)


def sparse(folder: Path) -> None:
    """Claims 4 GB, of which the disk holds nothing."""
    with (folder / MODEL_FILE).open("r+b") as file:
        file.truncate(4 * 2**30)


def function(model: onnx.ModelProto) -> None:
    model.functions.append(
        helper.make_function(
            "own", "Twice", ["x"], ["y"], [helper.make_node("Add", ["x", "x"], ["y"])], model.opset_import
        )
    )


def append_a_byte(folder: Path) -> None:
    with (folder / MODEL_FILE).open("ab") as file:
        file.write(b"\0")


def lead_nowhere(model: onnx.ModelProto) -> None:
    model.graph.node[0].input[0] = "nowhere"


BAD = (
    *(
        Bad(f"cut off at {share:.1%}", reason, truncate(share))
        for share, reason in (
            (0.0, "has 0 bytes"),
            (0.1, "cut short"),
            (0.3, "cut short"),
            (0.5, "cut short"),
            (0.9, "cut short"),
            (0.99, "cut short"),
            (0.999, "cut short"),
        )
    ),
    Bad("cut off behind the graph", "checker refuses it", cut_behind_graph),
    Bad("damaged after publishing", "it was damaged or changed", truncate(0.9), sealed=False),
    Bad("one byte added", "it was damaged or changed", append_a_byte, False),
    Bad("no sums", "SHA256SUMS: no such file", lambda f: (f / SUMS_FILE).unlink(), sealed=False),
    Bad("sums of nothing", "has 0 bytes, wanted 1 to", write(b"", SUMS_FILE), sealed=False),
    Bad("sums of a card", "does not list model.onnx", write(b"0  card.md\n", SUMS_FILE), sealed=False),
    Bad("sums that are no sums", "cannot read SHA256SUMS", write(b"\xff\xfe", SUMS_FILE), sealed=False),
    Bad("sums that lead elsewhere", "wanted names of files beside it",
        lambda f: (f / SUMS_FILE).open("a").write("0  ../../x\n"), sealed=False),
    Bad("card missing", "card.md, which is not there", lambda f: (f / "card.md").unlink(), sealed=False),
    Bad("a text", "not ONNX", write(b"this is not a model")),
    Bad("an archive", "not ONNX", write(b"PK\x03\x04" + bytes(200))),
    Bad("a pickle", "not ONNX", write(b"\x80\x04\x95" + bytes(100))),
    Bad("zeros", "not ONNX", write(bytes(1000))),
    Bad("no graph", "holds no graph", write(onnx.ModelProto(ir_version=8).SerializeToString())),
    Bad("claims 4 GB", "bytes, wanted 1 to", sparse, sealed=False),
    Bad("a tensor that claims 4 GB", "checker refuses it", edit(lambda m: dimensions(m, [2**15, 2**15]))),
    Bad("a tensor of negative size", "checker refuses it", edit(lambda m: dimensions(m, [-1, 6]))),
    Bad("custom operator", "operator com.evil.Run", operator("Run", "com.evil")),
    Bad("operator of a vendor", "operator com.microsoft.Gelu", operator("Gelu", "com.microsoft")),
    Bad("unknown standard operator", "checker refuses it", operator("Frobnicate")),
    Bad("a function of its own", "defines functions", edit(function)),
    Bad("huge loop", "operator Loop", loop()),
    Bad("external data outside", "another file, '../../../etc/passwd'", external("../../../etc/passwd")),
    Bad("external data beside", "lies in another file, 'weights.bin'", external("weights.bin")),
    Bad("opset of the future", "opset 999", edit(lambda m: setattr(m.opset_import[0], "version", 999))),
    Bad("opset of the past", "opset 7", edit(lambda m: setattr(m.opset_import[0], "version", 7))),
    Bad("no opset", "checker refuses it", edit(lambda m: m.ClearField("opset_import"))),
    Bad("edge that leads nowhere", "checker refuses it", edit(lead_nowhere)),
    Bad("wrong rank", "refuses it", input_shape(["batch", SPEC.n_coeffs])),
    Bad("wrong number of coefficients", "refuses it", input_shape(["batch", 7, SPEC.n_frames])),
    Bad("wrong number of frames", "wants 'features'", input_shape(["batch", SPEC.n_coeffs, 7])),
    Bad("wrong type", "refuses it", input_shape(["batch", SPEC.n_coeffs, SPEC.n_frames], TensorProto.DOUBLE)),
    Bad("frozen batch size", "with any batch", input_shape([4, SPEC.n_coeffs, SPEC.n_frames])),
    Bad("input with another name", "wants 'features'", rename("features", "audio")),
    Bad("output with another name", "want 'logits'", rename("logits", "scores")),
    Bad("no metadata", "no metadata entry name", edit(lambda m: m.ClearField("metadata_props"))),
    Bad("no temperature", "no metadata entry temperature", metadata("temperature", None)),
    Bad("temperature of zero", "temperature", metadata("temperature", 0)),
    Bad("too few labels", "its 2 labels", metadata("labels", ["angry", "sad"])),
    Bad("the same label twice", "each only once", metadata("labels", ["sad"] * 6)),
    Bad("labels with escape codes", "labels[0]", metadata("labels", ["\x1b[2J", *"bcdef"])),
    Bad("labels that are no list", "labels", metadata("labels", "angry")),
    Bad("metadata that is no JSON", "wanted JSON", metadata("labels", "[")),
    Bad("absurd hop", "Expected `int` >= 16", spec(hop_length=1)),
    Bad("absurd window", "Expected `float` <= 30", spec(window_s=1e9)),
    Bad("absurd rate", "wants 8000 Hz", spec(sample_rate=8000, f_max=4000)),
    Bad("spec of a newer serstream", "unknown field `wavelet`", spec(wavelet=1)),
    Bad("functionals without pitch", "functionals want pitch", spec(functionals={})),
    Bad("spec that does not fit", "wants 'features'", spec(n_mfcc=13)),
    Bad("another name inside", "calls itself other@", metadata("name", '"other"')),
    Bad("another version inside", "calls itself tiny@7", metadata("version", 7)),
    Bad("weights that are no numbers", "wanted finite numbers", weights(np.nan)),
    Bad("infinite weights", "wanted finite numbers", weights(np.inf)),
    Bad("silent weights", "golden clip", weights(0.0)),
    Bad("wrong golden scores", "golden clip",
        golden(lambda g: GoldenClips(g.samples, g.probabilities[:, ::-1].copy()))),
    Bad("golden clips of another length", "golden clips have 100 samples",
        golden(lambda g: GoldenClips(g.samples[:, :100].copy(), g.probabilities))),
    Bad("golden scores of other labels", "3 scores",
        golden(lambda g: GoldenClips(g.samples, g.probabilities[:, :3].copy()))),
    Bad("no golden clip", "wanted int16", golden(lambda g: GoldenClips(g.samples[:0], g.probabilities[:0]))),
    Bad("golden clips missing", "golden clips", lambda f: (f / "golden.npz").unlink()),
    Bad("golden clips with a pickle", "golden clips",
        lambda f: np.savez(f / "golden.npz", samples=np.array([{}]), probabilities=np.zeros(1))),
    Bad("a directory instead of the file", "wanted a regular file", to_directory, sealed=False),
    Bad("a link out of the repository", "wanted a regular file", to_link, sealed=False),
    Bad("a pipe", "wanted a regular file", to_pipe, sealed=False),
)  # fmt: skip
