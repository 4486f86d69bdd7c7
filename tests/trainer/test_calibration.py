from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from serstream.errors import ConfigError
from trainer import evaluation, metrics, recipe, report
from trainer.calibration import calibrate, confidence_at
from trainer.corpora import Clip
from trainer.folds import PROTOCOLS
from trainer.metrics import modes, short_of_speech
from trainer.predictions import Part, Predictions

LABELS = ("angry", "calm", "sad")
CORPORA = {"one": ("angry", "sad"), "two": ("calm", "sad")}
"""Emotions of each."""


def predictions(logits: dict[str, tuple[float, float, float]], per_emotion: int = 20) -> Predictions:
    """Two folds, each with one speaker of every corpus; every clip of a corpus and emotion scores alike.

    Args:
        logits: of the clips of ``corpus emotion``; others score their own emotion 1.
        per_emotion: clips of each, in each fold.
    """
    clips, scores, fold = [], [], []
    for speaker in range(2):
        for corpus, emotions in CORPORA.items():
            for emotion in emotions * per_emotion:
                clips.append(Clip(Path("x.wav"), corpus, f"{corpus}/{speaker}", "unknown", emotion, "de"))
                own = tuple(float(label == emotion) for label in LABELS)
                scores.append(logits.get(f"{corpus} {emotion}", own))
                fold.append(speaker)
    known = np.array([[label in CORPORA[clip.corpus] for label in LABELS] for clip in clips])
    parts = [
        Part(0, f"fold {k}", "clean", 0.0, np.array(scores, np.float32)[own], own)
        for k in range(2)
        for own in [np.flatnonzero(np.array(fold) == k)]
    ]
    return Predictions(LABELS, clips, known, parts, [], "")


def test_a_label_of_one_speaker_does_not_spoil_the_calibration(caplog: pytest.LogCaptureFixture) -> None:
    """The other fold's speakers were never calm: its clips cannot be right at any temperature."""
    found = predictions({})
    calm = LABELS.index("calm")
    known = found.known.copy()
    known[found.parts[1].clip, calm] = False
    spoilt = calibrate(replace(found, known=known))
    assert "fold 1: no training speaker is calm; these clips count as wrong everywhere" in caplog.messages
    assert spoilt.temperature == pytest.approx(calibrate(found).temperature, rel=0.01)
    (mode,) = modes(replace(found, known=known))
    assert mode["recall"]["calm"] == 50
    with pytest.raises(ConfigError, match="wanted two or more speakers of every label"):
        calibrate(replace(found, known=np.zeros_like(known)))


def test_what_the_daemon_says_is_judged_over_all_labels_that_were_taught() -> None:
    """Half of the sad clips sound calm, in a corpus that has no calm ones."""
    found = predictions({"one sad": (0.0, 3.0, 1.0)})
    (mode,) = modes(found)
    assert (mode["ua"], mode["window_ua"]) == (100, 100)
    assert (
        mode["ua_unmasked"] == mode["window_ua_unmasked"] == pytest.approx(100 * (1 + 1 + 0.5) / 3, abs=0.01)
    )
    calibration = calibrate(found)
    assert calibration.error < 0.01
    assert calibration.error_unmasked > 0.2


def test_one_temperature_serves_first_windows_and_later_ones(tiny_recipe: Path, tmp_path: Path) -> None:
    """Before anything is heard every window scores as the one beside it should, so most are wrong."""
    later = predictions({})
    first = [replace(part, logits=np.roll(part.logits, 1, axis=0)) for part in later.parts]
    after = [replace(part, heard_s=60.0) for part in later.parts]
    found = replace(later, parts=[*first, *after])
    calibration = calibrate(found)
    assert calibrate(later).error < 0.01 < calibration.error, "the later ones are surer than it says"
    assert calibrate(later).temperature < calibration.temperature
    assert calibration.error_first < confidence_at(found, "clean", 0.0, 1.0, 0.6).error
    metrics = report.write(recipe.load(tiny_recipe), PROTOCOLS["speakers"], found, tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert f"Calibration by window, clean, after 60 s: ECE {calibration.error:.3f}" in text
    assert f"First windows, clean, at the same temperatures: ECE {calibration.error_first:.3f}." in text
    assert metrics["ece_first_windows"] == round(calibration.error_first, 4)


def test_what_was_tested_is_said_and_labels_without_clips_have_no_recall(
    tiny_recipe: Path, tmp_path: Path
) -> None:
    """Nobody of the first corpus is tested on anger, as when no other corpus has it: one class is left."""
    found = predictions({})
    angry = LABELS.index("angry")
    shared = [part.clip[found.label_of_clip[part.clip] != angry] for part in found.parts]
    parts = [
        replace(part, logits=part.logits[np.isin(part.clip, clip)], clip=clip)
        for part, clip in zip(found.parts, shared, strict=True)
    ]
    metrics = report.write(
        recipe.load(tiny_recipe), PROTOCOLS["corpora"], replace(found, parts=parts), tmp_path
    )
    assert metrics["tested"]["ua one"] == {"clips": 40, "labels": ["sad"]}
    assert metrics["confusion"] == {"calm": [0, 100, 0], "sad": [0, 0, 100]}
    text = (tmp_path / "report.md").read_text()
    assert "Tested: one on 40 clips of sad; two on 80 clips of calm, sad. In brackets" in text
    assert "| seeds | UA (2) | sd |" in text
    assert "| UA unknown (2) | UA one (1) | UA two (2) |" in text


def test_a_single_fold_is_not_calibrated_on_its_own_test_part(tiny_recipe: Path, tmp_path: Path) -> None:
    found = predictions({})
    single = replace(found, parts=found.parts[:1])
    calibration = calibrate(single)
    assert calibration.temperature == 1.0
    assert calibration.error == calibration.error_before > 0.2
    report.write(recipe.load(tiny_recipe), PROTOCOLS["crema-d-evar"], single, tmp_path)
    assert "uncalibrated, as there is no other fold" in (tmp_path / "report.md").read_text()


def test_validation_speakers_find_the_temperature_of_a_single_fold(tiny_recipe: Path, tmp_path: Path) -> None:
    """Theirs are the windows of the second fold, all right; the test part has no say in it."""
    found = predictions({})
    test, other = found.parts
    single = replace(found, parts=[test], validation=[replace(other, valid=True)])
    calibration = calibrate(single)
    assert calibration.error < 0.01 < calibration.error_before
    wrong = replace(test, logits=-test.logits)
    assert calibrate(replace(single, parts=[wrong])).temperature == calibration.temperature < 0.5
    assert calibrate(replace(found, validation=single.validation)).found_with == "other folds"
    metrics = report.write(recipe.load(tiny_recipe), PROTOCOLS["crema-d-evar"], single, tmp_path)
    assert "at the temperature of validation speakers" in (tmp_path / "report.md").read_text()
    assert metrics["temperature_found_with"] == "validation speakers"


def test_less_speech_than_a_row_says_is_said_by_corpus() -> None:
    heard = {"one": {"0": 0.0, "30": 29.5, "60": 58.0}, "two": {"0": 0.0, "30": 30.2, "60": 59.1}}
    assert short_of_speech(replace(predictions({}), heard=heard)) == (
        "Test speakers of one have less other speech than some rows say: in the mean 58 s where 60 s "
        "are said."
    )


def test_confidences_are_judged_at_the_temperature_and_threshold_of_a_model() -> None:
    """Every window is right; its own label scores 1, the other one of its corpus 0, as does the third."""
    found, sure, everywhere = predictions({}), 1 / (1 + np.exp(-1)), 1 / (1 + 2 * np.exp(-1))
    warm = confidence_at(found, "clean", 0.0, temperature=1.0, abstain_below=0.6)
    assert warm.error == pytest.approx(1 - sure)
    assert warm.error_unmasked == pytest.approx(1 - everywhere)
    assert warm.unsure_unmasked == 1.0, "0.58 of three labels, 0.73 of two"
    cold = confidence_at(found, "clean", 0.0, temperature=0.1, abstain_below=0.6)
    assert (cold.error, cold.unsure_unmasked) == (pytest.approx(0, abs=1e-3), 0.0)


def test_a_report_is_written_where_every_clean_clip_is_wrong(tiny_recipe: Path, tmp_path: Path) -> None:
    found = predictions(
        {
            f"{corpus} {own}": tuple(float(label in own_labels and label != own) for label in LABELS)
            for corpus, own_labels in CORPORA.items()
            for own in own_labels
        }
    )
    report.write(recipe.load(tiny_recipe), PROTOCOLS["speakers"], found, tmp_path)
    assert "| **0.0** | - | - | - | 0.0 |" in (tmp_path / "report.md").read_text()


def test_without_draws_of_every_label_the_interval_is_a_dash(
    tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "MIN_DRAWS", evaluation.DRAWS + 1)
    metrics = report.write(recipe.load(tiny_recipe), PROTOCOLS["speakers"], predictions({}), tmp_path)
    assert metrics["modes"][0]["ua_interval"] is None
    assert "| **100.0** | - | - | 100 % | 100.0 |" in (tmp_path / "report.md").read_text()


def test_few_speakers_have_no_interval(
    tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = predictions({})
    n_speakers = len({clip.speaker for clip in found.clips})
    for wanted, there in ((n_speakers, True), (n_speakers + 1, False)):
        monkeypatch.setattr(metrics, "MIN_SPEAKERS", wanted)
        written = report.write(recipe.load(tiny_recipe), PROTOCOLS["speakers"], found, tmp_path)
        assert (written["modes"][0]["ua_interval"] is not None) == there


def test_many_labels_have_a_larger_picture(tmp_path: Path) -> None:
    """Long names would stand on one another."""
    sizes = []
    for n in (6, 8, 16):
        report.draw_confusion(
            np.eye(n, dtype=np.int64), [f"emotion-{k}" for k in range(n)], tmp_path / "x.png"
        )
        sizes.append(imread(tmp_path / "x.png").shape[:2])
    assert sizes[0] == sizes[1] < sizes[2]


def test_a_label_that_nobody_taught_does_not_win_unmasked() -> None:
    """Clips of the second corpus are all calm in this fold, and no other speaker is."""
    found = predictions({"one sad": (0.0, 3.0, 1.0)})
    known = found.known.copy()
    (part, _) = found.parts
    known[part.clip, LABELS.index("calm")] = False
    tested = [(found.clips[i].corpus, found.clips[i].emotion) != ("two", "sad") for i in part.clip]
    first = replace(part, logits=part.logits[tested], clip=part.clip[tested])
    judged = confidence_at(replace(found, known=known, parts=[first]), "clean", 0.0, 0.1, abstain_below=0.0)
    assert judged.error_unmasked == judged.error < 0.01


def test_labels_of_a_corpus_that_is_not_tested_may_win_too() -> None:
    """As in a protocol that tests one corpus of several: the other one is trained on."""
    found = predictions({"one sad": (0.0, 3.0, 1.0)})
    tested = [[found.clips[i].corpus == "one" for i in part.clip] for part in found.parts]
    parts = [
        replace(part, logits=part.logits[own], clip=part.clip[own])
        for part, own in zip(found.parts, tested, strict=True)
    ]
    (mode,) = modes(replace(found, parts=parts))
    assert (mode["ua"], mode["ua_unmasked"]) == (100, 50)
