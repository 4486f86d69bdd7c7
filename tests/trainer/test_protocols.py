"""Published protocols, end to end on generated voices with a corpus's official names and small fold files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

torch = pytest.importorskip("torch", reason="needs the trainer extra")

from trainer.cli import main
from trainer.predictions import read_run

pytestmark = pytest.mark.trainer

CODES = {"ANG": "angry", "NEU": "neutral", "SAD": "sad"}
ACTORS = [str(1001 + k) for k in range(6)]
OVERLAP = "Speakers overlap between training and test: not a figure for new voices."


@pytest.fixture(scope="module")
def crema_d(tmp_path_factory: pytest.TempPathFactory, voice_of: Callable[[str, int], NDArray[Any]]) -> Path:
    """A data folder with six generated actors, and fold files in ``folds``."""
    data = tmp_path_factory.mktemp("data")
    audio = data / "crema-d/AudioWAV"
    audio.mkdir(parents=True)
    for k, actor in enumerate(ACTORS):
        for code, emotion in CODES.items():
            soundfile.write(
                audio / f"{actor}_DFA_{code}_XX.wav", voice_of(emotion, 10 * k + len(emotion)), 16_000
            )
    rows = [f"{actor},40,{'Male' if k % 2 else 'Female'}" for k, actor in enumerate(ACTORS)]
    (data / "crema-d/VideoDemographics.csv").write_text("\n".join(["ActorID,Age,Sex", *rows]))
    folds = data / "folds"
    folds.mkdir()
    evar = {"test_speakers": ACTORS[:2], "valid_speakers": ACTORS[2:3]}
    (folds / "cremad-evar.json").write_text(json.dumps({"folds": [evar]}))
    names = [f"{actor}_DFA_{code}_XX" for actor, code in zip(ACTORS, [*CODES] * 2, strict=True)]
    (folds / "emobox-cremad.json").write_text(json.dumps({"folds": [{"test": names}]}))
    return data


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shared: both protocols want the same features."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def recipe(write_recipe: Callable[..., Path]) -> Path:
    return write_recipe("crema-d", network="ridge", variants=0, training="", windows=2)


def evaluate(crema_d: Path, protocol: str, recipe: Path, runs: Path) -> tuple[dict[str, Any], str]:
    arguments = ["--data", str(crema_d), "--folds", str(crema_d / "folds"), "--runs", str(runs)]
    assert main(["evaluate", str(recipe), "--protocol", protocol, "--seeds", "2", *arguments]) == 0
    (folder,) = runs.glob(f"*/{protocol}")
    return json.loads((folder / "metrics.json").read_text()), (folder / "report.md").read_text()


def test_evar_tests_its_actors_only(crema_d: Path, recipe: Path, runs: Path) -> None:
    metrics, report = evaluate(crema_d, "crema-d-evar", recipe, runs)
    assert OVERLAP not in report
    assert "learning.png" not in report  # nothing is learned in steps
    modes = metrics["modes"]
    assert len(modes) == 4 * 4
    for mode in modes:
        assert (mode["clips"], mode["seeds"]) == (6, 2)
        assert {"ua", "ua_sd", "ua_interval", "wa", "f1", "window_ua", "ua female", "ua male"} <= mode.keys()
        assert mode["recall"].keys() == {"angry", "neutral", "sad"}
    clean = {mode["heard_s"]: mode["ua"] for mode in modes if mode["condition"] == "clean"}
    assert clean.keys() == {0, 10, 30, 60}
    assert sum(clean.values()) / 4 > 60  # three pitches: 33 by chance
    assert metrics["temperature_found_with"] == "validation speakers" and metrics["temperature"] != 1
    (folder,) = runs.glob("*/crema-d-evar")
    _, _, scores = read_run(folder)
    assert {scores.clips[i].speaker for part in scores.validation for i in part.clip} == {ACTORS[2]}
    assert {scores.clips[i].speaker for part in scores.parts for i in part.clip} == {*ACTORS[:2]}
    for path in folder.glob("*.npz"):  # as they were written when nobody was held out
        kept = dict(np.load(path))
        n_tests = np.count_nonzero(~kept["valid"])
        end = kept["ends"][n_tests - 1]
        kept |= {name: kept[name][:n_tests] for name in ("conditions", "heard_s")}
        kept |= {
            "ends": kept["ends"][: n_tests - 1],
            "logits": kept["logits"][:end],
            "clip": kept["clip"][:end],
        }
        del kept["valid"]
        np.savez(path, **kept)
    _, _, old = read_run(folder)
    assert len(old.parts) == len(scores.parts) and not old.validation


def test_a_protocol_with_the_same_speakers_on_both_sides_says_so(
    crema_d: Path, recipe: Path, runs: Path
) -> None:
    metrics, report = evaluate(crema_d, "crema-d-emobox", recipe, runs)
    assert metrics["speakers_overlap"] is True
    assert OVERLAP in report
    assert metrics["temperature_found_with"] == "validation speakers"
