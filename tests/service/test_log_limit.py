import logging

import pytest

from serstream import cli
from serstream.service.log_limit import OncePerSecond


@pytest.fixture
def limit() -> OncePerSecond:
    return OncePerSecond()


def record(created: float, line: int = 1, level: int = logging.WARNING) -> logging.LogRecord:
    made = logging.LogRecord(
        "serstream.x", level, "x.py", line, "client %s refused, 5%% of them", ("a",), None
    )
    made.created = created
    return made


def test_ten_thousand_warnings_in_ten_seconds_are_ten_lines_that_count_them_all(limit: OncePerSecond) -> None:
    records = [record(100 + i / 1000) for i in range(10_000)]
    told = [each.getMessage() for each in records if limit.filter(each)]
    assert told[0] == "client a refused, 5% of them"
    assert told[1:] == ["client a refused, 5% of them (and 999 more like it)"] * 9


def test_another_kind_is_told_at_once(limit: OncePerSecond) -> None:
    assert limit.filter(record(100.0, line=1))
    assert limit.filter(record(100.1, line=2))
    assert not limit.filter(record(100.2, line=1))


def test_what_is_no_warning_is_left_alone(limit: OncePerSecond) -> None:
    assert all(limit.filter(record(100.0, level=logging.INFO)) for _ in range(9))


def test_a_clock_set_back_silences_nothing(limit: OncePerSecond) -> None:
    assert limit.filter(record(5000.0))
    assert limit.filter(record(100.0))
    assert not limit.filter(record(100.5))


def test_every_command_logs_that_way(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(logging.root, "handlers", [])
    assert cli.main(["check", "no such file"]) == 2
    for _ in range(99):
        logging.getLogger("serstream").warning("too much")
    assert capsys.readouterr().err.count("too much") == 1
