from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the trainer extra")

from serstream.emotion.inspection import inspect_apart
from serstream.emotion.model import EmotionModel
from serstream.emotion.store import ModelStore, Reference
from trainer import corpora
from trainer.cli import main

FIXTURES = Path(__file__).parents[1] / "fixtures"
ROOT = Path(__file__).parents[2]
RECIPE = str(ROOT / "trainer" / "recipes" / "cnn-lstm.toml")
PUBLISH = ["publish", "--data", str(FIXTURES), "--held-out", "emo-db", "--floor", "0"]

pytestmark = pytest.mark.trainer


def test_from_recordings_to_a_model(
    tiny_data: Path,
    tiny_recipe: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    data = ["--data", str(tiny_data)]
    common = [*data, "--runs", str(tmp_path / "runs"), "--device", "cpu"]
    recipe = str(tiny_recipe)
    assert main(["corpora", *data, "--picture", str(tmp_path / "counts.png")]) == 0
    assert "tiny" in capsys.readouterr().out
    assert main(["prepare", recipe, *common]) == 0
    assert main(["export", recipe, *common, "--model-version", "3"]) == 2
    assert "--protocol speakers" in capsys.readouterr().err
    assert main(["evaluate", recipe, *common, "--seeds", "1"]) == 0
    (metrics,) = (tmp_path / "runs").glob("*/speakers/metrics.json")
    modes = json.loads(metrics.read_text())["modes"]
    assert [(mode["condition"], mode["heard_s"]) for mode in modes[:2]] == [("clean", 0), ("clean", 10)]
    assert modes[0]["clips"] == 36
    short = (
        "Test speakers of tiny have less other speech than some rows say: in the mean 15.9 s where 30 s are"
    )
    assert short in (metrics.parent / "report.md").read_text(), "eight other clips of one window"
    remade(metrics.parent, capsys)
    assert main(["train", recipe, *common]) == 0
    models = tmp_path / "models"
    assert main(["export", recipe, *common, "--model-version", "3", "--models", str(models)]) == 0
    assert "protocol speakers: measured with 1 of 3 seeds, too few for a mean and a deviation" in caplog.text
    model = EmotionModel(models / "tiny/3/model.onnx")
    assert model.metadata.reference == "tiny@3"
    assert model.metadata.feature_spec.baseline is not None
    card = (models / "tiny/3/card.md").read_text()
    assert "tiny@3" in card
    assert short in card
    assert "- tiny, no licence stated: your own recordings\n  - 36 clips; left out: none" in card
    assert "Tested: tiny on 36 clips of angry, neutral, sad. In brackets: the number of classes" in card
    assert "| seeds | UA (3) | 95 % |" in card
    assert "No fold trained on its test part" in card
    assert "flatter a little there, as figures do wherever recipes are chosen by them" in card
    assert f"are at temperature {model.metadata.temperature:.2f} and threshold" in card
    published(models / "tiny/3", tmp_path / "repository", tiny_data, capsys)
    assert main(["export", recipe, *common, "--model-version", "4", "--models", str(models)]) == 0
    assert main([*PUBLISH, str(models / "tiny/4"), "--repository", str(tmp_path / "repository")]) == 0
    assert (
        "against tiny@3 on the same 3 speakers, first windows: +0.0 to +0.0 points (95 %); too few"
        in capsys.readouterr().out
    )
    reseeded = tmp_path / "reseeded.toml"
    reseeded.write_text(tiny_recipe.read_text().replace("epochs = 3", "epochs = 3\nseed = 7"))
    assert main(["export", str(reseeded), *common, "--model-version", "5"]) == 2
    assert "which is tiny with seed 7; run 'serstream-train train' again" in capsys.readouterr().err
    for path in metrics.parent.glob("*.npz"):
        kept = dict(np.load(path))
        np.savez(path, **kept | {"logits": 1000 * kept["logits"]})
    assert main(["export", recipe, *common, "--model-version", "5"]) == 2
    assert (
        "its temperature 20.1 is the end of what is sought, wanted one between 0.05 and 20;"
        in capsys.readouterr().err
    )
    other = shutil.copytree(tiny_data, tmp_path / "data")
    table = other / "tiny/manifest.csv"
    table.write_text(table.read_text().replace("0-sad-0.wav,s0,male,sad", "0-sad-0.wav,s0,male,angry"))
    assert main(["export", recipe, *common, "--data", str(other), "--model-version", "5"]) == 2
    assert "have changed since 'serstream-train train'; run it again" in capsys.readouterr().err


def published(draft: Path, repository: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Real recordings that the model never heard judge it; the daemon's repository takes it once."""
    capsys.readouterr()
    publish = [*PUBLISH, str(draft), "--repository", str(repository)]
    assert main([*publish, "--floor", "1"]) == 2
    assert "held-out speakers, wanted 100.0%" in capsys.readouterr().err
    assert not repository.exists()
    assert main([*publish, "--held-out", "tiny"]) == 2
    assert f"--held-out tiny: {draft} was trained on it" in capsys.readouterr().err
    copied = shutil.copytree(data, repository.parent / "copied")
    shutil.copytree(data / "tiny", copied / "mine")
    assert main([*publish, "--data", str(copied), "--held-out", "mine"]) == 2
    said = capsys.readouterr().err
    n_clips = len(corpora.read("mine", copied))
    assert (
        f"{draft} was trained on {n_clips} of the {n_clips} recordings, the first is {copied}/mine/" in said
    )
    assert main([*publish, "--data", str(data), "--held-out", "tiny/"]) == 2
    assert "corpus 'tiny/': wanted the name of a folder" in capsys.readouterr().err
    assert main(publish) == 0
    out = capsys.readouterr().out
    assert "on 3 clips of 3 speakers, first windows" in out
    assert "not compared: no model is active" in out
    store = ModelStore(repository)
    assert [str(reference) for reference in store.references()] == ["tiny@3"]
    store.activate(Reference("tiny", 3))
    inspect_apart(repository / "tiny/3")
    assert main(publish) == 2
    assert "exists and a version never changes; publish it as version 4" in capsys.readouterr().err


def remade(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A report comes back the same from the scores alone, whatever lies beside it."""
    written = {path.name: path.read_bytes() for path in run.iterdir() if path.suffix in (".md", ".json")}
    pictures = {path.name for path in run.glob("*.png")}
    assert pictures == {"confusion.png", "calibration.png", "learning.png"}
    for name in {*pictures, "report.md", "metrics.json"}:
        (run / name).unlink()
    broken, other = run.parent / "broken", run.parent / "no-run"
    broken.mkdir()
    other.mkdir()
    (broken / "run.json").write_text("{}")
    cut_short(run, capsys)
    capsys.readouterr()
    assert main(["report", str(broken), str(other), str(run)]) == 2
    said = capsys.readouterr()
    assert said.out == f"{run / 'report.md'}\n"
    assert f"{other}: skipped, it has no run.json" in said.err
    assert f"error: {broken / 'run.json'}: " in said.err
    assert {name: (run / name).read_bytes() for name in written} == written
    assert {path.name for path in run.glob("*.png")} == pictures
    shutil.rmtree(broken)


def cut_short(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a broken disk left is named, whatever is left of it."""
    for name in ("run.json", "seed-0-fold-1.npz", "seed-0-fold-1.csv"):
        content = (run / name).read_bytes()
        for kept in (content[:0], content[:3], content[:-10] + b"\xff" * 5):
            (run / name).write_bytes(kept)
            capsys.readouterr()
            assert main(["report", str(run)]) == 2, (name, len(kept))
            assert f"error: {run / name}: cannot read it: " in capsys.readouterr().err
        (run / name).write_bytes(content)


@pytest.mark.parametrize(
    "command", ["corpora", "prepare", "train", "evaluate", "report", "export", "publish"]
)
def test_every_command_has_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert f"\n  serstream-train {command} " in capsys.readouterr().out


def test_a_protocol_is_measured_with_three_seeds_unless_it_says_else(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        main(["evaluate", "--help"])
    assert "trainings of each fold, by seeds 0, 1, ... (3)" in " ".join(capsys.readouterr().out.split())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA here")
def test_cuda_that_is_not_there_is_said(tiny_recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", str(tiny_recipe), "--device", "cuda"]) == 2
    assert "finds no CUDA device here" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["corpora", "--data", "nowhere"], "data folder nowhere: no such folder"),
        (["train", "missing.toml"], "recipe missing.toml: cannot read it: No such file or directory; give"),
        (["export", RECIPE, "--model-version", "1", "--runs", "/dev/null"], "runs folder /dev/null: cannot"),
        (["export", RECIPE, "--model-version", "0"], "--model-version is 0, wanted 1 to 999999999"),
        (["export", RECIPE, "--model-version", "1000000000"], "--model-version is 1000000000, wanted 1 to 9"),
        (
            ["export", RECIPE, "--model-version", "11"],
            "models/cnn-lstm/11: exists and a version never changes;",
        ),
        (["evaluate", RECIPE, "--seeds", "0"], "--seeds is 0, wanted 1 or more"),
        (["compare", "--corpus", "emo-db", "--seed", "-1"], "--seed is -1, wanted 0 or more"),
        ([*PUBLISH, "models/x/1", "--repository", "x", "--floor", "nan"], "--floor is nan, wanted 0 to 1"),
        ([*PUBLISH, "models/x/1", "--repository", "x", "--floor", "40"], "--floor is 40, wanted 0 to 1"),
        (["report", "nowhere"], "nowhere/run.json: no such file; a finished run has one"),
    ],
)
def test_bad_input_is_named(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    assert main(arguments) == 2
    assert said in capsys.readouterr().err


def test_a_cache_that_cannot_be_written_is_named(
    tiny_data: Path, tiny_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cache").touch()
    assert main(["prepare", str(tiny_recipe), "--data", str(tiny_data), "--runs", str(tmp_path)]) == 2
    assert f"serstream-train: error: {tmp_path / 'cache'}: File exists" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "wanted", "said"),
    [
        ("epochs = 3", "epoch = 3", "unknown key 'training.epoch'; did you mean 'epochs'?"),
        ("epochs = 3", "epochs = 3\nseed = -1", "training.seed is -1: "),
        ("epochs = 3", "epochs = 'x'", "training.epochs is 'x': wanted a whole number"),
        (
            'labels = ["angry", ',
            'labels = ["angri", "angry", ',
            "label angri of recipe tiny: no clip of tiny has this emotion, they have angry, neutral, sad;",
        ),
        (
            "[training]",
            '[label_map]\ncalm = "neutral"\n[training]',
            "label_map of recipe tiny has calm: no clip of tiny has this emotion, they have angry, neutral, ",
        ),
        (
            "[training]",
            '[label_map]\ncalm = "happy"\n[training]',
            "label_map.calm is happy, wanted one of angry, neutral, sad",
        ),
        (
            "[training]",
            '[label_map]\nsad = "neutral"\n[training]',
            "label_map.sad is neutral, wanted no such key: sad is a label",
        ),
        ("[training]", '[label_map]\ncalm = ["sad"]\n[training]', "label_map"),
        ("epochs = 3", "learning_rate = inf", "training.learning_rate is inf: "),
        ("epochs = 3", "weight_decay = inf", "training.weight_decay is inf: "),
        ("epochs = 3", "weight_decay = 1e30", "training.weight_decay is 1e+30: "),
        ("epochs = 3", "epochs = 100_000_000_000_000_000_000", "training.epochs is 100000000000000000000: "),
        ("batch = 8", "batch = 1_000_000_000", "training.batch is 1000000000: "),
        ("epochs = 3", "patience = 1_000_000_000", "training.patience is 1000000000: "),
        ("windows = 4", "windows = 100_000_000_000", "baseline.windows is 100000000000: "),
        ("windows = 4", "prior = 5000.0", "baseline.prior is 5000.0: "),
        ("windows = 4", "priro = 5.0", "unknown key 'baseline.priro'; did you mean 'prior'?"),
        ("[features.pitch]", "[features.pitch]\nfmin = 60", "'features.pitch.fmin'; did you mean 'f_min'?"),
        (
            "[features.functionals]",
            "[features.functionals]\ncepstrum = 3",
            "unknown key 'features.functionals.cepstrum'; did you mean 'cepstra'?",
        ),
        ("[features.functionals]", "[[features.functionals]]", "write [features.functionals] once"),
        ('corpora = ["tiny"', 'corpora = ["tini"', "corpus tini: no "),
        ('corpora = ["tiny"]', "corpora = []", "corpora is []: "),
        ('corpora = ["tiny"]', 'corpora = ["tiny", "tiny/"]', "corpus 'tiny/': wanted the name of a folder"),
        (
            'corpora = ["tiny"]',
            'corpora = ["ravdess", "tiny"]',
            "licence is Apache-2.0, wanted a non-commercial one such as CC-BY-NC-4.0: corpus ravdess is CC",
        ),
        ('["angry", "neutral", "sad"]', '["sad"]', "labels is ['sad']: "),
        ('"angry", ', '"Angry", ', "labels[0] is 'Angry': "),
        ('"angry", ', '"sad", ', "labels are sad, neutral, sad, wanted each only once"),
        (
            "variants = 1",
            "noise_db = [30, 5]",
            "noise_db is 30 to 5, wanted two numbers, the lower one first",
        ),
        (
            "epochs = 3",
            "choose_epoch = true",
            "training.choose_epoch is true, wanted false: nobody is left to",
        ),
    ],
)
def test_a_recipe_that_cannot_be_trained_says_why(
    line: str,
    wanted: str,
    said: str,
    tiny_data: Path,
    tiny_recipe: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(tiny_recipe.read_text().replace(line, wanted))
    assert main(["train", str(recipe), "--data", str(tiny_data), "--runs", str(tmp_path / "runs")]) == 2
    assert said in capsys.readouterr().err
