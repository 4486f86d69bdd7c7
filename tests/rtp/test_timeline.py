"""Where sound of known time comes out when the network holds packets up and senders pause as they like."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from network import ALICE, PTIME_S, Sent, chunks, decoded, listen, names, receive, rtp, sound, talk
from network import speech as words

from serstream.config import RtpSettings
from serstream.rtp.datagrams import Datagrams
from serstream.rtp.streams import Streams
from serstream.rtp.timeline import HELD_UP_S, TIMESTAMP_SLACK_S
from serstream.types import AudioBlock, AudioChunk, Samples

SPEECH = words(60)
PATIENT = RtpSettings(silence_timeout_s=60.0)
AHEAD_S = HELD_UP_S + TIMESTAMP_SLACK_S + 0.1
"""By which gaps may bring stream time ahead of the clock."""


class Sender:
    """Speaks and pauses, and knows when it said what."""

    def __init__(self, spacing_s: float = 1e-4) -> None:
        """Packets that were held up arrive ``spacing_s`` apart."""
        self.sent: list[Sent] = []
        self.said: list[tuple[float, bytes]] = []
        """Seconds since the beginning, and mu-law."""
        self.now = 0.0
        self.route = 0.0
        """Seconds that every packet takes."""
        self._spacing = spacing_s
        self._number = 65_500
        self._ticks = 2**32 - 5000

    def speak(self, seconds: float, *, marker: bool = False, late: float = 0.0, stall: float = 0.0) -> None:
        """Packets of 20 ms, the first ``late``; at first nothing arrives for ``stall``, then all of it."""
        begin = self.now
        for i in range(round(seconds / PTIME_S)):
            payload = SPEECH[160 * len(self.said) :][:160]
            self.said.append((self.now, payload))
            self.put(
                payload, marker=marker and i == 0, at=max(self.now + (late if i == 0 else 0), begin + stall)
            )
            self._ticks += 160
            self.now += PTIME_S

    def pause(self, seconds: float, *, counted: bool = True) -> None:
        self.now += seconds
        self._ticks += round(8000 * seconds) if counted else 0

    def reroute(self, seconds: float) -> None:
        self.route = seconds

    def comfort_noise(self) -> None:
        self.put(b"\x40", payload_type=13)

    def padding(self) -> None:
        self.put(b"\0\0\0\4", padded=True)

    def put(
        self,
        payload: bytes,
        *,
        payload_type: int = 0,
        marker: bool = False,
        padded: bool = False,
        at: float | None = None,
    ) -> None:
        """A packet; none arrives before the one that was sent before it."""
        datagram = rtp(self._number, self._ticks, payload, payload_type=payload_type, marker=marker)
        arrived = 100 + self.route + (self.now if at is None else at)
        if padded:
            datagram = bytes([datagram[0] | 0x20]) + datagram[1:]
        self.sent.append(Sent(datagram, max(arrived, self.sent[-1].at + self._spacing if self.sent else 0.0)))
        self._number += 1

    def misplaced(self, line: Samples, tolerance_s: float = 0.0) -> list[float]:
        """When it said what the line does not have there."""
        return [round(said, 6) for said, payload in self.said if not _has(line, said, payload, tolerance_s)]


def _has(line: Samples, said: float, payload: bytes, tolerance_s: float) -> bool:
    begin, more = round(8000 * said), round(8000 * tolerance_s)
    return decoded(payload).tobytes() in line[max(0, begin - more) : begin + 160 + more].tobytes()


@pytest.mark.parametrize("late", [0.05, 0.08, 0.12, 0.2, 0.5, 1.5])
def test_a_word_that_comes_late_after_announced_silence_moves_nothing(late: float) -> None:
    sender = Sender()
    for number in range(20):
        sender.speak(1.0, marker=True, late=late if number % 4 == 1 else 0.0)
        sender.comfort_noise()
        sender.pause(0.6)
    line, lost = sound(listen(sender.sent, PATIENT))
    late_words = [round(1.6 * number, 6) for number in range(1, 20, 4)]
    assert all(any(word <= cut < word + late for word in late_words) for cut in sender.misplaced(line))
    assert lost == 0


def test_a_late_word_teaches_silence_to_wait() -> None:
    sender = Sender()
    for late in (0.0, 0.2, 0.2, 0.2, 0.2):
        sender.speak(0.4, marker=True, late=late)
        sender.comfort_noise()
        sender.pause(0.6)
    line, _ = sound(listen(sender.sent))
    cut = sender.misplaced(line)
    assert cut, "the beginning of the first late word"
    assert max(cut) < 1.4


@pytest.mark.parametrize("stall", [0.3, 0.8, 1.5, 3.0])
@pytest.mark.parametrize("marker", [True, False])
@pytest.mark.parametrize("spoken", [0.02, 0.5, 2.0])
@pytest.mark.parametrize("spacing_s", [1e-4, 0.014])
def test_a_stall_moves_nothing_even_before_a_pause(
    stall: float, marker: bool, spoken: float, spacing_s: float
) -> None:
    sender = Sender(spacing_s)
    sender.speak(2.0)
    for _ in range(3):
        sender.speak(spoken, marker=marker, stall=stall)
        sender.pause(2.0)
        sender.speak(2.5, marker=True)
    streams = Streams(PATIENT, 0.0)
    line, lost = sound(receive(streams, sender.sent))
    assert sender.misplaced(line) == []
    assert lost == 0
    assert streams.status().streams[0].resets == 0


@pytest.mark.parametrize("pause", [0.3, 0.8, 4.0, 30.0])
@pytest.mark.parametrize("jitter", [0.0, 0.01])
def test_a_pause_that_only_the_marker_tells_of_is_found(pause: float, jitter: float) -> None:
    """By the clock, so not better than the network keeps it."""
    rng = np.random.default_rng(3)
    sender = Sender()
    for _ in range(20):
        sender.speak(1.0, marker=True)
        sender.pause(pause, counted=False)
    sent = [Sent(packet.datagram, packet.at + rng.uniform(0, jitter)) for packet in sender.sent]
    line, lost = sound(listen(sent, PATIENT))
    assert sender.misplaced(line, 0.001 if jitter == 0 else 0.04) == []
    assert lost == 0


@pytest.mark.parametrize("first_is_lost", [False, True])
def test_a_hold_that_nothing_tells_of_is_found(first_is_lost: bool) -> None:
    sender = Sender()
    sender.speak(3.0)
    sender.pause(4.0, counted=False)
    after = len(sender.sent)
    sender.speak(3.0)
    if first_is_lost:
        del sender.sent[after], sender.said[after]
    streams = Streams(PATIENT, 0.0)
    line, _ = sound(receive(streams, sender.sent))
    assert sender.misplaced(line, 0.02 if first_is_lost else 0.005) == []
    assert streams.status().streams[0].resets == 1


def test_short_pauses_that_nothing_tells_of_are_made_up_for_together() -> None:
    sender = Sender()
    for _ in range(20):
        sender.speak(1.0)
        sender.pause(0.7, counted=False)
    line, _ = sound(listen(sender.sent))
    assert 1.0 < sender.now - 0.7 - len(line) / 8000 + 1.0 < 2.0, "no more than a second is missing"


@pytest.mark.parametrize("noise_s", [0.0, PTIME_S])
def test_silence_that_was_announced_but_not_counted_is_found(noise_s: float) -> None:
    sender = Sender()
    for _ in range(10):
        sender.speak(1.0)
        sender.comfort_noise()
        sender.pause(noise_s)
        sender.pause(0.8, counted=False)
    line, lost = sound(listen(sender.sent))
    assert sender.misplaced(line, 0.005) == []
    assert lost == 0


@pytest.mark.parametrize("late", [0.03, 0.05, 0.08])
@pytest.mark.parametrize(
    ("pause", "noise", "marker"),
    [(0.8, True, True), (0.8, True, False), (5.0, True, False), (5.0, False, True), (30.0, True, True)],
)
def test_a_pause_is_found_though_the_first_word_behind_it_is_a_little_late(
    late: float, pause: float, noise: bool, marker: bool
) -> None:
    """What was held up with it comes fast, as after a stall; what follows does not."""
    sender = Sender()
    sender.speak(2.0)
    if noise:
        sender.comfort_noise()
    sender.pause(pause, counted=False)
    begin = sender.now
    sender.speak(6.0, marker=marker, late=late)
    line, lost = sound(listen(sender.sent, PATIENT))
    assert all(said == pytest.approx(begin, abs=0.09) for said in sender.misplaced(line, 0.05))
    assert lost == 0


def test_jitter_makes_no_pause_of_a_marker_on_every_packet() -> None:
    """Some senders set it always."""
    rng = np.random.default_rng(7)
    sender = Sender()
    for _ in range(300):
        sender.speak(PTIME_S, marker=True, late=0.5 if rng.random() < 0.02 else rng.uniform(0, 0.01))
    line, lost = sound(listen(sender.sent))
    assert sender.misplaced(line) == []
    assert lost == 0


def test_a_route_that_grows_longer_moves_nothing() -> None:
    """Half a second in half a second, as a router's queue fills, and back."""
    sender = Sender()
    sender.speak(30.0)
    delays = np.interp(np.arange(1500), [400, 425, 900, 925], [0, 0.5, 0.5, 0])
    sent = [
        Sent(packet.datagram, packet.at + delay) for packet, delay in zip(sender.sent, delays, strict=True)
    ]
    streams = Streams(RtpSettings(), 0.0)
    line, lost = sound(receive(streams, sent))
    assert sender.misplaced(line) == []
    assert (lost, streams.status().streams[0].resets) == (0, 0)


@pytest.mark.parametrize("longer", [0.3, 0.8])
def test_a_longer_route_makes_no_loss_of_what_is_out_of_order(longer: float) -> None:
    """Nor waits it longer than a short one for what is lost."""
    sender = Sender()
    sender.speak(5.0)
    sender.reroute(longer)
    sender.speak(30.0)
    arriving = [
        Sent(packet.datagram, packet.at + (0.05 if number % 20 == 19 else 0.0))
        for number, packet in enumerate(sender.sent)
        if number != 1000
    ]
    streams = Streams(RtpSettings(), 0.0)
    events = receive(streams, arriving)
    (status,) = streams.status().streams
    assert status.lost <= 1 + 2, "one is missing, and the first late ones teach the buffer to wait"
    assert status.depth_ms < 100
    assert max(chunk.arrived - 100 - chunk.start / 8000 for chunk in chunks(events)) < longer + 0.15


@pytest.mark.parametrize("longer", [0.3, 0.9])
def test_streams_stay_in_their_lanes_when_the_route_grows_longer(longer: float) -> None:
    """What comes one by one costs many times as much."""
    arriving = [
        Sent(packet.datagram, packet.at + (longer if packet.at > 102 else 0.0))
        for ssrc in range(1, 17)
        for packet in talk(SPEECH[: 8000 * 6], ssrc=ssrc)
    ]
    events = listen(arriving)
    assert not [event for event in events if isinstance(event, AudioChunk) and event.arrived > 102.1 + longer]
    for name in names(events):
        np.testing.assert_array_equal(sound(events, name)[0], decoded(SPEECH[: 8000 * 6]))


def test_announced_silence_is_told_no_sooner_than_a_longer_route_brings_words() -> None:
    sender = Sender()
    sender.speak(2.0)
    sender.reroute(0.5)
    sender.speak(1.0)
    for _ in range(10):
        sender.speak(1.0, marker=True)
        sender.comfort_noise()
        sender.pause(0.6)
    line, _ = sound(listen(sender.sent))
    assert sender.misplaced(line) == []


@pytest.mark.parametrize("leap", [0.003, 0.01, 0.19, 0.79, 0.99])
@pytest.mark.parametrize("lost", [0, 3])
def test_gaps_do_not_run_ahead_of_the_clock(leap: float, lost: int) -> None:
    """However short the packets are, and however many come."""
    sent = [
        Sent(
            rtp((1 + lost) * max(0, i - 1) + i, round(44_100 * leap * i), b"\0\0", payload_type=11),
            100 + i / 500,
        )
        for i in range(2000)
    ]
    heard = chunks(listen(sent))
    assert sum(len(chunk.samples) for chunk in heard) / 44_100 < 4.0 + AHEAD_S
    assert heard[-1].start / 44_100 < 4.0 + AHEAD_S


@pytest.mark.parametrize("overflowed", [False, True])
def test_losses_do_not_run_ahead_of_the_clock(overflowed: bool) -> None:
    """Of many streams at once, whose sound goes side by side."""
    streams = Streams(PATIENT, 0.0)
    end = 0.0
    for i in range(200):
        number, now = (i if i < 5 else 40 * i), 100 + i * PTIME_S
        rows = [(rtp(number, 160 * number, SPEECH[:160], ssrc=ssrc), ALICE, now) for ssrc in range(20)]
        for event in streams.receive(Datagrams.of(rows), overflowed=overflowed):
            if isinstance(event, AudioBlock):
                end = max(end, *((start + event.pcm.shape[1]) / 8000 for start in event.starts))
            elif isinstance(event, AudioChunk):
                end = max(end, (event.start + len(event.samples)) / 8000)
    assert end < 4.0 + AHEAD_S


@pytest.mark.parametrize("jitter", [0.1, 0.4])
def test_jitter_around_pauses_moves_nothing(jitter: float) -> None:
    sender, random = Sender(), np.random.default_rng(1)
    for _ in range(60):
        sender.speak(1.0, marker=True)
        sender.pause(PTIME_S * random.integers(20, 80))
    at = np.maximum.accumulate([packet.at + random.uniform(0, jitter) for packet in sender.sent])
    sent = [Sent(packet.datagram, float(now)) for packet, now in zip(sender.sent, at, strict=True)]
    streams = Streams(PATIENT, 0.0)
    last = chunks(receive(streams, sent))[-1]
    assert (last.start + len(last.samples)) / 8000 == pytest.approx(sender.said[-1][0] + PTIME_S)
    assert streams.status().streams[0].resets == 0


def test_a_call_whose_beginning_was_held_up_is_heard_as_it_was_spoken() -> None:
    """Pauses and all."""
    sender = Sender()
    for _ in range(6):
        sender.speak(0.3, stall=HELD_UP_S - sender.now)
        sender.pause(0.7)
    sender.speak(2.0)
    streams = Streams(PATIENT, 0.0)
    line, lost = sound(receive(streams, sender.sent))
    assert sender.misplaced(line) == []
    assert (lost, streams.status().streams[0].resets) == (0, 0)


def test_long_pauses_are_no_new_timeline() -> None:
    """Of somebody who listens, and whose radio wakes up late."""
    sender = Sender()
    for _ in range(90):
        sender.speak(0.3, late=0.3)
        sender.pause(39.7)
    streams = Streams(PATIENT, 0.0)
    line, _ = sound(receive(streams, sender.sent))
    assert sender.misplaced(line) == []
    assert streams.status().streams[0].resets == 0


def test_leaps_that_lie_far_apart_are_no_new_timeline() -> None:
    """As when a route that has grown longer by and by is left in a pause, again and again."""
    sender = Sender()
    for _ in range(5):
        sender.speak(1.0)
        sender.pause(45.0)
        sender.reroute(sender.route - 0.4)
    streams = Streams(PATIENT, 0.0)
    line, _ = sound(receive(streams, sender.sent))
    assert sender.misplaced(line) == []
    assert streams.status().streams[0].resets == 0


def test_packets_of_padding_are_no_loss_and_delay_nothing() -> None:
    sender = Sender()
    for _ in range(20):
        sender.speak(0.2)
        sender.padding()
    streams = Streams(RtpSettings(), 0.0)
    events = receive(streams, sender.sent)
    line, lost = sound(events)
    assert sender.misplaced(line) == []
    status = streams.status()
    assert (lost, status.packets["lost"], status.dropped) == (0, 0, {})
    assert max(chunk.arrived - 100 - chunk.start / 8000 for chunk in chunks(events)) < 0.001


def test_packets_of_padding_begin_no_stream() -> None:
    sender = Sender()
    for _ in range(20):
        sender.padding()
    streams = Streams(RtpSettings(), 0.0)
    assert not receive(streams, sender.sent)
    assert streams.dropped == {"without sound, of no stream": 20}


@pytest.mark.parametrize("lost", [0, 1])
def test_stragglers_of_the_old_clock_do_not_restart_the_new_one(lost: int) -> None:
    """A mirror port sends the last packets before a change of codec again, 30 ms later."""
    old = talk(SPEECH[:8000])
    pcm = (np.sin(np.arange(16_000)) * 10_000).astype(">i2")
    new = [
        Sent(
            rtp(150 + i, 99 + 320 * i, pcm[320 * i : 320 * (i + 1)].tobytes(), payload_type=97),
            101 + i * PTIME_S,
        )
        for i in range(50)
    ]
    again = [Sent(packet.datagram, packet.at + 0.03) for packet in old[-5:]]
    streams = Streams(RtpSettings(payload_types={"97": "L16/16000"}), 0.0)
    wide = [
        chunk
        for chunk in chunks(receive(streams, [*old[: 50 - lost], *new, *again]))
        if chunk.sample_rate == 16_000
    ]
    assert [chunk.start for chunk in wide] == [16_000 + 320 * i for i in range(-lost, 50)]
    heard = np.concatenate([chunk.samples for chunk in wide[lost:]])
    np.testing.assert_allclose(heard, pcm / 32768, atol=1e-6)
    (status,) = streams.status().streams
    assert (status.duplicates, status.lost, status.resets) == (5, lost, 1)


def test_a_loss_at_a_change_of_clock_keeps_its_place() -> None:
    """It is told at the new rate, so that nothing jumps."""
    old = talk(SPEECH[:8000])
    pcm = bytes(2 * 882 * 50)
    new = [
        Sent(rtp(150 + i, 882 * i, pcm[1764 * i : 1764 * (i + 1)], payload_type=11), 101 + i * PTIME_S)
        for i in range(50)
    ]
    back = [
        Sent(rtp(200 + i, 160 * i, SPEECH[160 * i : 160 * (i + 1)]), 102 + i * PTIME_S) for i in range(50)
    ]
    streams = Streams(RtpSettings(), 0.0)
    heard = chunks(receive(streams, [*old[:-1], *new[:-2], *back]))
    ends = [(chunk.start + len(chunk.samples)) / chunk.sample_rate for chunk in heard]
    begins = [chunk.start / chunk.sample_rate for chunk in heard]
    np.testing.assert_allclose(begins[1:], ends[:-1], atol=1e-4)
    assert ends[-1] == pytest.approx(3.0, abs=1e-3)
    assert sum(chunk.lost / chunk.sample_rate for chunk in heard) == pytest.approx(0.06, abs=1e-3)


def _hesitate(sender: Sender) -> None:
    sender.pause(0.16, counted=False)
    sender.speak(0.5, marker=True)


Part = Callable[[Sender], None]
PARTS: list[Part] = [
    lambda sender: sender.speak(1.0),
    lambda sender: sender.speak(0.5, late=0.15),
    lambda sender: sender.speak(0.5, stall=0.19),
    lambda sender: sender.speak(0.5, stall=0.4),
    lambda sender: sender.speak(0.5, stall=1.3),
    lambda sender: sender.speak(0.5, marker=True, stall=0.6),
    _hesitate,
    lambda sender: sender.reroute(0.16),
    lambda sender: sender.reroute(0.5),
    lambda sender: sender.reroute(0.0),
    lambda sender: sender.pause(0.7),
    lambda sender: sender.pause(0.7, counted=False),
    lambda sender: sender.pause(1.5, counted=False),
    lambda sender: sender.padding(),
    lambda sender: sender.comfort_noise(),
]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(PARTS), min_size=1, max_size=8))
@example([lambda sender: sender.reroute(0.16), _hesitate])
def test_the_lanes_keep_the_same_time(parts: list[Part]) -> None:
    """In a crowd, or alone: the same sound at the same time, and the same jitter.

    Whole packets of 20 ms, so that all arrive together.
    """
    sender = Sender()
    for part in parts:
        sender.speak(0.3)
        part(sender)
    sender.speak(0.5)
    crowd = [
        packet
        for ssrc in range(1, 16)
        for packet in talk(SPEECH[: 160 * round(sender.now / PTIME_S)], ssrc=ssrc)
    ]
    alone = Streams(PATIENT, 0.0)
    crowded = Streams(PATIENT, 0.0)
    one = chunks(receive(alone, sender.sent))
    every = chunks(receive(crowded, [*crowd, *sender.sent]))
    at = next(i for i, stream in enumerate(crowded.status().streams) if stream.ssrc == 0xA11CE)
    status = crowded.status().streams[at]
    other = [chunk for chunk in every if chunk.stream == status.stream]
    for chunk, same in itertools.zip_longest(one, other):
        assert (chunk.start, chunk.lost) == (same.start, same.lost)
        np.testing.assert_array_equal(chunk.samples, same.samples)
    (expected,) = alone.status().streams
    assert (status.resets, status.jitter_ms, status.depth_ms) == (
        expected.resets,
        expected.jitter_ms,
        expected.depth_ms,
    )
