import threading

import numpy as np
import pytest

from serstream.service.intake import TAKEN_SAMPLES, Intake, mean_age_s
from serstream.types import AudioBlock, AudioChunk, StreamEnd, StreamStart


def chunk(start_s: float, seconds: float = 1.0) -> AudioChunk:
    return AudioChunk("s", np.zeros(round(seconds * 8000), np.float32), 8000, round(start_s * 8000))


START = StreamStart("s", "c", "customer", "test", 0.0)


def test_events_come_out_in_order_and_once() -> None:
    intake = Intake(capacity_s=10)
    first, second = chunk(0), chunk(1)
    intake.put([START, first])
    intake.put([second])
    assert intake.take(0) == [START, first, second]
    assert intake.take(0) == []


def test_the_oldest_sound_is_dropped_and_counted_but_never_a_start_or_end() -> None:
    intake = Intake(capacity_s=3)
    chunks = [chunk(second) for second in range(5)]
    end = StreamEnd("s", "bye")
    intake.put([START, *chunks, end])
    assert intake.take(0) == [START, *chunks[2:], end]
    assert intake.dropped_s == 2


def test_a_turn_takes_no_more_than_it_can_work_off_soon_whatever_the_rate() -> None:
    second = np.zeros(44_100, np.float32)
    wide = [AudioChunk("s", second, 44_100, 44_100 * i) for i in range(2 * TAKEN_SAMPLES // 44_100)]
    events = [START, *wide, StreamEnd("s", "bye")]
    intake = Intake(capacity_s=len(wide))
    intake.put(events)
    first, rest = intake.take(0), intake.take(60)
    assert [*first, *rest] == events
    assert TAKEN_SAMPLES <= 44_100 * (len(first) - 1) < TAKEN_SAMPLES + 44_100
    assert intake.waited_s == pytest.approx(len(wide) + 1 - len(first))
    assert intake.is_empty


def test_a_waiting_take_returns_what_another_thread_puts() -> None:
    intake = Intake(capacity_s=1)
    putter = threading.Thread(target=intake.put, args=([START],))
    putter.start()
    assert intake.take(60) == [START]
    putter.join()


def test_a_patient_source_waits_for_room_and_loses_nothing() -> None:
    intake = Intake(capacity_s=3)
    events = [*(chunk(second) for second in range(100)), StreamEnd("s", "eof")]

    def put() -> None:
        for event in events:
            intake.put_patiently([event])

    putter = threading.Thread(target=put)
    putter.start()
    taken: list[object] = []
    while events[-1] not in taken:
        taken += intake.take(60)
    putter.join()
    assert taken == events
    assert intake.dropped_s == 0


def test_a_block_counts_with_the_sound_of_all_its_streams() -> None:
    intake = Intake(3.0)
    blocks = [AudioBlock(["a", "b"], np.zeros((2, 8000), np.int16), 8000, [0, 0], [0, 0]) for _ in range(2)]
    intake.put([*blocks])
    assert intake.take(0) == blocks[1:]
    assert (intake.waited_s, intake.dropped_s) == (2.0, 2.0)


def test_the_age_of_sound_counts_what_was_received_live() -> None:
    block = AudioBlock(["a", "b"], np.zeros((2, 80), np.int16), 8000, [0, 0], [10.0, 11.0])
    live = AudioChunk("s", np.zeros(80, np.float32), 8000, 0, arrived=12.0)
    assert mean_age_s([START, block, live, chunk(0), StreamEnd("s", "bye")], now=13.0) == 2.0
    assert mean_age_s([START, chunk(0)], now=13.0) == 0.0
