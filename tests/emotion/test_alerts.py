import pytest
from hypothesis import given
from hypothesis import strategies as st

from serstream.config import AlertSettings
from serstream.emotion.alerts import GROUPS, StreamAlerts
from serstream.types import Role

RULE = AlertSettings(
    name="anger", emotions=("angry",), threshold=0.6, for_s=4.0, clear_below=0.4, cool_down_s=10.0
)


def run(
    rule: AlertSettings, probabilities: list[float], *, role: Role = "customer"
) -> list[tuple[float, bool]]:
    """Ends of the windows that changed something, one window a second, all of it speech."""
    alerts = StreamAlerts([rule], role)
    changes = []
    for i, probability in enumerate(probabilities):
        smoothed = {"angry": probability, "neutral": 1 - probability}
        for change in alerts.update(float(i), i + 1.0, i + 1.0, smoothed):
            changes.append((i + 1.0, change.raised))
    return changes


def test_an_alert_is_raised_after_so_much_speech_and_not_before() -> None:
    assert run(RULE, [0.1, 0.7, 0.7, 0.7]) == []
    assert run(RULE, [0.1, 0.7, 0.7, 0.7, 0.7]) == [(5.0, True)]


def test_an_interruption_begins_the_wait_anew() -> None:
    assert run(RULE, [0.7, 0.7, 0.7, 0.5, 0.7, 0.7, 0.7]) == []


def test_between_clear_below_and_threshold_nothing_changes() -> None:
    assert run(RULE, [0.7] * 4 + [0.5, 0.45, 0.59, 0.41]) == [(4.0, True)]
    assert run(RULE, [0.7] * 4 + [0.5, 0.39]) == [(4.0, True), (6.0, False)]


def test_after_it_was_cleared_an_alert_rests() -> None:
    assert run(RULE, [0.7] * 4 + [0.3] + [0.7] * 11) == [(4.0, True), (5.0, False), (15.0, True)]


def test_silence_does_not_count_as_time() -> None:
    alerts = StreamAlerts([RULE], "customer")
    assert alerts.update(0.0, 2.0, 2.0, {"angry": 0.9}) == []
    assert alerts.update(100.0, 101.0, 3.0, {"angry": 0.9}) == [], "3 s of speech, 101 s of time"
    (change,) = alerts.update(101.0, 102.0, 4.0, {"angry": 0.9})
    assert (change.raised, change.since, change.probability) == (True, 0.0, 0.9)


def test_a_group_adds_up_its_emotions() -> None:
    rule = AlertSettings(name="negative", emotions=("negative",), for_s=0.0)
    (change,) = StreamAlerts([rule], "customer").update(0, 1, 1, {"angry": 0.35, "sad": 0.3, "happy": 0.35})
    assert change.probability == pytest.approx(0.65)
    assert change.emotions == ("angry", "sad")
    assert "neutral" not in GROUPS["negative"] + GROUPS["positive"]


def test_only_streams_of_the_rules_role_are_watched() -> None:
    rule = AlertSettings(name="anger", emotions=("angry",), for_s=0.0, role="customer")
    assert run(rule, [0.9], role="customer")
    assert not run(rule, [0.9], role="agent")


@given(st.lists(st.floats(0, 1), max_size=60))
def test_raised_and_cleared_take_turns(probabilities: list[float]) -> None:
    changes = [raised for _, raised in run(RULE, probabilities)]
    assert changes == [i % 2 == 0 for i in range(len(changes))]
