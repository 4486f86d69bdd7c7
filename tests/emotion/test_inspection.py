import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pytest
from bad_models import BAD, Bad, input_shape, nodes, reseal
from onnx import helper
from published_model import publish

from serstream.emotion import inspection
from serstream.emotion.inspection import inspect, inspect_apart
from serstream.errors import ModelError


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish(tmp_path_factory.mktemp("models"))


@pytest.fixture
def folder(published: Path, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    copy = tmp_path / "models" / "tiny" / "1"
    shutil.copytree(published, copy)
    return copy


def test_a_good_model_passes(folder: Path) -> None:
    assert inspect(folder).reference == "tiny@1"
    assert inspect_apart(folder) == inspect(folder / "model.onnx")


def test_code_beside_a_model_is_not_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "onnx.py").write_text("raise SystemExit('imported')")
    monkeypatch.chdir(folder)
    inspect_apart(folder / "model.onnx")


def test_a_file_outside_a_repository_is_judged_by_itself(tiny_model: Path) -> None:
    assert inspect(tiny_model).reference == "tiny@1"


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.name)
def test_a_bad_model_is_refused_with_its_own_reason(folder: Path, bad: Bad) -> None:
    bad.apply(folder)
    with pytest.raises(ModelError) as error:
        inspect(folder)
    assert bad.reason in str(error.value)
    assert str(folder) in str(error.value)


def test_there_are_kinds_enough() -> None:
    assert len({bad.name for bad in BAD}) == len(BAD) >= 40


def test_a_file_that_may_not_be_read_is_refused(published: Path) -> None:
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(shutil.copytree(published, Path(directory) / "tiny" / "1"))
        for parent in (Path(directory), folder.parent, folder):
            parent.chmod(0o755)
        (folder / "model.onnx").chmod(0)
        user = os.geteuid()
        if user == 0:  # root may read everything
            os.seteuid(65534)
        try:
            with pytest.raises(ModelError, match="cannot read it: Permission denied"):
                inspect(folder)
        finally:
            os.seteuid(user)


def test_a_model_that_eats_all_memory_is_refused(folder: Path) -> None:
    """16 GB in one tensor."""
    grow = nodes(
        helper.make_node("Expand", ["raw", "shape"], ["huge"]),
        helper.make_node("ReduceMean", ["huge"], ["logits"], axes=[0, 1], keepdims=0),
        initializers={"shape": np.array([2**14, 2**15, 1, 6])},
    )
    grow(folder)
    reseal(folder)
    with pytest.raises(ModelError, match=r"allocate|memory|killed by|bad_alloc"):
        inspect_apart(folder)


def test_a_model_that_never_ends_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspection, "TIMEOUT_S", 2.0)
    nodes(
        *(helper.make_node("MatMul", [f"s{i}", f"s{i}"], [f"s{i + 1}"]) for i in range(2000)),
        helper.make_node("ReduceMean", ["s2000"], ["factor"], keepdims=1),
        helper.make_node("Mul", ["raw", "factor"], ["scaled"]),
        helper.make_node("Reshape", ["scaled", "shape"], ["logits"]),
        initializers={"s0": np.zeros((512, 512), np.float32), "shape": np.array([-1, 6])},
    )(folder)
    reseal(folder)
    with pytest.raises(ModelError, match="its inspection took more than 2 s"):
        inspect_apart(folder)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("kill -SEGV $$", "its inspection was killed by SIGSEGV"),
        ("kill -XCPU $$", "takes more than 20 s of processor time"),
        ("echo boom >&2; exit 3", "its inspection ended with exit code 3: boom"),
    ],
)
def test_a_model_that_kills_its_inspection_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, script: str, reason: str
) -> None:
    run = subprocess.run

    def crash(_command: list[str], **options: object) -> object:
        return run(["sh", "-c", script], **options)

    monkeypatch.setattr(subprocess, "run", crash)
    with pytest.raises(ModelError, match=reason):
        inspect_apart(folder)


def test_input_of_any_batch_is_no_fault(folder: Path) -> None:
    """The damage functions themselves do no harm where there is none to do."""
    from tiny_model import SPEC

    input_shape(["n", SPEC.n_coeffs, SPEC.n_frames])(folder)
    reseal(folder)
    assert inspect(folder).reference == "tiny@1"
