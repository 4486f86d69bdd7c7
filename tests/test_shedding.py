from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from serstream.shedding import admit
from serstream.types import Quality, SpeechWindow

QUALITY = Quality(loss=0, clipping=0, level_dbfs=-20, speech=1)


def window(stream: str, start: int, *, final: bool = False) -> SpeechWindow:
    return SpeechWindow(
        stream=stream,
        samples=np.zeros(0, np.float32),
        start=start,
        end=start + 1,
        utterance=0,
        final=final,
        quality=QUALITY,
    )


def test_nothing_is_shed_while_there_is_time() -> None:
    windows = [window("a", i) for i in range(3)]
    assert admit(windows, 3, {}) == (windows, [])


def test_the_oldest_interim_goes_first_and_finals_last() -> None:
    old, new, final = window("a", 0), window("a", 1), window("a", 2, final=True)
    assert admit([old, new, final], 2, {}) == ([new, final], [old])
    assert admit([old, new, final], 1, {}) == ([final], [old, new])


def test_a_stream_that_floods_does_not_silence_the_others() -> None:
    flood = [window("loud", i) for i in range(100)]
    quiet = [window(name, 0) for name in "abc"]
    admitted, _ = admit(flood + quiet, 4, {})
    assert Counter(w.stream for w in admitted) == {"loud": 1, "a": 1, "b": 1, "c": 1}


def test_losses_are_shared_out_over_time() -> None:
    shed: Counter[str] = Counter()
    for turn in range(30):
        _, gone = admit([window(name, turn) for name in "abc"], 2, shed)
        shed.update(w.stream for w in gone)
    assert shed == {"a": 10, "b": 10, "c": 10}


windows = st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=30).map(
    lambda drawn: [window(stream, i, final=final) for i, (stream, final) in enumerate(drawn)]
)


@given(windows, st.integers(1, 40))
def test_every_window_is_admitted_or_shed_and_order_is_kept(drawn: list[SpeechWindow], limit: int) -> None:
    admitted, shed = admit(drawn, limit, {})
    assert len(admitted) == min(limit, len(drawn))
    assert sorted(admitted + shed, key=drawn.index) == drawn
    assert admitted == [w for w in drawn if w in admitted]
    if any(w.final for w in shed):
        assert all(w.final for w in admitted)
