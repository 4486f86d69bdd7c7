from __future__ import annotations

import os
from pathlib import Path

import msgspec
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the trainer extra")

from serstream.errors import ConfigError
from trainer import recipe
from trainer.calls import average_speaker
from trainer.dataset import WindowSet
from trainer.networks import build
from trainer.trained import Trained, load, logits_of, save

pytestmark = pytest.mark.trainer


def test_weights_are_those_of_one_recipe_and_seed(tiny: recipe.Recipe, tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    spec = tiny.features
    trained = Trained(build(tiny.network, spec, len(tiny.labels)), spec, [])
    save(tiny, trained, path)
    load(tiny, path)
    other = tiny.with_seed(5)
    said = f"trained by recipe {tiny.sha256[:12]}, wanted {other.sha256[:12]}, which is tiny with seed 5; run"
    with pytest.raises(ConfigError, match=said):
        load(other, path)

    (tmp_path / f"weights.{os.getpid()}.tmp.pt").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        save(other, trained, path)
    load(tiny, path)


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.99])
def test_truncated_weights_are_named(share: float, tiny: recipe.Recipe, tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    save(tiny, Trained(build(tiny.network, tiny.features, len(tiny.labels)), tiny.features, []), path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ConfigError, match=r"weights\.pt: cannot read these weights: .*train' again"):
        load(tiny, path)


def test_logits_depend_on_what_was_heard(tiny: recipe.Recipe, windows: WindowSet) -> None:
    assert tiny.baseline is not None
    spec = tiny.features
    heard = msgspec.structs.replace(spec, baseline=average_speaker(windows, spec, tiny.baseline))
    network = build(tiny.network, heard, 3)
    trained = Trained(network, heard, [])
    assert not np.allclose(logits_of(trained, windows, 10.0), logits_of(trained, windows))
