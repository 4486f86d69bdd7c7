import logging

import pytest

from serstream import cli
from serstream.pacing import ALWAYS, LONGEST_PAUSE_S
from serstream.service import signals
from serstream.service.log_limit import MAX_KINDS, GrowingPauses


@pytest.fixture
def limit() -> GrowingPauses:
    return GrowingPauses()


def record(
    created: float, line: int = 1, level: int = logging.WARNING, client: object = "a"
) -> logging.LogRecord:
    made = logging.LogRecord(
        "serstream.x", level, "x.py", line, "client %s refused, 5%% of them", (client,), None
    )
    made.created = created
    return made


def test_warnings_of_one_kind_come_at_growing_intervals_and_count_those_between(limit: GrowingPauses) -> None:
    records = [record(100 + i / 100) for i in range(20_000)]
    told = [(each.created - 100, each.getMessage()) for each in records if limit.filter(each)]
    assert [round(at) for at, _ in told] == [0, 1, 3, 7, 15, 31, 63, 123, 183]
    assert told[0][1] == "client a refused, 5% of them"
    assert told[1][1] == "client a refused, 5% of them (and 99 more like it)"
    held = sum(int(text.split("(and ")[1].split()[0]) for _, text in told[1:])
    assert held + len(told) == 1 + 18_300, "all until the last line"


def test_trouble_that_was_over_is_told_at_once_again(limit: GrowingPauses) -> None:
    lasting = [limit.filter(record(100.0 + second)) for second in range(10)]
    assert lasting == [second in (0, 1, 3, 7) for second in range(10)]
    later = 107.0 + 8 + LONGEST_PAUSE_S
    assert [limit.filter(record(later + second)) for second in range(3)] == [True, True, False]


def test_another_kind_is_told_at_once(limit: GrowingPauses) -> None:
    assert limit.filter(record(100.0, line=1))
    assert limit.filter(record(100.1, line=2))
    assert not limit.filter(record(100.2, line=1))


def test_the_same_trouble_of_two_is_told_of_both(limit: GrowingPauses) -> None:
    assert limit.filter(record(100.0, client="rtp 127.0.0.1:5004"))
    assert limit.filter(record(100.0, client="rtp 127.0.0.1:5006"))
    assert not limit.filter(record(100.1, client="rtp 127.0.0.1:5004"))


def test_numbers_do_not_tell_kinds_apart(limit: GrowingPauses) -> None:
    assert [limit.filter(record(100.0, client=n)) for n in range(3)] == [True, False, False]


def test_a_flood_that_is_about_ever_another_one_is_bounded(limit: GrowingPauses) -> None:
    for second in (100.0, 101.0):
        told = [limit.filter(record(second, client=f"stranger {i}")) for i in range(10_000)]
        assert sum(told) == MAX_KINDS + 1
        assert len(limit._told) <= MAX_KINDS + 1


def test_what_a_person_waits_for_is_never_held_back(
    limit: GrowingPauses, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.handler.addFilter(limit)
    for _ in range(3):
        logging.getLogger("serstream").error("reload refused: %s", "x", extra=ALWAYS)
    caplog.handler.removeFilter(limit)
    assert len(caplog.messages) == 3


def test_what_is_no_warning_is_left_alone(limit: GrowingPauses) -> None:
    assert all(limit.filter(record(100.0, level=logging.INFO)) for _ in range(9))


def test_a_clock_set_back_silences_nothing(limit: GrowingPauses) -> None:
    assert limit.filter(record(5000.0))
    assert limit.filter(record(100.0))
    assert not limit.filter(record(100.5))


@pytest.mark.parametrize(("command", "told"), [("run -c", 1), ("check", 99)])
def test_the_daemon_logs_that_way_and_no_command_else(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str, told: int
) -> None:
    monkeypatch.setattr(logging.root, "handlers", [])
    monkeypatch.setattr(signals, "Signals", object)
    assert cli.main([*command.split(), "none.toml"]) == 2
    for _ in range(99):
        logging.getLogger("serstream").warning("too much")
    assert capsys.readouterr().err.count("too much") == told
