from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the trainer extra")

from serstream.errors import ConfigError
from trainer import corpora, recipe
from trainer.experiment import Workplace, run
from trainer.folds import PROTOCOLS, Fold, Protocol
from trainer.history import Epoch
from trainer.predictions import Predictions, read_run

pytestmark = pytest.mark.trainer


def test_an_interrupted_evaluation_ends_at_the_same_scores(
    tiny_data: Path, tiny_recipe: Path, tmp_path: Path
) -> None:
    """It is interrupted in the middle of the second fold's training."""
    torch.set_num_threads(1)
    tiny, protocol = recipe.load(tiny_recipe), PROTOCOLS["speakers"]
    workplace = Workplace(tiny_data, tiny_data, tmp_path / "runs")
    seen: list[tuple[str, int]] = []

    def interrupt(title: str, epoch: Epoch) -> None:
        seen.append((title, epoch.epoch))
        if len(seen) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tiny, protocol, [0], workplace, interrupt)
    resumed = run(tiny, protocol, [0], workplace, lambda title, epoch: seen.append((title, epoch.epoch)))
    assert len(seen) == len(set(seen)) == 4 * tiny.training.epochs, "no epoch was trained twice"
    whole = run(tiny, protocol, [0], Workplace(tiny_data, tiny_data, tmp_path / "whole"), lambda *_: None)
    assert_equal(resumed, whole)
    _, name, read = read_run(workplace.folder(tiny) / protocol.name)
    assert name == "speakers"
    assert_equal(read, whole)


def test_scores_of_other_clips_are_made_again_and_those_of_old_folders_are_taken(
    tiny_data: Path, write_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    ridge = recipe.load(write_recipe("tiny", network="ridge", variants=0, training="", windows=2))
    workplace = Workplace(shutil.copytree(tiny_data, tmp_path / "data"), tiny_data, tmp_path / "runs")
    folder = workplace.folder(ridge) / "speakers"

    def written() -> list[int]:
        run(ridge, PROTOCOLS["speakers"], [0], workplace, lambda *_: None)
        return [path.stat().st_mtime_ns for path in sorted(folder.glob("*.npz"))]

    first = written()
    for path in folder.glob("*.npz"):  # as they were written when the clips had no digest
        kept = dict(np.load(path))
        del kept["data"]
        np.savez(path, **kept)
    old = [path.stat().st_mtime_ns for path in sorted(folder.glob("*.npz"))]
    assert written() == old != first
    shutil.rmtree(folder)
    first = written()
    assert written() == first
    table = workplace.data / "tiny/manifest.csv"
    table.write_text(table.read_text().replace("0-sad-0.wav,s0,male,sad", "0-sad-0.wav,s0,male,neutral"))
    corrected = written()
    assert not set(corrected) & set(first)
    assert written() == corrected
    assert [clip.emotion for clip in read_run(folder)[2].clips].count("sad") == 11


@pytest.mark.parametrize(
    ("fold", "part"), [(Fold("fold 2", [], [], [0]), "training"), (Fold("fold 2", [0], [], []), "test")]
)
def test_a_fold_that_lacks_a_part_is_named_before_anything_is_trained(
    fold: Fold, part: str, tiny_data: Path, write_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    ridge = recipe.load(write_recipe("tiny", network="ridge", variants=0, training="", windows=2))
    workplace = Workplace(tiny_data, tiny_data, tmp_path)
    folds = [Fold("fold 1", [0], [], [1]), fold]
    protocol = Protocol("incomplete", "", "tiny", overlap=True, folds=lambda *_: folds)
    with pytest.raises(ConfigError, match=f"protocol incomplete, fold 2: no {part} clips with a label"):
        run(ridge, protocol, [0], workplace, lambda *_: None)
    nobody = Protocol("incomplete", "", "tiny", overlap=False, folds=lambda *_: [])
    with pytest.raises(ConfigError, match="protocol incomplete: no clips of tiny with a label of recipe"):
        run(ridge, nobody, [0], workplace, lambda *_: None)
    shared = Protocol("shared", "", "tiny", overlap=False, folds=lambda *_: folds)
    with pytest.raises(ConfigError, match="fold 1 tests 1 clips of a speaker that it trains on, wanted none"):
        run(ridge, shared, [0], workplace, lambda *_: None)
    assert not list(tmp_path.rglob("seed-*"))


def test_a_label_of_those_who_choose_the_epoch_is_not_taught(
    tiny_data: Path, write_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    """Only s1 and s2 are sad: one chooses the epoch, the other one tests."""
    torch.set_num_threads(1)
    data = shutil.copytree(tiny_data, tmp_path / "data")
    table = data / "tiny/manifest.csv"
    lines = table.read_text().splitlines()
    table.write_text("\n".join(line for line in lines if not (line[0] in "03" and ",sad," in line)))
    training = "epochs = 1\nbatch = 8\nchoose_epoch = true"
    small = recipe.load(write_recipe("tiny", network="cnn_2d", variants=0, training=training, windows=2))
    clips = corpora.read("tiny", data)
    own = [[i for i, clip in enumerate(clips) if clip.speaker == f"tiny/s{k}"] for k in range(4)]
    fold = Fold("fold 1", own[0] + own[3], own[1], own[2])
    protocol = Protocol("chosen", "", "tiny", overlap=False, folds=lambda *_: [fold])
    predictions = run(small, protocol, [0], Workplace(data, data, tmp_path / "runs"), lambda *_: None)
    assert (predictions.known[fold.test] == [True, True, False]).all()


def test_the_epoch_is_chosen_where_a_protocol_names_nobody_to_validate(
    tiny_data: Path, write_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    torch.set_num_threads(1)
    training = "epochs = 1\nbatch = 8\nchoose_epoch = true"
    small = recipe.load(write_recipe("tiny", network="cnn_2d", variants=0, training=training, windows=2))
    clips = corpora.read("tiny", tiny_data)
    workplace = Workplace(tiny_data, tiny_data, tmp_path)

    def reached(train: list[int]) -> float:
        fold = Fold("fold 1", train, [], [i for i in range(len(clips)) if i not in train])
        protocol = Protocol("listed", "", "tiny", overlap=True, folds=lambda *_: [fold])
        return run(small, protocol, [0], workplace, lambda *_: None).histories[0][0].valid_uar

    assert 0 <= reached([i for i in range(len(clips)) if i % 3]) <= 1, "not NaN"
    with pytest.raises(ConfigError, match="protocol listed, fold 1: no training clips with a label"):
        reached([i for i, clip in enumerate(clips) if clip.speaker == "tiny/s0"])


def assert_equal(one: Predictions, other: Predictions) -> None:
    assert [clip.name for clip in one.clips] == [clip.name for clip in other.clips]
    np.testing.assert_array_equal(one.known, other.known)
    assert [[epoch.loss for epoch in history] for history in one.histories] == [
        [epoch.loss for epoch in history] for history in other.histories
    ]
    for mine, theirs in zip(one.parts, other.parts, strict=True):
        assert (mine.seed, mine.fold, mine.condition) == (theirs.seed, theirs.fold, theirs.condition)
        np.testing.assert_array_equal(mine.logits, theirs.logits)
        np.testing.assert_array_equal(mine.clip, theirs.clip)


def test_a_seed_asks_in_other_noise(tiny: recipe.Recipe, workplace: Workplace) -> None:
    one, other = (workplace.windows(tiny.with_seed(seed), ["clean", "noise10"]) for seed in (0, 1))
    np.testing.assert_array_equal(one.of_line(0).features, other.of_line(0).features)
    assert set(one.of_line(1).levels.tolist()).isdisjoint(other.of_line(1).levels.tolist())
    assert one.digest == other.digest


def test_the_label_map_says_what_clips_count_as(
    tiny: recipe.Recipe, workplace: Workplace, caplog: pytest.LogCaptureFixture
) -> None:
    """Before as after it, the same features serve."""
    caplog.set_level(logging.INFO)
    said = workplace.windows(tiny, ["clean", "train-0"])
    kept = sorted((workplace.runs / "cache").iterdir())
    mapped = msgspec.structs.replace(tiny, labels=("angry", "neutral"), label_map={"sad": "neutral"})
    assert mapped.sha256 != msgspec.structs.replace(mapped, label_map=msgspec.UNSET).sha256
    windows = workplace.windows(mapped, ["clean", "train-0"])
    np.testing.assert_array_equal(windows.features, said.features)
    assert [clip.emotion for clip in windows.clips] == [
        {"sad": "neutral"}.get(clip.emotion, clip.emotion) for clip in said.clips
    ]
    assert windows.digest != said.digest
    assert sorted((workplace.runs / "cache").iterdir()) == kept
    assert "clips by the label map of recipe tiny: 12 sad as neutral" in caplog.messages


def test_a_corpus_without_any_label_is_refused(tiny: recipe.Recipe, tiny_data: Path, tmp_path: Path) -> None:
    data = shutil.copytree(tiny_data, tmp_path / "data")
    shutil.copytree(data / "tiny", data / "other")
    table = data / "other/manifest.csv"
    words = {",angry,": ",anger,", ",neutral,": ",calm,", ",sad,": ",sadness,"}
    for own, other in words.items():
        table.write_text(table.read_text().replace(own, other))
    both = msgspec.structs.replace(tiny, corpora=("tiny", "other"))
    workplace = Workplace(data, data, tmp_path / "runs")
    with pytest.raises(corpora.CorpusError, match=r"corpus other: none .* they have anger, calm, sadness,"):
        workplace.windows(both, ["clean"])
    mapped = msgspec.structs.replace(both, label_map={"anger": "angry", "calm": "neutral", "sadness": "sad"})
    emotions = [clip.emotion for clip in workplace.windows(mapped, ["clean"]).clips]
    assert [emotions.count(label) for label in tiny.labels] == [24, 24, 24]
