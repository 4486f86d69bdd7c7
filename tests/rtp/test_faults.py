"""The fault matrix: what must hold for each thing that networks and senders do."""

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from network import (
    ALICE,
    PTIME_S,
    STRANGER,
    Sent,
    chunks,
    decoded,
    ends,
    listen,
    names,
    receive,
    rtp,
    sound,
    talk,
)
from network import speech as words

from serstream.config import RtpSettings
from serstream.rtp.datagrams import Datagrams
from serstream.rtp.streams import Streams
from serstream.types import AudioChunk

SECONDS = 10
SPEECH = words(SECONDS)
HEARD = decoded(SPEECH)
BYSTANDER = words(SECONDS, seed=2)


def lossy(rng: np.random.Generator, share: float, burst: int) -> np.ndarray:
    """Which packets are lost; never the first two or the last, so that stream time is comparable."""
    n = len(SPEECH) // 160
    lost = np.zeros(n, bool)
    while lost.mean() < share:
        begin = rng.integers(2, n - 1 - burst)
        lost[begin : begin + burst] = True
    return lost


@pytest.mark.parametrize("burst", [1, 8])
@pytest.mark.parametrize("share", [0.01, 0.05, 0.2, 0.5])
def test_loss_is_counted_exactly_and_moves_nothing(share: float, burst: int) -> None:
    lost = lossy(np.random.default_rng(5), share, burst)
    sent = [packet for packet, gone in zip(talk(SPEECH), lost, strict=True) if not gone]
    events = listen([*sent, *talk(BYSTANDER, ssrc=7)])
    main, other = names(events)
    line, n_lost = sound(events, main)
    assert len(line) == len(HEARD)
    assert n_lost == 160 * lost.sum()
    received = ~np.repeat(lost, 160)
    np.testing.assert_array_equal(line[received], HEARD[received])
    np.testing.assert_array_equal(sound(events, other)[0], decoded(BYSTANDER))
    assert sound(events, other)[1] == 0


def test_a_loss_delays_by_the_least_depth_and_only_there() -> None:
    sent = talk(SPEECH)
    del sent[250]
    streams = Streams(RtpSettings(jitter_min_ms=60), 0.0)
    delays = []
    for packet in sent:
        for chunk in chunks(receive(streams, [packet], settle_s=PTIME_S - 0.001, tick_s=0.001)):
            delays.append((chunk.start // 160, packet.at - (100 + chunk.start / 8000)))
    late = [delay for number, delay in delays if 250 <= number <= 253]
    assert max(late) <= 0.060 + PTIME_S
    assert max(delay for number, delay in delays if number > 256) < 0.001


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 10))
def test_reordering_within_the_depth_loses_nothing(seed: int, distance: int) -> None:
    rng = np.random.default_rng(seed)
    sent = talk(SPEECH[: 160 * 200])
    moved = [
        Sent(packet.datagram, packet.at + (PTIME_S * rng.integers(0, distance + 1) if i > 1 else 0))
        for i, packet in enumerate(sent[:-1])
    ] + [sent[-1]]
    events = listen(moved, RtpSettings(jitter_min_ms=400, jitter_max_ms=400))
    line, n_lost = sound(events)
    assert n_lost == 0
    np.testing.assert_array_equal(line, HEARD[: len(line)])
    assert len(line) == 160 * 200


def test_reordering_beyond_the_depth_teaches_it() -> None:
    """Every 20th packet comes 10 packets late: the first are lost, then the depth has grown."""
    sent = [
        Sent(packet.datagram, packet.at + (10.5 * PTIME_S if i % 20 == 10 else 0))
        for i, packet in enumerate(talk(SPEECH))
    ]
    streams = Streams(RtpSettings(), 0.0)
    events = receive(streams, sent)
    status = streams.status().streams[0]
    line, n_lost = sound(events)
    assert len(line) == len(HEARD)
    assert n_lost == 160 * status.lost
    assert status.late == status.lost <= 2
    assert status.duplicates == 0


def test_duplicates_are_dropped_and_counted() -> None:
    sent = talk(SPEECH)
    doubled = [*sent, *(Sent(packet.datagram, packet.at + 0.03) for packet in sent[10:400])]
    streams = Streams(RtpSettings(), 0.0)
    line, n_lost = sound(receive(streams, doubled))
    np.testing.assert_array_equal(line, HEARD)
    assert n_lost == 0
    assert streams.status().streams[0].duplicates == 390


def test_jitter_of_200_ms_is_ridden_out_and_forgotten() -> None:
    rng = np.random.default_rng(6)
    packets = talk(words(60))
    sent = [
        Sent(packet.datagram, packet.at + (rng.uniform(0, 0.2) if 500 < i < 1500 else 0.0))
        for i, packet in enumerate(packets)
    ]
    streams = Streams(RtpSettings(), 0.0)
    events = receive(streams, sent[:1500])
    assert 0.1 < streams.status().streams[0].depth_ms / 1000 <= 0.4
    events += receive(streams, sent[1500:])
    line, n_lost = sound(events)
    assert len(line) == 160 * len(packets)
    assert n_lost <= 0.01 * len(line)
    after = [chunk for chunk in chunks(events) if chunk.start > 160 * 1600]
    assert max(abs(chunk.arrived - 100 - chunk.start / 8000) for chunk in after) < 0.001
    assert streams.status().streams[0].depth_ms == 40


@pytest.mark.parametrize("n_bytes", [80, 160])
@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_pieces_equal_whole_under_any_faults(n_bytes: int, seed: int, crowded: bool) -> None:
    """However arrivals are batched, alone or in a crowd that takes the lanes, the same sound comes out."""
    rng = np.random.default_rng(seed)
    sent = []
    payload = SPEECH[: n_bytes * 150]
    for i, packet in enumerate(talk(payload, sequence_number=65500, timestamp=2**32 - 5000, n_bytes=n_bytes)):
        for _ in range(rng.choice([0, 1, 2], p=[0.1, 0.85, 0.05]) if i > 1 else 1):
            delay = rng.choice([0, 0.005, 0.05], p=[0.8, 0.15, 0.05]) if i > 1 else 0
            sent.append(Sent(packet.datagram, packet.at + delay))
    crowd = [
        packet
        for ssrc in range(1, 16)
        for packet in talk(BYSTANDER[: len(payload)], ssrc=ssrc, n_bytes=n_bytes)
    ]
    steady = RtpSettings(latch="off", jitter_min_ms=300, jitter_max_ms=300)
    whole = sound(listen(sent, steady))
    streams = Streams(steady, 0.0)
    events = [*receive(streams, [*sent, *crowd] if crowded else sent, tick_s=0.03), *streams.close()]
    main = next(chunk.stream for chunk in chunks(events) if np.array_equal(chunk.samples[:80], HEARD[:80]))
    pieces = sound(events, main)
    assert pieces[1] == whole[1]
    np.testing.assert_array_equal(pieces[0], whole[0])


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 2))
def test_what_our_own_socket_has_dropped_is_not_waited_for(seed: int, slot_packets: int) -> None:
    """Whoever loses packets that way stays in its lane: every packet is heard the moment it is received."""
    rng = np.random.default_rng(seed)
    n_streams, n_packets = 64, 40
    payloads = [words(2, seed=ssrc)[: 160 * n_packets] for ssrc in range(n_streams)]
    lost = rng.random((n_streams, n_packets)) < 0.3
    lost[:, :4] = lost[:, -1] = False
    calls = [talk(payload, ssrc=ssrc) for ssrc, payload in enumerate(payloads)]
    streams = Streams(RtpSettings(), 0.0)
    events = []
    for begin in range(0, n_packets, slot_packets):
        arriving = [
            (calls[ssrc][i].datagram, ALICE, calls[ssrc][i].at)
            for i in range(begin, min(begin + slot_packets, n_packets))
            for ssrc in range(n_streams)
            if not lost[ssrc, i]
        ]
        events += streams.receive(Datagrams.of(arriving), overflowed=begin >= 4)
    assert len(names(events)) == n_streams
    for ssrc, name in enumerate(names(events)):
        line, n_lost = sound(events, name)
        assert n_lost == 160 * lost[ssrc].sum()
        received = ~np.repeat(lost[ssrc], 160)
        np.testing.assert_array_equal(line[received], decoded(payloads[ssrc])[received])
        assert not line[~received].any()
    assert [s.lost for s in streams.status().streams] == lost.sum(axis=1).tolist()


def test_numbers_wrap() -> None:
    line, n_lost = sound(listen(talk(SPEECH, sequence_number=65530, timestamp=2**32 - 1000)))
    np.testing.assert_array_equal(line, HEARD)
    assert n_lost == 0


@pytest.mark.parametrize("drift", [200e-6, -200e-6])
def test_an_hour_of_clock_drift(drift: float) -> None:
    """Stream time is the sender's; neither sound is lost nor delay grown."""
    streams = Streams(RtpSettings(), 0.0)
    packets = talk(bytes(160 * 180_000))
    position = lost = 0
    worst = 0.0
    for first in range(0, len(packets), 1000):
        arriving = [
            (packet.datagram, ALICE, 100 + (packet.at - 100) * (1 + drift))
            for packet in packets[first : first + 1000]
        ]
        for chunk in chunks(streams.receive(Datagrams.of(arriving))):
            assert chunk.start == position
            position += len(chunk.samples)
            lost += chunk.lost
            worst = max(worst, abs(chunk.arrived - 100 - chunk.start / 8000 * (1 + drift)))
    assert lost == 0
    assert position == 160 * 180_000
    assert worst < 0.001
    assert streams.status().streams[0].depth_ms == 40


@pytest.mark.parametrize("pause_s", [0.02, 0.5])
def test_another_ssrc_of_the_same_sender_goes_on(pause_s: float) -> None:
    first = talk(SPEECH[: 160 * 100])
    second = talk(
        SPEECH[160 * 100 : 160 * 200],
        ssrc=0xB0B,
        sequence_number=9,
        timestamp=77,
        start=first[-1].at + pause_s,
    )
    events = listen([*first, *second])
    assert len(names(events)) == 1
    line, n_lost = sound(events)
    assert n_lost == 0
    np.testing.assert_array_equal(line[: 160 * 100], HEARD[: 160 * 100])
    np.testing.assert_array_equal(line[-160 * 100 :], HEARD[160 * 100 : 160 * 200])
    assert abs(len(line) / 8000 - (second[-1].at + PTIME_S - 100)) < 0.02


def test_two_ssrcs_of_one_sender_at_a_time_are_two_streams() -> None:
    events = listen([*talk(SPEECH), *talk(BYSTANDER, ssrc=7)])
    assert len(names(events)) == 2
    for name, payload in zip(names(events), (SPEECH, BYSTANDER), strict=True):
        np.testing.assert_array_equal(sound(events, name)[0], decoded(payload))


@pytest.mark.parametrize("n_bytes", [80, 160])
@pytest.mark.parametrize("n_packets", [2, 100])
@pytest.mark.parametrize("twice", [False, True])
def test_what_an_old_route_brings_all_at_once_moves_nothing(
    twice: bool, n_packets: int, n_bytes: int
) -> None:
    """Over two seconds late, or a second time, when more than a hundred packets have passed it."""
    sent = talk(SPEECH, n_bytes=n_bytes)
    old = range(100, 100 + n_packets)
    at = sent[220 + n_packets].at
    sent += [Sent(sent[i].datagram, at + 0.001 + 1e-5 * i) for i in old]
    streams = Streams(RtpSettings(), 0.0)
    line, n_lost = sound(receive(streams, [packet for i, packet in enumerate(sent) if twice or i not in old]))
    expected = HEARD.copy()
    if not twice:
        where = slice(100 * n_bytes, (100 + n_packets) * n_bytes)
        expected[where] = line[where]
    np.testing.assert_array_equal(line, expected)
    n = 0 if twice else n_packets
    (status,) = streams.status().streams
    assert (n_lost, status.lost, status.late) == (n * n_bytes, n, n)
    assert (status.duplicates, status.resets) == (n_packets - n, 0)


@pytest.mark.parametrize("jump", [2**30, -(2**30), -1600])
def test_stragglers_of_an_old_timeline_do_not_end_the_new_one(jump: int) -> None:
    first = talk(SPEECH[: 160 * 100])
    second = talk(
        SPEECH[160 * 100 :], sequence_number=200, timestamp=5000 + 16_000 + jump, start=first[-1].at + PTIME_S
    )
    again = [Sent(packet.datagram, second[3].at + 0.001 + 1e-5 * i) for i, packet in enumerate(first[-5:])]
    streams = Streams(RtpSettings(), 0.0)
    line, _ = sound(receive(streams, [*first, *second, *again]))
    np.testing.assert_array_equal(line, HEARD)
    (status,) = streams.status().streams
    assert (status.duplicates, status.resets) == (5, 1)


@pytest.mark.parametrize("pause_s", [0.0, 3.0])
@pytest.mark.parametrize("noise", [False, True])
def test_a_recording_that_is_sent_anew_is_heard_anew(noise: bool, pause_s: float) -> None:
    """With its old numbers and timestamps; it takes a second to tell it from what the network held up."""
    once = talk(SPEECH[: 160 * 250])
    if noise:
        once.append(Sent(rtp(350, 5000 + 160 * 250, b"\x40", payload_type=13), once[-1].at + PTIME_S))
    events = listen([*once, *(Sent(packet.datagram, packet.at + 5.1 + pause_s) for packet in once)])
    line, _ = sound(events)
    assert len(names(events)) == 1
    np.testing.assert_array_equal(np.trim_zeros(line, "b")[-160 * 190 :], HEARD[160 * 60 : 160 * 250])


@pytest.mark.parametrize("sequence_number", [40_000, 1050, 1001])
@pytest.mark.parametrize("jump", [0, 2**30, -(2**30)])
def test_sequence_reset_goes_on(jump: int, sequence_number: int) -> None:
    """Also to numbers that have passed a moment ago."""
    first = talk(SPEECH[: 160 * 100], sequence_number=1000)
    second = talk(
        SPEECH[160 * 100 : 160 * 200],
        sequence_number=sequence_number,
        timestamp=5000 + 160 * 100 + jump,
        start=first[-1].at + PTIME_S,
    )
    events = listen([*first, *second])
    assert len(names(events)) == 1
    line, n_lost = sound(events)
    np.testing.assert_array_equal(line, HEARD[: 160 * 200])
    assert n_lost == 0


@pytest.mark.parametrize("pause_s", [0.02, 3.0])
@pytest.mark.parametrize("jump", [2**30, -(2**30), 10**6])
def test_timestamp_jump_goes_on_by_the_clock(jump: int, pause_s: float) -> None:
    first = talk(SPEECH[: 160 * 100])
    second = talk(
        SPEECH[160 * 100 : 160 * 200],
        sequence_number=200,
        timestamp=5000 + 16_000 + jump,
        start=first[-1].at + pause_s,
    )
    events = listen([*first, *second])
    assert len(names(events)) == 1
    line, n_lost = sound(events)
    np.testing.assert_array_equal(line[-160 * 100 :], HEARD[160 * 100 : 160 * 200])
    assert n_lost == 0
    assert abs(len(line) / 8000 - (second[-1].at + PTIME_S - 100)) < 0.02


def test_dtx_is_silence_not_loss() -> None:
    first = talk(SPEECH[: 160 * 100])
    second = talk(
        SPEECH[160 * 100 : 160 * 200],
        sequence_number=200,
        timestamp=5000 + 16_000 + 8000,
        start=first[-1].at + PTIME_S + 1.0,
    )
    line, n_lost = sound(listen([*first, *second]))
    assert n_lost == 0
    assert len(line) == 160 * 200 + 8000
    assert not line[16_000:24_000].any()
    np.testing.assert_array_equal(line[24_000:], HEARD[16_000:32_000])


def test_comfort_noise_is_silence_that_flows_before_the_next_word() -> None:
    first = talk(SPEECH[: 160 * 100])
    noise = Sent(rtp(200, 5000 + 16_000, b"\x40", payload_type=13), first[-1].at + PTIME_S)
    second = talk(
        SPEECH[160 * 100 : 160 * 200],
        sequence_number=201,
        timestamp=5000 + 16_000 + 16_000,
        start=first[-1].at + PTIME_S + 2.0,
    )
    streams = Streams(RtpSettings(), 0.0)
    before = receive(streams, [*first, noise])
    assert sum(len(chunk.samples) for chunk in chunks(before)) >= 16_000 + 7000
    line, n_lost = sound([*before, *receive(streams, second)])
    assert n_lost == 0
    assert len(line) == 160 * 200 + 16_000
    np.testing.assert_array_equal(line[32_000:], HEARD[16_000:32_000])


@pytest.mark.parametrize("last", [bytes(2), bytes(12), bytes(22)])
def test_a_silence_descriptor_of_g729_begins_silence_even_behind_sound(last: bytes) -> None:
    """RFC 3551, 4.5.6: it may be in a packet of its own, or at the end of one with sound."""
    sent = [
        Sent(rtp(i, 160 * i, bytes(20) if i < 50 else last, payload_type=18), 100 + PTIME_S * i)
        for i in range(51)
    ]
    streams = Streams(RtpSettings(), 0.0)
    line, n_lost = sound(receive(streams, sent))
    assert len(line) >= 160 * 50 + 7000, "silence is told while it lasts"
    assert n_lost == 0
    again = Sent(rtp(51, 160 * 100, bytes(20), payload_type=18), 102.0)
    (chunk,) = chunks(receive(streams, [again]))[-1:]
    assert chunk.start + len(chunk.samples) == 160 * 101


def test_dtmf_in_the_middle_of_speech_is_not_heard() -> None:
    """Ten event packets take 200 ms of the sender's time and ten sequence numbers (RFC 4733)."""
    first = talk(SPEECH[: 160 * 100])
    event_timestamp = 5000 + 16_000
    events_sent = [
        Sent(
            rtp(200 + i, event_timestamp, struct.pack("!BBH", 5, 10, 160 * (i + 1)), payload_type=101),
            first[-1].at + PTIME_S * (i + 1),
        )
        for i in range(10)
    ]
    second = talk(
        SPEECH[160 * 100 : 160 * 200],
        sequence_number=210,
        timestamp=event_timestamp + 1600,
        start=first[-1].at + PTIME_S * 11,
    )
    for types in ({}, {"101": "telephone-event/8000"}):
        events = listen([*first, *events_sent, *second], RtpSettings(payload_types=types))
        line, n_lost = sound(events)
        assert n_lost == 0
        assert len(line) == 160 * 200 + 1600
        assert not line[16_000:17_600].any()
        np.testing.assert_array_equal(line[17_600:], HEARD[16_000:32_000])


def test_a_strangers_packets_change_no_event() -> None:
    sent = talk(SPEECH)
    attack = []
    for i in range(200, 400):
        for sender in (STRANGER, ALICE[:2] + b"\x00\x09" + ALICE[4:]):
            datagram = rtp(100 + i, 5000 + 160 * i, words(0.02, seed=i))
            attack.append(Sent(datagram, 100 + i * PTIME_S - 0.001, sender))
        bye = struct.pack("!BBHI", 0x81, 203, 1, 0xA11CE)
        attack.append(Sent(bye, 100 + i * PTIME_S - 0.001, STRANGER))
    streams = Streams(RtpSettings(), 0.0)
    heard = [*receive(streams, [*sent, *attack]), *streams.close()]
    alone = listen(sent)
    assert [type(event) for event in heard] == [type(event) for event in alone]
    for one, other in zip(heard, alone, strict=True):
        if isinstance(one, AudioChunk):
            assert isinstance(other, AudioChunk)
            assert (one.start, one.lost, one.arrived) == (other.start, other.lost, other.arrived)
            np.testing.assert_array_equal(one.samples, other.samples)
        else:
            assert one == other
    assert sum(streams.dropped.values()) == 400


def test_silence_ends_a_stream_with_what_still_waited() -> None:
    sent = talk(SPEECH[: 160 * 50])
    hole = [*sent[:48], sent[49]]
    events = receive(Streams(RtpSettings(silence_timeout_s=1.0), 0.0), hole, settle_s=2.0)
    assert ends(events) == {names(events)[0]: "timeout"}
    assert sound(events)[1] == 160
    assert len(sound(events)[0]) == 160 * 50
