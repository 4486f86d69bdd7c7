from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the trainer extra")

from serstream.config import ModelSettings
from serstream.emotion.loading import load_model
from serstream.errors import ConfigError
from serstream.types import Quality, SpeechWindow
from trainer import cli
from trainer.comparison import features, system
from trainer.comparison.cells import LEAK_COPIES, Cell, Plan
from trainer.comparison.copies import Effect, copy
from trainer.comparison.examples import Examples, gather
from trainer.comparison.learning import Epoch, tensors
from trainer.comparison.splits import PROTOCOLS, Protocol, shared, split
from trainer.corpora import Clip
from trainer.device import CPU
from trainer.windows import load_clip

pytestmark = pytest.mark.trainer

RATE = 16_000


@pytest.fixture(scope="module")
def sound(clips: list[Clip]) -> np.ndarray:
    return load_clip(clips[0])


PLAN = Plan(full=False, seed=0)


def small(name: str) -> system.System:
    """For an epoch."""
    return msgspec.structs.replace(system.load(name), short=system.Short(heard=1))


def untold(title: str, number: int, epoch: Epoch) -> None:
    """Nobody listens to the epochs."""


def of_two(n_clips: int) -> Examples:
    """Every clip and one copy; the feature is the clip's number."""
    clip = np.tile(np.arange(n_clips), 2)
    return Examples(clip[:, None].astype(np.float32), clip, np.repeat([True, False], n_clips))


@pytest.mark.parametrize("name", system.names())
def test_every_recipe_gives_its_network_what_it_wants(
    name: str, clips: list[Clip], sound: np.ndarray
) -> None:
    recipe = system.load(name)
    heard = recipe.feature_set()(sound, clips[0])
    assert heard.dtype == np.float32
    assert np.isfinite(heard).all()
    if recipe.network != system.FOREST:
        network = recipe.build(heard.shape, 6).eval()
        assert network(**tensors(network, heard[None])).shape == (1, 6)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("flattened", (1738,)),
        ("acoustic", (162,)),
        ("fused", (171,)),
        ("zero_crossings_energy", (800,)),
        ("mel_db", (128, 400)),
    ],
)
def test_feature_sets_have_their_shape_for_any_length(
    name: str, shape: tuple[int, ...], clips: list[Clip], sound: np.ndarray
) -> None:
    for samples in (sound, np.tile(sound, 8), sound[:3000]):
        assert features.FEATURES[name](samples, clips[0]).shape == shape


def test_features_are_what_they_are_called(clips: list[Clip]) -> None:
    time = np.arange(2 * RATE) / RATE
    tone = (0.5 * np.sin(2 * np.pi * 440 * time)).astype(np.float32)
    acoustic = features.acoustic(tone, clips[0])
    assert acoustic[0] == pytest.approx(2 * 440 / RATE, rel=0.05)  # zero crossings
    assert np.argmax(acoustic[1:13]) == 9  # chroma: A
    assert acoustic[33] == pytest.approx(0.5 / np.sqrt(2), rel=0.05)  # RMS
    statistics = features.fused(tone, clips[0])[162:]
    assert statistics[1] == pytest.approx(0.125, rel=0.01)
    assert statistics[4] == pytest.approx(440, rel=0.05)  # spectral centroid
    assert statistics[6:].tolist() == [float(clips[0].sex == sex) for sex in features.SEXES]


def test_silence_is_trimmed_where_the_recipe_says_so(sound: np.ndarray) -> None:
    quiet = np.zeros(RATE, np.float32)
    assert abs(len(features.trimmed(np.concatenate([quiet, sound, quiet]))) - len(sound)) < 0.2 * RATE


@pytest.mark.parametrize("effect", ["noise", "shift", "pitch", "stretch", "low_pass"])
def test_copies_differ_and_are_the_same_every_time(effect: Effect, sound: np.ndarray) -> None:
    first, again = (copy(sound, effect, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert len(first) != len(sound) or np.abs(first - sound).max() > 1e-3
    assert 0.7 < len(first) / len(sound) < 1.4


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_protocols_let_through_what_they_say(protocol: Protocol, clips: list[Clip]) -> None:
    examples = of_two(len(clips))
    parts = split(protocol, 0, clips, examples, 0.25, 0.1)
    everything = np.concatenate([parts.train, parts.valid, parts.test])
    assert len(everything) == len(set(everything.tolist()))
    taught, tested = set(examples.clip[parts.train]), set(examples.clip[parts.test])
    assert bool(taught & tested) == (protocol == "leak")
    assert examples.original[parts.test].all() == (protocol != "leak")
    voices = [{clips[i].speaker for i in part} for part in (taught, tested)]
    assert bool(voices[0] & voices[1]) == (protocol != "speakers")
    assert {clips[i].emotion for i in tested} == {"angry", "neutral", "sad"}
    again = split(protocol, 0, clips, examples, 0.25, 0.1)
    np.testing.assert_array_equal(parts.test, again.test)
    other = split(protocol, 1, clips, examples, 0.25, 0.1)
    assert parts.test.tolist() != other.test.tolist()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_fewer_clips_are_trained_on_where_time_is_short(protocol: Protocol, clips: list[Clip]) -> None:
    examples = of_two(len(clips))
    whole = split(protocol, 0, clips, examples, 0.25, 0.1)
    fewer = whole.of_at_most(5, examples, 0)
    assert len(np.unique(examples.clip[fewer.train])) == 5
    assert set(fewer.train) <= set(whole.train)
    assert fewer.test is whole.test
    assert whole.of_at_most(500, examples, 0) is whole.of_at_most(None, examples, 0) is whole


def test_one_speaker_cannot_be_kept_apart(clips: list[Clip]) -> None:
    alone = [clip for clip in clips if clip.speaker == "tiny/s0"]
    with pytest.raises(ConfigError, match="s0, wanted at least two"):
        split("speakers", 0, alone, of_two(len(alone)), 0.25, 0.1)


def test_features_are_kept_and_every_effect_is_heard(clips: list[Clip], tmp_path: Path) -> None:
    recipe = small("d1")
    examples = gather(recipe, clips[:6], ("noise", "pitch"), 1, tmp_path)
    assert examples.features.shape == (12, 20, 122)
    assert examples.clip.tolist() == [*range(6), *range(6)]
    assert examples.original.tolist() == [True] * 6 + [False] * 6
    changed = np.abs(examples.features[6:] - examples.features[:6]).max(axis=(1, 2))
    assert (changed > 0.1).all()
    written = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    again = gather(recipe, clips[:6], ("noise", "pitch"), 1, tmp_path)
    np.testing.assert_array_equal(again.features, examples.features)
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == written


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY\x01\x00v\x00{'descr': '<f4',", b"\0" * 200])
def test_features_that_cannot_be_read_are_computed_again(
    content: bytes, clips: list[Clip], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    examples = gather(small("d1"), clips[:6], (), 0, tmp_path)
    (kept,) = tmp_path.iterdir()
    for damaged in (content, kept.read_bytes()[:-1]):
        kept.write_bytes(damaged)
        again = gather(small("d1"), clips[:6], (), 0, tmp_path)
        np.testing.assert_array_equal(again.features, examples.features)
    assert caplog.text.count(f"{kept}: cannot read it: ") == 2


@pytest.mark.parametrize(
    "name", [name for name in system.names() if system.load(name).features == system.MFCC]
)
def test_what_hears_mfcc_is_a_model_that_the_daemon_loads_and_scores_with(
    name: str, clips: list[Clip], tmp_path: Path
) -> None:
    cell = Cell(name, small(name), "tiny", clips[:24], "speakers", PLAN, tmp_path)
    cell.run(CPU, untold)
    (file,) = tmp_path.glob(f"{name}-*/*.onnx")
    model = load_model(ModelSettings(path=str(file)))
    assert model.reference == f"{name}@1"
    assert model.metadata.labels == ("angry", "neutral", "sad")
    groups = split("speakers", 0, cell.clips, of_two(24), cell.system.test_share, cell.system.valid_share)
    heard = np.zeros((3, 3), int)
    for clip in [cell.clips[i] for i in groups.test]:
        samples = load_clip(clip)
        window = SpeechWindow("s", samples, 0, len(samples), 0, False, Quality(0, 0, -26, 1))
        (scores,) = model.score([window])
        assert scores.probabilities.sum() == pytest.approx(1, abs=1e-5)
        heard[model.metadata.labels.index(clip.emotion), scores.probabilities.argmax()] += 1
    assert heard.tolist() == cell.results()[0].confusion


def test_results_are_those_of_the_labels_as_they_are_now(clips: list[Clip], tmp_path: Path) -> None:
    few = clips[:24]
    cell = Cell("d-forest", small("d-forest"), "tiny", few, "speakers", PLAN, tmp_path)
    cell.run(CPU, untold)
    assert len(cell.results()) == 1
    mended = [replace(few[0], emotion="neutral" if few[0].emotion != "neutral" else "sad"), *few[1:]]
    assert replace(cell, clips=mended).results() == []
    assert len(replace(cell, clips=list(few)).results()) == 1


@pytest.mark.parametrize("content", [b"", b"\0\0", b'{"labels": ["angry"', b'{"labels": ["angry"]}'])
def test_a_result_that_cannot_be_read_is_brought_again(
    content: bytes, clips: list[Clip], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cell = Cell("d-forest", small("d-forest"), "tiny", clips[:24], "speakers", PLAN, tmp_path)
    cell.run(CPU, untold)
    whole = cell.results()
    cell.path(0).write_bytes(content)
    assert cell.results() == []
    assert f"{cell.path(0)}: cannot read it: " in caplog.text
    cell.run(CPU, untold)
    assert cell.results() == whole


def test_a_network_that_onnx_runtime_computes_otherwise_is_named_and_the_result_stays(
    clips: list[Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("trainer.export.TOLERANCE", -1.0)
    cell = Cell("d1", small("d1"), "tiny", clips[:24], "speakers", PLAN, tmp_path)
    cell.run(CPU, untold)
    assert len(cell.results()) == 1
    assert not list(tmp_path.glob("d1-*/*.onnx"))
    assert "not kept as ONNX" in caplog.text
    assert "torch and ONNX Runtime differ" in caplog.text


def test_one_corpus_is_tested_by_what_learned_the_others(clips: list[Clip]) -> None:
    two = [
        replace(clip, corpus="other") if clip.speaker in ("tiny/s2", "tiny/s3") else clip for clip in clips
    ]
    two = [clip for clip in two if (clip.corpus, clip.emotion) != ("other", "sad")]
    both = shared(two)
    assert {clip.emotion for clip in both} == {"angry", "neutral"}
    for number, tested in enumerate(("other", "tiny")):
        examples = of_two(len(both))
        parts = split("corpora", number, both, examples, 0.25, 0.1)
        assert {both[i].corpus for i in examples.clip[parts.test]} == {tested}
        assert {both[i].corpus for i in examples.clip[parts.train]} == {"other", "tiny"} - {tested}
        assert len(parts.test) == sum(clip.corpus == tested for clip in both)
    with pytest.raises(ConfigError, match="of tiny, wanted at least two corpora"):
        split("corpora", 0, clips, of_two(len(clips)), 0.25, 0.1)


@pytest.mark.parametrize("name", ["crema-d", "savee+tess"])
def test_corpora_that_are_not_here_are_run_on_their_official_names(
    name: str,
    clips: list[Clip],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for recipe in ("d1", "d-forest"):
        text = (system.RECIPES / f"{recipe}.toml").read_text()
        (tmp_path / f"{recipe}.toml").write_text(re.sub("heard = [0-9]+", "heard = 1", text))
    monkeypatch.setattr(system, "RECIPES", tmp_path)
    by_emotion = [
        [clip for clip in clips if clip.emotion == emotion] for emotion in ("angry", "neutral", "sad")
    ]
    files = {
        "crema-d": [
            f"AudioWAV/{actor}_DFA_{emotion}_XX.wav"
            for actor in range(1001, 1006)
            for emotion in ("ANG", "NEU", "SAD")
        ],
        "tess": [
            f"{speaker}_{word}_{emotion}.wav"
            for speaker in ("OAF", "YAF")
            for word in ("back", "bar", "bean")
            for emotion in ("angry", "neutral", "sad")
        ],
        "savee": [
            f"{speaker}/{emotion}{number}.wav"
            for speaker in ("DC", "JE", "JK", "KL")
            for number in ("01", "02")
            for emotion in ("a", "n", "sa")
        ],
    }
    n_clips = 0
    for corpus in name.split("+"):
        for i, file in enumerate(files[corpus]):
            path = tmp_path / "data" / corpus / file
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(by_emotion[i % 3][i // 3].path, path)
            n_clips += 1
    if name == "crema-d":
        (tmp_path / "data" / name / "VideoDemographics.csv").write_text("ActorID,Age,Sex\n1001,51,Male\n")
    page = tmp_path / "page.md"
    command = ["compare", "d1", "d-forest", "--corpus", name, "--data", str(tmp_path / "data")]
    command += ["--across", name] if "+" in name else []
    command += ["--runs", str(tmp_path / "runs"), "--output", str(page), "--device", "cpu"]
    assert cli.main(command) == 0
    told = capsys.readouterr().err
    assert f"d1, {name}, speakers, split 1: epoch 1" in told
    text = page.read_text()
    assert f"## {name}\n\n{n_clips} clips" in text
    assert "Not run yet" not in text
    assert "not run" not in text
    assert (
        ("corpora, split 2: epoch 1" in told) == ("tested on savee | tested on tess" in text) == ("+" in name)
    )
    for kind in ("confusion", "learning"):
        picture = tmp_path / "page" / f"{name}-{kind}.png"
        assert 1000 < picture.stat().st_size < 200_000
    assert cli.main(command) == 0
    assert "epoch" not in capsys.readouterr().err  # everything was read back
    assert page.read_text() == text


def test_no_copies_are_added_but_where_the_leak_is_shown() -> None:
    plan = Plan(full=True, seed=0)
    assert plan.copies(system.load("a2"), "random") == ((), 0)
    assert plan.copies(system.load("a2"), "leak") == (LEAK_COPIES, 2)
    assert plan.copies(system.load("e1"), "random")[1] == 4
    assert Plan(full=False, seed=0).copies(system.load("e1"), "random")[1] == 1


def test_a_recipe_keeps_its_results_when_only_its_words_change() -> None:
    recipe = system.load("e1")
    worded = msgspec.structs.replace(recipe, title="x", verdict="y", short=system.Short(heard=9))
    other = msgspec.structs.replace(recipe, trim=False)
    assert worded.sha256 == recipe.sha256
    assert other.sha256 != recipe.sha256


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ('network = "e9"', "network is 'e9', wanted one of"),
        ('features = "mfcc"', "[spec] belongs to features 'mfcc'"),
        ("epoch = 3", "unknown field `epoch`"),
    ],
)
def test_a_bad_recipe_says_what_is_wanted(
    change: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = change.split()[0]
    lines = (system.RECIPES / "e1.toml").read_text().splitlines()
    changed = [change, *(line for line in lines if not line.startswith(f"{key} ="))]
    (tmp_path / "bad.toml").write_text("\n".join(changed))
    monkeypatch.setattr(system, "RECIPES", tmp_path)
    with pytest.raises(ConfigError, match=r"bad\.toml") as error:
        system.load("bad")
    assert said in str(error.value)


def test_an_unknown_system_names_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["compare", "z9", "--corpus", "tiny"]) == 2
    assert "'z9': there is none; wanted one of a1, a2" in capsys.readouterr().err
