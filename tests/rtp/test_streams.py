import ipaddress
import logging
import pickle
import re
import struct

import numpy as np
import pytest
from fuzz import SETTINGS, Monitor, storm
from hypothesis import given, settings
from hypothesis import strategies as st
from network import (
    ALICE,
    BOB,
    PTIME_S,
    STRANGER,
    Sent,
    bye,
    chunks,
    decoded,
    ends,
    listen,
    names,
    receive,
    rtp,
    sound,
    starts,
    talk,
)
from network import speech as words

from serstream.config import RtpSettings
from serstream.rtp.datagrams import Datagrams, sender_at
from serstream.rtp.stream_log import LINES
from serstream.rtp.streams import Streams
from serstream.service.log_limit import GrowingPauses

SPEECH = words(2)


def test_bye_ends_a_stream_and_stray_packets_begin_none() -> None:
    sent = talk(SPEECH)
    streams = Streams(RtpSettings(), 0.0)
    events = receive(streams, sent[:90], settle_s=0)
    next_port = sender_at(ipaddress.ip_address("10.0.0.1"), 20_001)
    events += streams.receive_rtcp(Datagrams.of([(bye(0xA11CE), next_port, sent[90].at)]))
    events += receive(streams, sent[90:], settle_s=0)
    assert ends(events) == {names(events)[0]: "bye"}
    assert len(sound(events)[0]) == 160 * 90
    assert streams.dropped == {"of an SSRC that has ended": 10}


def test_bye_from_port_0_ends_nothing() -> None:
    """No program sends from it, but whoever writes the packets can."""
    streams = Streams(RtpSettings(), 0.0)
    receive(streams, talk(SPEECH), settle_s=0)
    port_0 = sender_at(ipaddress.ip_address("10.0.0.1"), 0)
    assert not streams.receive_rtcp(Datagrams.of([(bye(0xA11CE), port_0, 102.0)]))
    assert len(streams) == 1


def test_port_reuse_begins_a_new_stream() -> None:
    first = talk(SPEECH[:8000])
    ended = [*first, Sent(bye(0xA11CE), first[-1].at + 0.01)]
    second = talk(SPEECH[8000:], start=first[-1].at + 3.0, ssrc=5)
    events = listen([*ended, *second])
    assert [start.call for start in starts(events)] == ["rtp-5004-1", "rtp-5004-2"]
    np.testing.assert_array_equal(sound(events, "rtp-5004-2")[0], decoded(SPEECH[8000:]))
    assert chunks(events, "rtp-5004-2")[0].start == 0


def test_streams_and_calls_are_named_after_the_port() -> None:
    (start,) = starts(listen(talk(SPEECH), RtpSettings(name="frankfurt")))
    assert (start.stream, start.call) == ("frankfurt-1", "frankfurt-1")


def test_packets_are_counted_by_fate_beyond_the_end_of_their_streams() -> None:
    sent = talk(SPEECH)
    lost, duplicate = sent[10], sent[20]
    streams = Streams(RtpSettings(silence_timeout_s=1.0), 0.0)
    receive(streams, [*(one for one in sent if one is not lost), duplicate], settle_s=2)
    receive(streams, talk(SPEECH, ssrc=2, start=200.0))
    status = streams.status()
    assert len(status.streams) == 1, "the first is over"
    assert status.packets == {
        "received": 2 * len(sent),
        "lost": 1,
        "late": 0,
        "duplicates": 1,
        "undecodable": 0,
    }


def test_a_sender_report_gives_the_wall_clock() -> None:
    sent = talk(SPEECH)
    utc = 1_800_000_000.25
    report = struct.pack(
        "!BBHIIIIII", 0x80, 200, 6, 0xA11CE, int(utc) + 2_208_988_800, 1 << 30, 5000 - 800, 0, 0
    )
    streams = Streams(RtpSettings(), 1_800_000_000.0 - 100)
    streams.receive_rtcp(Datagrams.of([(report, ALICE, 99.9)]))
    events = receive(streams, sent)
    assert starts(events)[0].started_at == pytest.approx(utc + 0.1)


def test_without_a_report_the_arrival_counts() -> None:
    events = receive(Streams(RtpSettings(), 1000.0), talk(SPEECH))
    assert starts(events)[0].started_at == pytest.approx(1100.0)


def test_roles_by_network_and_ssrc() -> None:
    settings = RtpSettings(
        role="customer",
        roles={"10.0.0.0/8": "unknown", "10.0.0.2/32": "agent", "0xBEEF": "agent"},
    )
    outside = sender_at(ipaddress.ip_address("192.0.2.1"), 1)
    arriving = [
        *talk(SPEECH, ssrc=1, sender=ALICE),
        *talk(SPEECH, ssrc=2, sender=BOB, start=100.001),
        *talk(SPEECH, ssrc=0xBEEF, sender=ALICE, start=100.002),
        *talk(SPEECH, ssrc=4, sender=outside, start=100.003),
    ]
    assert [start.role for start in starts(listen(arriving))] == ["unknown"] * 4
    assert [start.role for start in starts(listen(arriving, settings))] == [
        "unknown",
        "agent",
        "agent",
        "customer",
    ]


def test_parties_make_one_call_after_the_other() -> None:
    settings = RtpSettings(parties=("customer", "agent"), silence_timeout_s=1.0)
    one_call = [*talk(SPEECH, ssrc=1), *talk(SPEECH, ssrc=2, sender=BOB, start=100.1)]
    next_call = [*talk(SPEECH, ssrc=3, start=110), *talk(SPEECH, ssrc=4, sender=BOB, start=110.1)]
    events = listen([*one_call, *next_call], settings)
    assert [(start.call, start.role) for start in starts(events)] == [
        ("rtp-5004-call-1", "customer"),
        ("rtp-5004-call-1", "agent"),
        ("rtp-5004-call-2", "customer"),
        ("rtp-5004-call-2", "agent"),
    ]


def test_names_carry_no_address() -> None:
    named = [(start.stream, start.source) for start in starts(listen(talk(SPEECH)))]
    assert named == [("rtp-5004-1", "rtp:5004")]


def test_allow_list_refuses_and_counts() -> None:
    streams = Streams(RtpSettings(allow=("10.0.0.0/24", "2001:db8::/32")), 0.0)
    events = receive(streams, [*talk(SPEECH), *talk(SPEECH, ssrc=9, sender=STRANGER)])
    assert len(names(events)) == 1
    assert streams.dropped == {"from outside of 'allow'": 100}


def test_latch_of_the_port_refuses_a_second_sender_until_the_first_is_gone() -> None:
    streams = Streams(RtpSettings(latch="port", silence_timeout_s=1.0), 0.0)
    events = receive(streams, [*talk(SPEECH), *talk(SPEECH, ssrc=9, sender=BOB, start=100.1)], settle_s=2)
    assert len(names(events)) == 1
    assert streams.dropped == {"from another address than the first": 100}
    assert len(names(receive(streams, talk(SPEECH, ssrc=9, sender=BOB, start=110)))) == 1


def test_limit_of_streams_is_told(caplog: pytest.LogCaptureFixture) -> None:
    streams = Streams(RtpSettings(max_streams=3), 0.0)
    events = receive(streams, [packet for ssrc in range(5) for packet in talk(SPEECH, ssrc=ssrc)])
    assert len(names(events)) == 3
    assert streams.dropped["beyond max_streams"] > 0
    refused = next(line for line in caplog.messages if "is refused" in line)
    assert refused.endswith("there are 3 streams, max_streams allows no more")
    assert all(len(sound(events, name)[0]) == len(SPEECH) for name in names(events))


def test_no_sound_of_refused_senders_is_kept() -> None:
    """Nor counted less than once."""
    streams = Streams(RtpSettings(max_streams=1), 0.0)
    refused = [packet for ssrc in range(2, 50) for packet in talk(SPEECH[:1600], ssrc=ssrc, sender=BOB)]
    receive(streams, [*talk(SPEECH[:1600]), *refused], settle_s=0)
    assert streams.dropped == {"beyond max_streams": len(refused)}
    assert SPEECH[:160] not in kept(streams)


def test_no_sound_of_those_that_never_became_a_stream_is_kept_for_long() -> None:
    """Though no stream lives meanwhile."""
    streams = Streams(RtpSettings(), 0.0)
    receive(streams, [packet for ssrc in range(50) for packet in talk(SPEECH[:160], ssrc=ssrc)], settle_s=1)
    assert SPEECH[:160] in kept(streams)
    assert not streams.is_idle, "or nobody would come to forget it"
    streams.release(103.0)
    assert SPEECH[:160] not in kept(streams)
    assert streams.is_idle


def kept(streams: Streams) -> bytes:
    """All that the streams hold in memory."""
    return pickle.dumps(streams)


def test_a_port_without_room_is_told_once_until_a_stream_ends(caplog: pytest.LogCaptureFixture) -> None:
    """However long the refused caller talks; and payload types are told of beside it."""
    streams = Streams(RtpSettings(max_streams=1, silence_timeout_s=1.0), 0.0)
    for start, payload_type in ((100, 96), (200, 97)):
        undeclared = Sent(rtp(1, 1, b"x" * 40, ssrc=9, payload_type=payload_type), start + 5.011)
        stream, refused = talk(words(10), start=start), talk(words(9), ssrc=7, sender=BOB, start=start + 0.1)
        events = receive(streams, [*stream, *refused, undeclared], settle_s=3)
        assert len(names(events)) == 1
        streams.tell(start + 9)
    told = [message.split()[2:5] for message in caplog.messages]
    assert told == [
        ["SSRC", "0x00000007", "of"],
        ["undeclared", "payload", "types"],
        ["SSRC", "0x00000007", "of"],
        ["undeclared", "payload", "types"],
    ]


def test_undeclared_payload_type_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        events = listen(
            [Sent(rtp(i, 160 * i, b"x" * 40, payload_type=96), 100 + i * 0.02) for i in range(50)]
        )
    assert not events
    assert [record.getMessage() for record in caplog.records] == [
        "rtp 127.0.0.1:5004: undeclared payload types are dropped: 96; declare them in payload_types, "
        'e.g. { 96 = "opus/48000/2" }, or give the sender\'s SDP in sdp'
    ]


def test_all_undeclared_payload_types_are_told_in_few_lines(caplog: pytest.LogCaptureFixture) -> None:
    """Those that came while a line had to wait are in the next one, the rest at the end."""
    streams = Streams(RtpSettings(), 0.0)
    for second, payload_type in enumerate(range(96, 104)):
        packet = rtp(second, 160 * second, b"x" * 40, payload_type=payload_type)
        receive(streams, [Sent(packet, 100.0 + second)], settle_s=0.0)
        streams.tell(100.0 + second)
    streams.close()
    limit = GrowingPauses()
    lines = [record.getMessage() for record in caplog.records if limit.filter(record)]
    assert [line.split(": ")[2].split(";")[0] for line in lines] == [
        "96",
        "97",
        "98, 99",
        "100, 101, 102, 103",
    ]


def short_streams(n: int, start: float, seconds: float) -> list[Sent]:
    """Streams of two packets that end with BYE, all from one sender."""
    return [
        Sent(datagram, start + i * seconds / n)
        for i in range(n)
        for ssrc in (round(1000 * start) + i,)
        for datagram in (rtp(1, 0, b"x", ssrc=ssrc), rtp(2, 1, b"x", ssrc=ssrc), bye(ssrc))
    ]


def test_a_sender_of_short_streams_does_not_write_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """What has no line of its own is counted."""
    caplog.set_level(logging.INFO)
    streams = Streams(RtpSettings(), 0.0)
    for second in range(20):
        receive(streams, short_streams(100, 100.0 + second, 0.9), settle_s=0)
        streams.tell(101.0 + second)
    streams.close()
    lines = [message for message in caplog.messages if " stream " in message]
    counted = [re.findall(r"(\d+) times '([^']+)'", message) for message in caplog.messages]
    assert len(caplog.messages) <= 20 * LINES + 6, "counted after 0, 1, 3, 7 and 15 s, and at the end"
    for fate in ("began", "is over (bye)"):
        told = sum(fate in line for line in lines)
        assert told + sum(int(count) for line in counted for count, what in line if what == fate) == 2000


def test_a_burst_of_streams_hides_none_that_come_later(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    streams = Streams(RtpSettings(), 0.0)
    for second in range(60):
        n = 100 if second % 20 == 0 else 2
        caplog.clear()
        receive(streams, short_streams(n, 100.0 + second, 0.9), settle_s=0)
        assert sum(" stream " in message for message in caplog.messages) == min(2 * n, LINES)
        streams.tell(101.0 + second)


def test_a_busy_call_center_has_a_line_for_every_stream(caplog: pytest.LogCaptureFixture) -> None:
    """600 calls of two parties a minute."""
    caplog.set_level(logging.INFO)
    streams = Streams(RtpSettings(), 0.0)
    for second in range(60):
        receive(streams, short_streams(20, 100.0 + second, 0.9), settle_s=0)
        streams.tell(101.0 + second)
    assert sum(" began, SSRC 0x" in message for message in caplog.messages) == 1200
    assert sum(message.endswith(" is over (bye): 2 packets, 0 lost") for message in caplog.messages) == 1200


def test_a_codec_may_change_in_the_middle() -> None:
    """re-INVITE from G.711 to L16 at another rate and clock: the same stream, stream time goes on."""
    first = talk(SPEECH[:8000])
    pcm = (np.sin(np.arange(16_000)) * 10_000).astype(">i2")
    second = [
        Sent(
            rtp(150 + i, 99 + 320 * i, pcm[320 * i : 320 * (i + 1)].tobytes(), payload_type=97),
            first[-1].at + PTIME_S * (i + 1),
        )
        for i in range(50)
    ]
    events = listen([*first, *second], RtpSettings(payload_types={"97": "L16/16000"}))
    assert len(names(events)) == 1
    wide = [chunk for chunk in chunks(events) if chunk.sample_rate == 16_000]
    assert wide[0].start == 16_000
    np.testing.assert_allclose(np.concatenate([chunk.samples for chunk in wide]), pcm / 32768, atol=1e-6)


@pytest.mark.parametrize("rate", [8000, 16_000])
def test_undecodable_packets_in_a_row_sound_like_lost_ones(rate: int) -> None:
    """And not like a tone that goes on; of 10 ms, so that one is shorter than what concealment looks at."""
    pcm = (np.sin(np.arange(rate) / 20) * 10_000).astype(">i2")
    n = rate // 100
    whole = [rtp(i, n * i, pcm[n * i : n * (i + 1)].tobytes(), payload_type=97) for i in range(100)]
    bad = (40, *range(50, 80))
    broken = [datagram + b"\0" if i in bad else datagram for i, datagram in enumerate(whole)]
    settings = RtpSettings(payload_types={"97": f"L16/{rate}"})
    line, n_lost = sound(listen([Sent(broken[i], 100 + 0.01 * i) for i in range(100)], settings))
    lossy, _ = sound(listen([Sent(whole[i], 100 + 0.01 * i) for i in range(100) if i not in bad], settings))
    np.testing.assert_array_equal(line, lossy)
    assert n_lost == 31 * n
    assert not line[56 * n : 80 * n].any()


def test_no_more_is_lost_of_a_packet_than_silence_has_left_of_it() -> None:
    """Undecodable, and so late that announced silence has filled its place in part."""
    sent = talk(SPEECH[:1600])
    silence = Sent(rtp(110, 5000 + 1600, b"\x40", payload_type=13), 100.2)
    broken = Sent(rtp(111, 5000 + 3920, bytes(319), payload_type=97), 100.55)
    events = listen([*sent, silence, broken], RtpSettings(payload_types={"97": "L16/8000"}))
    last = chunks(events)[-1]
    assert last.lost == len(last.samples) == 79


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_no_bytes_raise_and_none_are_kept(seed: int) -> None:
    """`fuzz.py` does the same a million times."""
    monitor = Monitor()
    storm(monitor, seed, 1024)
    assert len(monitor.streams) <= SETTINGS.max_streams
    monitor.take(Datagrams.of([]), 1e6)
    assert len(monitor.streams) == 0
