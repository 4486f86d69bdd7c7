from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the trainer extra")

from trainer import checkpoint
from trainer.device import CPU

pytestmark = pytest.mark.trainer


@dataclass(frozen=True)
class Epoch:
    loss: float
    reached: float


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Of a checkpoint."""
    path = tmp_path / "x.pt"
    parts = {"network": torch.nn.Linear(30, 3).state_dict()}
    checkpoint.save(path, parts, [Epoch(1.5, 0.5)], CPU, data="recordings")
    return path


def test_a_full_disk_leaves_what_was_kept(path: Path) -> None:
    before = path.read_bytes()
    path.with_name(f"x.{os.getpid()}.tmp.pt").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save(path, {}, [], CPU)
    assert path.read_bytes() == before


def test_a_training_goes_on_where_it_was(tmp_path: Path) -> None:
    network, path = torch.nn.Linear(2, 3), tmp_path / "x.pt"
    assert checkpoint.load(path) is None
    checkpoint.save(path, {"network": network.state_dict()}, [Epoch(1.5, 0.5)], CPU, data="recordings")
    drawn = torch.rand(3)
    stored = checkpoint.load(path)
    assert stored is not None
    assert torch.equal(stored["parts"]["network"]["weight"], network.weight)
    assert [Epoch(*epoch) for epoch in stored["history"]] == [Epoch(1.5, 0.5)]
    assert stored["data"] == "recordings"
    checkpoint.restore_rng(stored, CPU)
    assert torch.equal(torch.rand(3), drawn)


def assert_unreadable(path: Path, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    path.write_bytes(content)
    caplog.clear()
    assert checkpoint.load(path) is None
    (said,) = caplog.messages
    assert said.startswith(f"{path}: cannot read it: ") and said.endswith("; training begins anew")


def test_what_a_disk_has_cut_is_not_gone_on_with(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = path.read_bytes()
    for size in range(0, len(content), 97):
        assert_unreadable(path, content[:size], caplog)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_what_a_disk_has_spoilt_is_not_gone_on_with(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Blocks of noise at the beginning, where the names are, and files that are nothing but noise or text."""
    rng, content = np.random.default_rng(0), path.read_bytes()
    for _ in range(100):
        assert_unreadable(path, rng.bytes(500), caplog)
        assert_unreadable(path, rng.bytes(500) + content[500:], caplog)
    for nothing in (bytes(len(content)), b"<html>", b"\x80\x02}q\x00."):
        assert_unreadable(path, nothing, caplog)


def test_other_layouts_are_not_gone_on_with(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Studies once kept their parts without a table around them."""
    for other in ({"network": {}, "torch_rng": torch.get_rng_state(), "history": []}, [1, 2], 3):
        torch.save(other, path)
        assert_unreadable(path, path.read_bytes(), caplog)
