from pathlib import Path

import pytest
from scripted_feed import Script

from serstream.config import AlertSettings
from serstream.emotion.trial import try_rules
from serstream.feed.coding import encode
from serstream.feed.messages import Message


def recording(folder: Path, messages: list[Message]) -> Path:
    path = folder / "events.jsonl"
    path.write_bytes(b"\n".join(encode(message) for message in messages))
    return path


def test_a_trial_counts_per_hour_of_the_streams_that_a_rule_watches(tmp_path: Path) -> None:
    customer, agent = Script("a", "a-c"), Script("a", "a-a", "agent")
    messages = [customer.window(float(end), "angry" if 100 <= end < 200 else "sad") for end in range(2, 1800)]
    rules = [
        AlertSettings(name="anger", emotions=("angry",), role="customer"),
        AlertSettings(name="anger", emotions=("angry",), role="agent"),
        AlertSettings(name="joy", emotions=("happy",)),
    ]
    ended = [customer.ended(1800.0), agent.ended(1800.0)]
    anger, of_agents, joy = try_rules([recording(tmp_path, [*messages, *ended])], rules)
    assert (anger.raised, anger.hours, anger.per_hour) == (1, 0.5, 2.0)
    assert anger.raised_s == pytest.approx(100, abs=15)
    assert (of_agents.raised, of_agents.hours, joy.raised, joy.hours) == (0, 0.5, 0, 1.0)


def test_a_call_that_has_the_name_of_an_earlier_one_is_watched_afresh(tmp_path: Path) -> None:
    """The daemon was started anew while an alert was raised; the names of calls are used again."""
    script = Script("a", "a-c")
    once = [script.started(), *(script.window(float(end), "angry") for end in range(2, 62))]
    (trial,) = try_rules(
        [recording(tmp_path, [*once, *once])], [AlertSettings(name="anger", emotions=("angry",))]
    )
    assert trial.raised == 2
    assert trial.hours == pytest.approx(2 * 61 / 3600)
    assert 61 < trial.raised_s < 2 * 61
