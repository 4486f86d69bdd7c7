from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the trainer extra")

from serstream.errors import ConfigError
from trainer import recipe
from trainer.card import training_data
from trainer.experiment import Workplace, run, train_all
from trainer.folds import PROTOCOLS
from trainer.history import Epoch
from trainer.recipe import Training
from trainer.training import train

pytestmark = pytest.mark.trainer

EPOCHS = 2


@dataclass(frozen=True, slots=True)
class Told:
    """Epochs as they were told."""

    titles: list[str]
    stop_at: int = -1

    def __call__(self, title: str, epoch: Epoch) -> None:
        self.titles.append(f"{title} {epoch.epoch}")
        if len(self.titles) == self.stop_at:
            raise KeyboardInterrupt


@pytest.fixture
def workplace(tiny_data: Path, tmp_path: Path) -> Workplace:
    """Two corpora: ``tiny``, and ``other`` with boredom where ``tiny`` is sad."""
    data = tmp_path / "data"
    for name in ("tiny", "other"):
        shutil.copytree(tiny_data / "tiny", data / name)
    table = data / "other/manifest.csv"
    table.write_text(table.read_text().replace(",sad,", ",boredom,"))
    return Workplace(data, data, tmp_path / "runs")


@pytest.fixture
def pretrained(tiny_recipe: Path) -> recipe.Recipe:
    tiny = recipe.load(tiny_recipe)
    settings = Training(epochs=EPOCHS, batch=8)
    return msgspec.structs.replace(tiny, network="cnn_lstm_ridge", pretraining=("other",), training=settings)


def test_the_convolution_begins_with_what_it_learned_of_the_other_corpora(
    pretrained: recipe.Recipe, workplace: Workplace
) -> None:
    told = Told([])
    train_all(pretrained, workplace, told)
    assert told.titles == [
        *(f"tiny, seed 0, pretraining {epoch}" for epoch in (1, 2)),
        *(f"tiny {epoch}" for epoch in (1, 2)),
    ]
    before = workplace.before(pretrained)
    assert before is not None
    assert before.labels == ("angry", "boredom", "neutral")
    other = train_all(before, workplace, lambda *_: None)
    still = msgspec.structs.replace(pretrained, training=Training(epochs=1, batch=8, learning_rate=1e-9))
    windows, checkpoint = workplace.windows(pretrained), workplace.runs / "still.pt"
    own = train(still, windows, None, checkpoint, lambda _: None, pretrained=other).network
    afresh = train(still, windows, None, checkpoint.with_name("afresh.pt"), lambda _: None).network
    mine, its, fresh = (dict(net.named_parameters()) for net in (own, other.network, afresh))
    moved = [name for name in mine if not torch.allclose(mine[name], fresh[name], atol=1e-6)]
    assert moved
    for name in mine:
        last = name.startswith("convolution.classify.")
        assert torch.allclose(mine[name], its[name], atol=1e-6) != last or not name.startswith("convolution.")
        assert (name in moved) == (name.startswith("convolution.") and not last), name


def test_interrupted_in_its_pretraining_it_ends_at_the_same_scores(
    pretrained: recipe.Recipe, workplace: Workplace, tmp_path: Path
) -> None:
    speakers = PROTOCOLS["speakers"]
    first, rest = Told([], stop_at=1), Told([])
    with pytest.raises(KeyboardInterrupt):
        run(pretrained, speakers, [0], workplace, first)
    resumed = run(pretrained, speakers, [0], workplace, rest)
    assert len(set(first.titles + rest.titles)) == len(first.titles + rest.titles) == EPOCHS * (1 + 4)
    whole = run(pretrained, speakers, [0], Workplace(workplace.data, tmp_path, tmp_path / "whole"), Told([]))
    for mine, theirs in zip(resumed.parts, whole.parts, strict=True):
        np.testing.assert_array_equal(mine.logits, theirs.logits)
    afresh = run(
        msgspec.structs.replace(pretrained, pretraining=msgspec.UNSET),
        speakers,
        [0],
        workplace,
        Told([]),
    )
    assert not np.array_equal(afresh.parts[0].logits, whole.parts[0].logits)


def test_scores_are_made_again_when_what_was_heard_before_has_changed(
    pretrained: recipe.Recipe, workplace: Workplace
) -> None:
    speakers, told = PROTOCOLS["speakers"], Told([])
    trained = train_all(pretrained, workplace, Told([]))
    run(pretrained, speakers, [0], workplace, Told([]))
    run(pretrained, speakers, [0], workplace, told)
    assert told.titles == []
    table = workplace.data / "other/manifest.csv"
    table.write_text(table.read_text().replace(",boredom,", ",fear,"))
    predictions = run(pretrained, speakers, [0], workplace, told)
    assert len(told.titles) == EPOCHS * (1 + 4)
    again = train_all(pretrained, workplace, told)
    assert len(told.titles) == EPOCHS * (1 + 4 + 1), "the finished training is gone through again, too"
    assert trained.data != again.data == predictions.data


def test_the_model_names_every_corpus_it_owes_something_to(
    pretrained: recipe.Recipe, workplace: Workplace
) -> None:
    """A corpus.toml says what no manifest does."""
    terms = workplace.data / "other/corpus.toml"
    terms.write_text('licence = "CC-BY-NC-4.0"\nsellable = false\npublished = "by others; Doe 2026"\n')
    assert training_data(pretrained, workplace.data) == (
        "tiny, no licence stated: your own recordings",
        "other, CC-BY-NC-4.0: by others; Doe 2026",
    )
    wanted = "licence is Apache-2.0, wanted a non-commercial one .*: corpus other is CC-BY-NC-4.0"
    with pytest.raises(ConfigError, match=wanted):
        train_all(pretrained, workplace, lambda *_: None)
    noncommercial = msgspec.structs.replace(pretrained, licence="CC-BY-NC-4.0")
    assert workplace.windows(noncommercial, ["clean"]).clips


@pytest.mark.parametrize(
    ("changed", "wanted"),
    [
        ({"pretraining": ["Tiny"]}, "pretraining has tiny, wanted none of corpora"),
        ({"pretraining": []}, "length >= 1"),
        ({"network": "ridge", "training": {}}, "network is ridge, wanted one with a convolution"),
    ],
)
def test_a_pretraining_that_cannot_be_says_why(
    changed: dict[str, object], wanted: str, pretrained: recipe.Recipe, tmp_path: Path
) -> None:
    tables = msgspec.to_builtins(pretrained) | changed
    with pytest.raises(msgspec.ValidationError, match=wanted):
        msgspec.convert(tables, recipe.Recipe)


def test_recipes_without_one_keep_their_hash(tiny_recipe: Path) -> None:
    assert not {"pretraining", "label_map"} & msgspec.to_builtins(recipe.load(tiny_recipe)).keys()


def test_the_pretraining_learns_the_words_of_its_own_corpora(
    pretrained: recipe.Recipe, workplace: Workplace
) -> None:
    mapped = msgspec.structs.replace(
        pretrained, labels=("angry", "neutral"), label_map={"sad": "neutral"}, pretraining=("other",)
    )
    before = workplace.before(mapped)
    assert before is not None
    assert (before.labels, before.label_map) == (("angry", "boredom", "neutral"), msgspec.UNSET)
