from __future__ import annotations

import numpy as np
import pytest
from scipy.special import log_softmax

from trainer.evaluation import (
    best,
    calibration_error,
    clip_scores,
    clip_uar,
    confusion,
    drawn_uar,
    fit_temperature,
    interval,
    macro_f1,
    recalls,
    reliability,
    risk_coverage,
    uar,
)

LABEL = np.array([0, 0, 0, 0, 1, 1])
PREDICTED = np.array([0, 0, 0, 1, 1, 0])


def test_recalls_count_classes_alike() -> None:
    assert uar(confusion(LABEL, PREDICTED, 3)) == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert recalls(confusion(LABEL, PREDICTED, 3))[:2].tolist() == [0.75, 0.5]
    assert np.isnan(recalls(confusion(LABEL, PREDICTED, 3))[2])
    assert macro_f1(confusion(LABEL, PREDICTED, 3)) == pytest.approx((3 / 4 + 1 / 2) / 2)


def test_a_clip_is_the_mean_of_its_windows() -> None:
    logits = np.array([[2, 0], [0, 2], [0, 3]], np.float32)
    clips, scores = clip_scores(logits, np.array([7, 4, 4]))
    assert clips.tolist() == [4, 7]
    np.testing.assert_allclose(scores[0], log_softmax(logits, axis=-1)[1:].mean(axis=0), rtol=1e-6)


def test_clips_are_judged_over_the_labels_of_their_corpus() -> None:
    """The second clip sounds most like a label that its corpus lacks; of the third no window is there."""
    logits = np.array([[2, 0, 0], [0, 1, 3]], np.float32)
    known = np.array([[True, True, True], [True, True, False], [True, True, True]])
    assert best(logits, known[:2]).tolist() == [0, 1]
    assert best(logits, np.array([False, True, True])).tolist() == [1, 2]
    clip, label = np.array([0, 1]), np.array([0, 1, 2])
    assert clip_uar(logits, clip, label, known) == 1.0
    assert clip_uar(logits, clip, label, np.ones_like(known)) == 0.5


def test_temperature_recovers_what_made_the_logits_too_sure() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1.5, (20_000, 4)).astype(np.float32)
    chance = np.exp(log_softmax(logits, axis=-1))
    label = np.array([rng.choice(4, p=row / row.sum()) for row in chance.astype(float)])
    assert fit_temperature(3 * logits, label) == pytest.approx(3, rel=0.05)


def test_calibration_error_of_honest_and_of_sure_confidences() -> None:
    correct = np.arange(1000) % 4 != 0
    assert calibration_error(reliability(np.full(1000, 0.75, np.float32), correct)) == pytest.approx(0)
    assert calibration_error(reliability(np.ones(1000, np.float32), correct)) == pytest.approx(0.25)


def test_risk_falls_when_the_unsure_are_given_up() -> None:
    coverage, risk = risk_coverage(np.array([0.9, 0.2, 0.8]), np.array([True, False, True]))
    np.testing.assert_allclose(coverage, [1 / 3, 2 / 3, 1], rtol=1e-6)
    np.testing.assert_allclose(risk, [0, 0, 1 / 3], rtol=1e-6)


def test_the_interval_widens_when_speakers_differ() -> None:
    alike = [np.array([[8, 2], [2, 8]])] * 10
    unlike = [np.array([[10, 0], [0, 10]]), np.array([[6, 4], [4, 6]])] * 5
    assert interval(drawn_uar(np.array(alike))) == pytest.approx((0.8, 0.8))
    low, high = interval(drawn_uar(np.array(unlike)))
    assert low < 0.76 < 0.84 < high


def test_the_interval_is_that_of_all_labels() -> None:
    """One speaker alone has the label that is never found; draws without her would be of an easier task."""
    easy, hard = np.array([[9, 1], [0, 0]]), np.array([[9, 1], [10, 0]])
    counts = np.array([easy] * 9 + [hard])
    assert uar(counts.sum(axis=0)) == pytest.approx(0.45)
    assert interval(drawn_uar(counts)) == pytest.approx((0.45, 0.45))


def test_speakers_who_share_no_label_have_no_interval() -> None:
    alone = np.zeros((5, 5, 5), np.int64)
    alone[range(5), range(5), range(5)] = 3
    assert interval(drawn_uar(alone)) is None
