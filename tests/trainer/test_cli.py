from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs the trainer extra")

from serstream.emotion.model import EmotionModel
from trainer.cli import main

pytestmark = pytest.mark.trainer


def test_from_recordings_to_a_model(
    tiny_data: Path, tiny_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["--data", str(tiny_data), "--runs", str(tmp_path / "runs")]
    recipe = str(tiny_recipe)
    assert main(["corpora", *common, "--picture", str(tmp_path / "counts.png")]) == 0
    assert "tiny" in capsys.readouterr().out
    assert main(["prepare", recipe, *common]) == 0
    assert main(["export", recipe, *common, "--model-version", "3"]) == 2
    assert "--protocol speakers" in capsys.readouterr().err
    assert main(["evaluate", recipe, *common]) == 0
    (metrics,) = (tmp_path / "runs").glob("*/speakers/metrics.json")
    modes = json.loads(metrics.read_text())["modes"]
    assert [(mode["condition"], mode["heard_s"]) for mode in modes[:2]] == [("clean", 0), ("clean", 10)]
    assert modes[0]["clips"] == 36
    assert (metrics.parent / "confusion.png").is_file()
    assert main(["train", recipe, *common]) == 0
    models = tmp_path / "models"
    assert main(["export", recipe, *common, "--model-version", "3", "--models", str(models)]) == 0
    model = EmotionModel(models / "tiny/3/model.onnx")
    assert model.metadata.reference == "tiny@3"
    assert model.metadata.feature_spec.baseline is not None
    assert "tiny@3" in (models / "tiny/3/card.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["corpora", "--data", "nowhere"], "data folder nowhere: no such folder"),
        (["train", "missing.toml"], "recipe missing.toml: cannot read it"),
    ],
)
def test_bad_input_is_named(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert said in capsys.readouterr().err
