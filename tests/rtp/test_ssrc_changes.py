"""Who goes on under another SSRC, and who is another party."""

import numpy as np
import pytest
from network import (
    BOB,
    PTIME_S,
    Sent,
    chunks,
    decoded,
    listen,
    names,
    receive,
    sound,
    starts,
    talk,
)
from network import speech as words

from serstream.config import RtpSettings
from serstream.rtp.streams import Streams

SPEECH = words(2)


def turns(speech: bytes, ssrc: int, at: list[float], n_bytes: int = 8000) -> list[Sent]:
    """Silence suppression: a part of the speech at each time, and nothing between."""
    return [
        packet
        for i, start in enumerate(at)
        for packet in talk(
            speech[i * n_bytes : (i + 1) * n_bytes],
            ssrc=ssrc,
            start=100 + start,
            sequence_number=100 + i * n_bytes // 160,
            timestamp=5000 + round(start * 8000),
        )
    ]


def spoken(events: list, stream: str) -> np.ndarray:
    """The sound of a stream without the silence between its turns."""
    return np.concatenate([chunk.samples for chunk in chunks(events, stream) if chunk.samples.any()])


@pytest.mark.parametrize(
    "by",
    [
        {"roles": {"0xA": "customer", "0xB": "agent"}},
        {"roles": {"0xA": "customer", "10.0.0.0/8": "agent"}},
        {"roles": {"0xB": "agent"}, "role": "customer"},
        {"parties": ("customer", "agent")},
    ],
)
def test_parties_that_take_turns_from_one_port_keep_their_roles(by: dict) -> None:
    """Each falls silent before the other speaks, the last times for longer than a stream lives."""
    customer, agent = words(4, seed=2), words(4, seed=3)
    arriving = [
        *turns(customer, 0xA, [0, 2.4, 4.8, 10.8]),
        *turns(agent, 0xB, [1.2, 3.6, 6.2, 8.4]),
    ]
    streams = Streams(RtpSettings(call="one", silence_timeout_s=3.0, **by), 0.0)
    events = [*receive(streams, arriving), *streams.close()]
    heard = {
        role: np.concatenate([spoken(events, one.stream) for one in starts(events) if one.role == role])
        for role in ("customer", "agent")
    }
    assert len(starts(events)) > 2, "one was silent for too long"
    np.testing.assert_array_equal(heard["customer"], decoded(customer))
    np.testing.assert_array_equal(heard["agent"], decoded(agent))
    assert not streams.dropped


@pytest.mark.parametrize("phase_ms", [1, 5, 15, 25, 35])
@pytest.mark.parametrize(("first_bytes", "second_bytes"), [(320, 80), (480, 160), (160, 80), (160, 480)])
def test_parties_of_one_port_and_unlike_packets_are_two_streams(
    first_bytes: int, second_bytes: int, phase_ms: int
) -> None:
    """Several packets of one party fit between two of the other."""
    streams = Streams(RtpSettings(), 0.0)
    second = words(2, seed=2)
    arriving = [
        *talk(SPEECH, n_bytes=first_bytes),
        *talk(second, ssrc=7, n_bytes=second_bytes, start=100.5 + phase_ms / 1000),
    ]
    events = receive(streams, arriving)
    assert len(names(events)) == 2
    for name, payload in zip(names(events), (SPEECH, second), strict=True):
        line = sound(events, name)[0]
        np.testing.assert_array_equal(line, decoded(payload)[: len(line)])
        assert len(line) > len(payload) - 480
    assert not streams.dropped


@pytest.mark.parametrize("n_bytes", [80, 160, 480])
@pytest.mark.parametrize("n_at_once", [0, 3, 20])
@pytest.mark.parametrize("pause_s", [0.02, 0.5])
def test_a_sender_that_changes_its_ssrc_is_heard_whole(n_bytes: int, n_at_once: int, pause_s: float) -> None:
    """However long its packets are, and however many of them come at once."""
    first = talk(SPEECH[:7680], n_bytes=480)
    begin = first[-1].at + pause_s
    second = [
        Sent(packet.datagram, max(packet.at, begin + n_at_once * 0.02))
        for packet in talk(SPEECH[7680:], ssrc=7, start=begin, n_bytes=n_bytes)
    ]
    events = listen([*first, *second])
    assert len(names(events)) == 1
    heard = spoken(events, names(events)[0])
    np.testing.assert_array_equal(heard, decoded(SPEECH)[: len(heard)])
    assert len(heard) > len(SPEECH) - n_bytes


def test_what_comes_behind_a_loss_is_heard_of_a_sender_that_changes_its_ssrc() -> None:
    first = talk(SPEECH[:8000])
    second = talk(SPEECH[8000:], ssrc=7, start=101.0)
    del second[2]
    events = listen([*first, *second])
    assert len(names(events)) == 1
    line, n_lost = sound(events)
    assert n_lost == 160
    received = np.arange(len(line)) // 160 != 52
    np.testing.assert_array_equal(line[received], decoded(SPEECH)[received])


def test_a_prompt_under_another_ssrc_interrupts_a_stream_without_loss() -> None:
    before, prompt, after = SPEECH[:8000], words(1, seed=2), SPEECH[8000:]
    streams = Streams(RtpSettings(), 0.0)
    arriving = [
        *talk(before),
        *talk(prompt, ssrc=7, start=101.0),
        *talk(after, start=102.0, sequence_number=900, timestamp=77),
    ]
    events = receive(streams, arriving)
    assert len(names(events)) == 1
    np.testing.assert_array_equal(sound(events)[0], decoded(before + prompt + after))
    assert not streams.dropped


def test_stragglers_of_an_ssrc_that_was_left_begin_no_stream() -> None:
    """Its last packets come 80 ms late, among those of the new one; another change follows."""
    first, second, third = SPEECH[:8000], words(1, seed=2), SPEECH[8000:]
    on_time, late = talk(first)[:-3], talk(first)[-3:]
    streams = Streams(RtpSettings(), 0.0)
    arriving = [
        *on_time,
        *(Sent(packet.datagram, 101.081 + PTIME_S * i) for i, packet in enumerate(late)),
        *talk(second, ssrc=7, start=101.0, sequence_number=9000),
        *talk(third, ssrc=8, start=102.0, sequence_number=300),
    ]
    events = receive(streams, arriving)
    assert len(names(events)) == 1
    heard = decoded(first[: -3 * 160] + second + third)
    np.testing.assert_array_equal(spoken(events, names(events)[0]), heard)
    assert streams.dropped == {"of an SSRC that has ended": 3}


@pytest.mark.parametrize("n_packets", [5, 8, 12, 20])
def test_a_short_word_under_another_ssrc_costs_little_of_what_follows(n_packets: int) -> None:
    """Who returns at once is taken for a straggler, and heard a moment later."""
    word = words(n_packets * PTIME_S, seed=2)
    streams = Streams(RtpSettings(), 0.0)
    arriving = [
        *talk(SPEECH[:8000]),
        *talk(word, ssrc=7, start=101.0),
        *talk(SPEECH[8000:], start=101.01 + n_packets * PTIME_S, sequence_number=150, timestamp=13_000),
    ]
    events = receive(streams, arriving)
    n_dropped = max(0, 13 - n_packets)
    assert streams.dropped["of an SSRC that has ended"] == n_dropped
    assert len(names(events)) == 1
    heard = decoded(SPEECH[:8000] + word + SPEECH[8000 + n_dropped * 160 :])
    np.testing.assert_array_equal(spoken(events, names(events)[0]), heard)


def test_a_party_may_change_its_ssrc_when_both_are_there() -> None:
    streams = Streams(RtpSettings(parties=("customer", "agent")), 0.0)
    arriving = [
        *talk(SPEECH[:8000], ssrc=1),
        *talk(SPEECH, ssrc=2, sender=BOB, start=100.1),
        *talk(SPEECH[8000:], ssrc=3, start=101.0),
    ]
    events = receive(streams, arriving)
    assert [start.role for start in starts(events)] == ["customer", "agent"]
    np.testing.assert_array_equal(sound(events, names(events)[0])[0], decoded(SPEECH))
