import pytest

from serstream.service.overload import Capacity


def test_no_limit_before_anything_was_measured() -> None:
    capacity = Capacity(0.5)
    capacity.observe(1, 10.0)
    assert capacity.limit is None


def test_the_limit_is_what_fits_into_the_delay() -> None:
    capacity = Capacity(0.5)
    capacity.observe(32, 0.032)
    assert capacity.limit == 500


def test_the_limit_follows_a_machine_that_gets_slower() -> None:
    capacity = Capacity(0.5)
    capacity.observe(32, 0.032)
    for _ in range(100):
        capacity.observe(32, 0.32)
    assert capacity.limit == pytest.approx(50, abs=1)


def test_at_least_one_window_is_scored_however_slow() -> None:
    capacity = Capacity(0.5)
    capacity.observe(8, 80.0)
    assert capacity.limit == 1


def test_a_machine_that_stood_still_is_not_held_for_slow_for_ever() -> None:
    capacity = Capacity(0.5)
    capacity.observe(32, 0.032)
    capacity.observe(32, 320.0)
    assert capacity.limit == 1
    turns = 0
    while (limit := capacity.limit) and limit < 32:
        capacity.observe(limit, 0.001 * limit)
        turns += 1
    assert turns < 200
