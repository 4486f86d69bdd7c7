import pytest

from serstream.service.overload import Capacity, StreamLimit


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


class Machine:
    """A daemon whose streams cost so much processor time each, without a clock.

    A turn takes what has arrived during the one before; there are at most a hundred a second.
    """

    def __init__(self, cost_s: float):
        self.cost_s = cost_s
        self.limit = StreamLimit(max_delay_s=0.5)
        self.now = 100.0
        self.turn_s = 0.01
        self.worst_age_s = 0.0

    def run(self, streams: int, seconds: float) -> None:
        until = self.now + seconds
        while self.now < until:
            covered_s = max(self.turn_s, 0.01)
            heard = min(streams, self.limit.streams or streams)
            self.turn_s = heard * covered_s * self.cost_s
            self.now += max(self.turn_s, 0.01)
            age_s = covered_s / 2
            self.worst_age_s = max(self.worst_age_s, age_s)
            self.limit.observe(heard * covered_s, age_s, self.turn_s, streams, self.now)


def test_all_streams_are_heard_while_there_is_time() -> None:
    machine = Machine(cost_s=0.001)
    machine.run(950, 30)
    assert machine.limit.streams is None


def test_too_many_streams_are_cut_to_what_can_be_borne_and_sound_stops_waiting() -> None:
    machine = Machine(cost_s=0.001)
    machine.run(3000, 10)
    assert machine.worst_age_s < 2.0
    machine.worst_age_s = 0.0
    machine.run(3000, 120)
    assert machine.worst_age_s < 0.02
    assert machine.limit.streams is not None
    assert 600 <= machine.limit.streams <= 800


def test_all_are_heard_again_when_the_load_falls() -> None:
    machine = Machine(cost_s=0.001)
    machine.run(3000, 30)
    machine.run(500, 10)
    assert machine.limit.streams is None


def test_all_are_heard_again_when_the_machine_is_fast_again() -> None:
    machine = Machine(cost_s=0.004)
    machine.run(500, 30)
    assert machine.limit.streams is not None
    machine.cost_s = 0.001
    machine.run(500, 60)
    assert machine.limit.streams is None


@pytest.mark.parametrize("streams, still_s", [(500, 4.0), (900, 0.6)])
def test_a_machine_that_only_stood_still_mutes_nobody(streams: int, still_s: float) -> None:
    machine = Machine(cost_s=0.001)
    machine.run(streams, 10)
    machine.turn_s = still_s
    until = machine.now + 30
    while machine.now < until:
        machine.run(streams, 1)
        assert machine.limit.streams is None
    assert machine.worst_age_s == still_s / 2


def test_one_stream_is_heard_however_slow_the_machine_is() -> None:
    machine = Machine(cost_s=10.0)
    machine.run(3, 300)
    assert machine.limit.streams == 1
