import base64
import ipaddress
import logging
import struct
from pathlib import Path

import numpy as np
import pylibsrtp
import pytest
from fuzz import SETTINGS, Monitor, storm
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
from serstream.errors import ConfigError
from serstream.rtp import srtp
from serstream.rtp.datagrams import Datagrams, source_of
from serstream.rtp.sdp import media_of
from serstream.rtp.streams import Streams
from serstream.types import StreamStart

SPEECH = words(2)
BOB = source_of(ipaddress.ip_address("10.0.0.2"), 30_000)
SECRET = bytes(range(30))
MANY_DIGITS = 5000 * "1"
"""More than Python takes for a number."""
CRYPTO = "AES_CM_128_HMAC_SHA1_80 inline:" + base64.b64encode(SECRET).decode()


def starts(events: list) -> list[StreamStart]:
    return [event for event in events if isinstance(event, StreamStart)]


def bye(ssrc: int) -> bytes:
    return struct.pack("!BBHI", 0x80, 201, 1, ssrc) + struct.pack("!BBHI", 0x81, 203, 1, ssrc)


def test_bye_ends_a_stream_and_stray_packets_begin_none() -> None:
    sent = talk(SPEECH)
    streams = Streams(RtpSettings(), 0.0)
    events = receive(streams, sent[:90], settle_s=0)
    next_port = source_of(ipaddress.ip_address("10.0.0.1"), 20_001)
    events += streams.receive_rtcp(Datagrams.of([(bye(0xA11CE), next_port, sent[90].at)]))
    events += receive(streams, sent[90:], settle_s=0)
    assert ends(events) == {names(events)[0]: "bye"}
    assert len(sound(events)[0]) == 160 * 90
    assert streams.dropped == {"of an SSRC that has ended": 10}


def test_bye_from_port_0_ends_nothing() -> None:
    """No program sends from it, but whoever writes the packets can."""
    streams = Streams(RtpSettings(), 0.0)
    receive(streams, talk(SPEECH), settle_s=0)
    port_0 = source_of(ipaddress.ip_address("10.0.0.1"), 0)
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
    outside = source_of(ipaddress.ip_address("192.0.2.1"), 1)
    arriving = [
        *talk(SPEECH, ssrc=1, source=ALICE),
        *talk(SPEECH, ssrc=2, source=BOB, start=100.001),
        *talk(SPEECH, ssrc=0xBEEF, source=ALICE, start=100.002),
        *talk(SPEECH, ssrc=4, source=outside, start=100.003),
    ]
    assert [start.role for start in starts(listen(arriving))] == ["unknown"] * 4
    assert [start.role for start in starts(listen(arriving, settings))] == [
        "unknown",
        "agent",
        "agent",
        "customer",
    ]


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
        *talk(SPEECH, ssrc=2, source=BOB, start=100.1),
        *talk(SPEECH[8000:], ssrc=3, start=101.0),
    ]
    events = receive(streams, arriving)
    assert [start.role for start in starts(events)] == ["customer", "agent"]
    np.testing.assert_array_equal(sound(events, names(events)[0])[0], decoded(SPEECH))


def test_parties_make_one_call_after_the_other() -> None:
    settings = RtpSettings(parties=("customer", "agent"), silence_timeout_s=1.0)
    one_call = [*talk(SPEECH, ssrc=1), *talk(SPEECH, ssrc=2, source=BOB, start=100.1)]
    next_call = [*talk(SPEECH, ssrc=3, start=110), *talk(SPEECH, ssrc=4, source=BOB, start=110.1)]
    events = listen([*one_call, *next_call], settings)
    assert [(start.call, start.role) for start in starts(events)] == [
        ("rtp-5004-call-1", "customer"),
        ("rtp-5004-call-1", "agent"),
        ("rtp-5004-call-2", "customer"),
        ("rtp-5004-call-2", "agent"),
    ]


def test_names_carry_no_address() -> None:
    for start in starts(listen(talk(SPEECH))):
        assert "10" not in start.stream.replace("5004", "")
        assert start.source == "rtp:5004"


def test_allow_list_refuses_and_counts() -> None:
    streams = Streams(RtpSettings(allow=("10.0.0.0/24", "2001:db8::/32")), 0.0)
    events = receive(streams, [*talk(SPEECH), *talk(SPEECH, ssrc=9, source=STRANGER)])
    assert len(names(events)) == 1
    assert streams.dropped == {"from outside of 'allow'": 100}


def test_latch_of_the_port_refuses_a_second_sender_until_the_first_is_gone() -> None:
    streams = Streams(RtpSettings(latch="port", silence_timeout_s=1.0), 0.0)
    events = receive(streams, [*talk(SPEECH), *talk(SPEECH, ssrc=9, source=BOB, start=100.1)], settle_s=2)
    assert len(names(events)) == 1
    assert streams.dropped == {"from another address than the first": 100}
    assert len(names(receive(streams, talk(SPEECH, ssrc=9, source=BOB, start=110)))) == 1


def test_limit_of_streams_is_told(caplog: pytest.LogCaptureFixture) -> None:
    streams = Streams(RtpSettings(max_streams=3), 0.0)
    events = receive(streams, [packet for ssrc in range(5) for packet in talk(SPEECH, ssrc=ssrc)])
    assert len(names(events)) == 3
    assert streams.dropped["beyond max_streams"] > 0
    refused = next(line for line in caplog.messages if "is refused" in line)
    assert refused.endswith("there are 3 streams, max_streams allows no more")
    assert all(len(sound(events, name)[0]) == len(SPEECH) for name in names(events))


def test_a_port_without_room_is_told_once_until_a_stream_ends(caplog: pytest.LogCaptureFixture) -> None:
    """However long the refused caller talks; and payload types are told of beside it."""
    streams = Streams(RtpSettings(max_streams=1, silence_timeout_s=1.0), 0.0)
    for start, payload_type in ((100, 96), (200, 97)):
        undeclared = Sent(rtp(1, 1, b"x" * 40, ssrc=9, payload_type=payload_type), start + 5.011)
        stream, refused = talk(words(10), start=start), talk(words(9), ssrc=7, source=BOB, start=start + 0.1)
        events = receive(streams, [*stream, *refused, undeclared], settle_s=3)
        assert len(names(events)) == 1
    told = [message.split()[2:5] for message in caplog.messages]
    assert told == [
        ["SSRC", "0x00000007", "of"],
        ["payload", "type", "96"],
        ["SSRC", "0x00000007", "of"],
        ["payload", "type", "97"],
    ]


def test_undeclared_payload_type_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        events = listen(
            [Sent(rtp(i, 160 * i, b"x" * 40, payload_type=96), 100 + i * 0.02) for i in range(50)]
        )
    assert not events
    assert [record.getMessage() for record in caplog.records] == [
        "rtp 127.0.0.1:5004: payload type 96 is not declared and dropped; declare it in payload_types, "
        'e.g. { 96 = "opus/48000/2" }, or give the sender\'s SDP in sdp'
    ]


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


def test_no_more_is_lost_of_a_packet_than_silence_has_left_of_it() -> None:
    """Undecodable, and so late that announced silence has filled its place in part."""
    sent = talk(SPEECH[:1600])
    silence = Sent(rtp(110, 5000 + 1600, b"\x40", payload_type=13), 100.2)
    broken = Sent(rtp(111, 5000 + 3920, bytes(319), payload_type=97), 100.55)
    events = listen([*sent, silence, broken], RtpSettings(payload_types={"97": "L16/8000"}))
    last = chunks(events)[-1]
    assert last.lost == len(last.samples) == 79


def outbound() -> pylibsrtp.Session:
    return pylibsrtp.Session(pylibsrtp.Policy(key=SECRET, ssrc_type=pylibsrtp.Policy.SSRC_ANY_OUTBOUND))


def secured(sent: list[Sent]) -> list[Sent]:
    sender = outbound()
    return [Sent(sender.protect(packet.datagram), packet.at) for packet in sent]


def test_srtp_takes_only_what_the_key_opens() -> None:
    sender = outbound()
    clear = talk(SPEECH)
    call = [Sent(sender.protect(packet.datagram), packet.at) for packet in clear]
    injected = [Sent(packet.datagram, packet.at + 0.001) for packet in talk(SPEECH, sequence_number=900)]
    replayed = [Sent(packet.datagram, packet.at + 0.002) for packet in call]
    farewell = [
        Sent(bye(0xA11CE), clear[50].at + 0.003),
        Sent(sender.protect_rtcp(bye(0xA11CE)), clear[-1].at + 0.01),
    ]
    streams = Streams(RtpSettings(srtp=(CRYPTO,)), 0.0)
    events = receive(streams, [*call, *injected, *replayed, *farewell])
    np.testing.assert_array_equal(sound(events)[0], decoded(SPEECH))
    assert ends(events) == {names(events)[0]: "bye"}
    assert streams.dropped == {"not authenticated": 101, "replayed": 100}


def test_srtp_is_heard_after_a_hold_behind_the_wrap_of_the_sequence() -> None:
    """The rollover counter is of the session, not of what we call a stream."""
    sent = talk(SPEECH, sequence_number=65_500)
    after_hold = [Sent(packet.datagram, packet.at + 10) for packet in sent[60:]]
    streams = Streams(RtpSettings(srtp=(CRYPTO,), silence_timeout_s=5.0), 0.0)
    events = receive(streams, secured([*sent[:60], *after_hold]))
    first, second = names(events)
    assert ends(events) == {first: "timeout"}
    np.testing.assert_array_equal(sound(events, second)[0], decoded(SPEECH[160 * 60 :]))
    assert not streams.dropped


def test_srtp_that_was_recorded_makes_no_stream() -> None:
    call = secured(talk(SPEECH))
    streams = Streams(RtpSettings(srtp=(CRYPTO,), silence_timeout_s=1.0), 0.0)
    events = receive(streams, [*call, *(Sent(packet.datagram, packet.at + 10) for packet in call)])
    assert len(names(events)) == 1
    assert streams.dropped == {"replayed": 100}


def test_state_is_kept_of_the_srtp_senders_heard_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(srtp, "SILENT_SENDERS", 2)
    unprotector = srtp.Unprotector([srtp.Key.of(CRYPTO, "")], max_streams=1)
    sender = outbound()
    packets = [sender.protect(rtp(1, 1, b"x", ssrc=ssrc)) for ssrc in range(4)]
    for packet in packets[:3]:
        assert isinstance(unprotector.rtp(packet, 1.0), bytes)
    assert unprotector.rtcp(sender.protect_rtcp(bye(0))) == bye(0)
    assert isinstance(unprotector.rtp(packets[3], 1.0), bytes)
    assert unprotector.rtp(packets[0], 1.0) == "replayed", "its BYE came after the packet of the second"
    assert isinstance(unprotector.rtp(packets[1], 1.0), bytes), "nothing is known of it any more"


def wrapped(call: list[Sent], times: int, sender: pylibsrtp.Session) -> list[Sent]:
    """The call, protected after its sender's sequence has gone round so often."""
    number, ssrc = struct.unpack_from("!HxxxxI", call[0].datagram, 2)
    for ahead in range(0, times << 16, 0x4000):
        sender.protect(rtp(number + ahead, 0, b"unheard", ssrc=ssrc))
    return [Sent(sender.protect(packet.datagram), packet.at) for packet in call]


def suites() -> list[srtp.Key]:
    lengths = {"AES_CM_128_HMAC_SHA1_80": 30, "AES_CM_128_HMAC_SHA1_32": 30, "AEAD_AES_256_GCM": 44}
    return [srtp.Key(suite, bytes(range(n_bytes))) for suite, n_bytes in lengths.items()]


@pytest.mark.parametrize("key", suites(), ids=lambda key: key.suite)
@pytest.mark.parametrize("times", [1, 2, srtp.MAX_ROLLOVERS])
@pytest.mark.parametrize("number", [0, 100, 0x7FFF, 0x8000, 0xFFFF])
def test_srtp_is_heard_in_mid_call_after_wraps_of_the_sequence(
    key: srtp.Key, times: int, number: int
) -> None:
    """As by a daemon that was started anew; the second packet comes before the first."""
    call = talk(SPEECH, sequence_number=number)
    call[:2] = [Sent(call[1].datagram, call[0].at), Sent(call[0].datagram, call[1].at)]
    crypto = f"{key.suite} inline:{base64.b64encode(key.secret).decode()}"
    streams = Streams(RtpSettings(srtp=(CRYPTO.replace("AAEC", "AAED"), crypto)), 0.0)
    events = receive(streams, wrapped(call, times, srtp._session(key, outbound=True)))
    assert len(names(events)) == 1
    assert not streams.dropped


def test_srtp_that_has_wrapped_too_often_is_not_heard() -> None:
    streams = Streams(RtpSettings(srtp=(CRYPTO,)), 0.0)
    assert not receive(streams, wrapped(talk(SPEECH), srtp.MAX_ROLLOVERS + 1, outbound()))
    assert streams.dropped == {"not authenticated": 100}


def test_srtp_is_heard_in_mid_call_when_its_rtcp_was_first() -> None:
    """On hold there is only RTCP; its replay list outlives the search."""
    sender = outbound()
    call = wrapped(talk(SPEECH), 2, sender)
    report = sender.protect_rtcp(bye(0xA11CE))
    unprotector = srtp.Unprotector([srtp.Key.of(CRYPTO, "")], max_streams=1)
    assert unprotector.rtcp(report) == bye(0xA11CE)
    assert unprotector.rtp(call[0].datagram, 1.0) == talk(SPEECH)[0].datagram
    assert unprotector.rtcp(report) == "replayed"
    assert unprotector.rtp(call[0].datagram, 1.0) == "replayed"


def test_srtp_that_was_recorded_before_the_wrap_is_not_heard_behind_it() -> None:
    recorded = [Sent(packet.datagram, packet.at + 1.0) for packet in secured(talk(SPEECH))]
    call = wrapped(talk(SPEECH), 1, outbound())
    streams = Streams(RtpSettings(srtp=(CRYPTO,)), 0.0)
    events = receive(streams, [*call, *recorded])
    np.testing.assert_array_equal(sound(events)[0], decoded(SPEECH))
    assert streams.dropped.total() == 100


def test_forged_srtp_costs_a_bounded_number_of_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[bytes] = []
    search = srtp.Unprotector._join
    monkeypatch.setattr(
        srtp.Unprotector, "_join", lambda self, packet: tried.append(packet) or search(self, packet)
    )
    unprotector = srtp.Unprotector([srtp.Key.of(CRYPTO, "")], max_streams=1)
    (genuine,) = wrapped(talk(SPEECH)[:1], 2, outbound())
    forged = [rtp(0, 0, bytes(170), ssrc=ssrc) for ssrc in (0xA11CE, *range(1000))]
    for packet in forged * 2:
        assert unprotector.rtp(packet, 1.0) == "not authenticated"
    assert tried == forged[: srtp.MAX_TRIES]
    assert unprotector.rtp(genuine.datagram, 0.9 + srtp.RETRY_S) == "not authenticated"
    assert isinstance(unprotector.rtp(genuine.datagram, 1.0 + srtp.RETRY_S), bytes)


def test_strangers_use_up_no_tries_of_srtp() -> None:
    """They are refused before their packets are tried, RTCP as well."""
    forged = [Sent(rtp(0, 0, bytes(170), ssrc=ssrc), 99.0, STRANGER) for ssrc in range(srtp.MAX_TRIES)]
    forged.append(Sent(bye(0xA11CE), 99.0, STRANGER))
    streams = Streams(RtpSettings(srtp=(CRYPTO,), allow=("10.0.0.0/24",)), 0.0)
    events = receive(streams, [*forged, *wrapped(talk(SPEECH), 2, outbound())])
    np.testing.assert_array_equal(sound(events)[0], decoded(SPEECH))
    assert streams.dropped == {"from outside of 'allow'": len(forged)}


def test_srtp_longer_than_the_library_takes_is_told() -> None:
    streams = Streams(RtpSettings(srtp=(CRYPTO,)), 0.0)
    receive(streams, [Sent(rtp(1, 1, bytes(1600)), 1.0)])
    assert streams.dropped == {"longer than libsrtp takes": 1}


def test_sdp_of_ffmpeg_and_of_an_offer(tmp_path: Path) -> None:
    written = tmp_path / "x.sdp"
    written.write_text(
        "SDP:\nv=0\no=- 0 0 IN IP4 127.0.0.1\ns=No Name\nc=IN IP4 127.0.0.1\nt=0 0\na=tool:libavformat\n"
        "m=audio 5004 RTP/AVP 97\nb=AS:64\na=rtpmap:97 opus/48000/2\na=fmtp:97 sprop-stereo=0\n"
    )
    assert media_of(RtpSettings(sdp=str(written))).formats[97] == ("OPUS", 48000, 2)
    offer = (
        "v=0\r\nm=audio 6000 RTP/SAVP 0 101\r\na=rtpmap:101 telephone-event/8000\r\n"
        f"a=crypto:1 {CRYPTO}|2^20\r\nm=video 7000 RTP/AVP 99\r\na=rtpmap:99 H264/90000\r\n"
        "m=audio 5004 RTP/AVP 0 96\r\na=rtpmap:96 G729/8000\r\n"
    )
    ours = media_of(RtpSettings(sdp=offer))
    assert ours.keys == () and ours.formats[96] == ("G729", 8000, 1)
    theirs = media_of(RtpSettings(sdp=offer, port=6000))
    assert theirs.keys[0].secret == SECRET
    assert base64.b64encode(SECRET).decode() not in repr(theirs)


def test_keys_of_the_configuration_do_for_an_sdp_without() -> None:
    """Also one whose own key could not be used."""
    for crypto in ("", "\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:KEY|2^20|1:4"):
        agreed = media_of(RtpSettings(sdp="m=audio 5004 RTP/SAVP 0" + crypto, srtp=(CRYPTO,)))
        assert agreed.keys == (srtp.Key.of(CRYPTO, ""),)


@pytest.mark.parametrize(
    "answer",
    [
        "m=audio 0 RTP/SAVP 0\nm=audio 5004 RTP/AVP 96\na=rtpmap:96 opus/48000/2",
        "m=audio 20000/2 RTP/AVP 96\na=rtpmap:96 opus/48000/2\nm=audio 0 RTP/AVP 0",
        "m=audio 0 RTP/AVP 96\na=rtpmap:96 opus/48000/2",  # RTSP: the port is agreed on elsewhere
    ],
)
def test_rejected_audio_of_an_sdp_does_not_count(answer: str) -> None:
    agreed = media_of(RtpSettings(sdp=answer))
    assert agreed.keys == () and agreed.formats[96] == ("OPUS", 48000, 2)


def test_a_crypto_suite_that_is_not_known_does_not_count_beside_another() -> None:
    offer = f"m=audio 5004 RTP/SAVP 0\na=crypto:1 AES_256_CM_HMAC_SHA1_80 inline:AAAA\na=crypto:2 {CRYPTO}"
    assert media_of(RtpSettings(sdp=offer)).keys == (srtp.Key.of(CRYPTO, ""),)


def test_codecs_of_an_sdp_that_serstream_lacks_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    offer = (
        "m=audio 5004 RTP/AVP 8 3 97 101\na=rtpmap:8 PCMA/8000\na=rtpmap:3 GSM/8000\n"
        "a=rtpmap:97 iLBC/8000\na=rtpmap:101 telephone-event/8000\n"
    )
    formats = media_of(RtpSettings(sdp=offer)).formats
    assert formats[101] == ("TELEPHONE-EVENT", 8000, 1) and not formats.keys() & {3, 97}
    assert caplog.messages == [
        "rtp 127.0.0.1:5004: sdp: 'm=audio 5004 RTP/AVP 8 3 97 101' lists what serstream does not decode: "
        "GSM/8000, iLBC/8000"
    ]
    by_hand = RtpSettings(
        sdp="m=audio 5004 RTP/AVP 96\na=rtpmap:96 x-opus/48000", payload_types={"96": "L16/8000"}
    )
    assert media_of(by_hand).formats[96] == ("L16", 8000, 1)
    assert len(caplog.messages) == 1


@pytest.mark.parametrize("rtpmap", ["AMR/8000", "red/8000", "L16/4000"])
def test_a_static_payload_type_that_has_another_codec_is_not_heard(rtpmap: str) -> None:
    offer = f"m=audio 5004 RTP/AVP 0 8\na=rtpmap:0 {rtpmap}\n"
    assert media_of(RtpSettings(sdp=offer)).formats.keys() & {0, 8} == {8}
    streams = Streams(RtpSettings(sdp=offer), 0.0)
    assert not receive(streams, talk(SPEECH))
    assert streams.dropped == {"of an undeclared payload type": 100}
    with pytest.raises(ConfigError, match="lists no codec that serstream decodes"):
        media_of(RtpSettings(sdp=offer.replace(" 8\n", "\n")))


def test_an_sdp_may_hold_tabs() -> None:
    offer = f"m=audio 5004 RTP/SAVP 96\na=rtpmap:96 opus/48000/2\na=crypto:1 {CRYPTO}\n"
    agreed = media_of(RtpSettings(sdp=offer.replace(" ", "\t")))
    assert agreed.formats[96] == ("OPUS", 48000, 2)
    assert agreed.keys == (srtp.Key.of(CRYPTO, ""),)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sdp": "none.sdp"}, "sdp 'none.sdp': cannot read it"),
        ({"sdp": "v=0\nm=video 1 RTP/AVP 96"}, "no 'm=audio' line"),
        ({"sdp": "m=audio x RTP/AVP 0"}, "wanted 'm=audio PORT PROTOCOL"),
        ({"sdp": "m=audio 1 RTP/AVP 0\nm=audio 2 RTP/AVP 0"}, "audio for ports 1, 2, wanted one description"),
        ({"sdp": "m=audio 1 RTP/SAVP 0"}, "is SRTP without 'a=crypto'"),
        (
            {"sdp": "m=audio 1 RTP/SAVP 0\na=crypto:1 AES inline:x"},
            "a=crypto: crypto suite 'AES', wanted one of",
        ),
        (
            {"sdp": "m=audio 1 RTP/AVP 97 101\na=rtpmap:97 iLBC/8000\na=rtpmap:101 telephone-event/8000"},
            "lists no codec that serstream decodes; rtpmap 97 is 'iLBC/8000': serstream decodes PCMU",
        ),
        ({"sdp": "m=audio 1 RTP/AVP 96"}, "'m=audio 1 RTP/AVP 96' lists no codec that serstream decodes"),
        ({"sdp": "m=audio 1 RTP/AVP 0\na=rtpmap:x PCMU/8000"}, "wanted 'a=rtpmap:0..127 ENCODING/RATE'"),
        ({"payload_types": {"96": "speex/8000"}}, "payload_types.96 is 'speex/8000': serstream decodes PCMU"),
        ({"payload_types": {"96": "opus"}}, "wanted encoding/clock rate"),
        ({"payload_types": {"96": "G722/16000"}}, "the RTP clock of G722 is 8000 Hz"),
        ({"payload_types": {"200": "PCMU/8000"}}, "wanted a payload type of 0 to 127"),
        ({"srtp": ("AES inline:x",)}, "crypto suite 'AES', wanted one of"),
        ({"srtp": ("AES_CM_128_HMAC_SHA1_80 inline:AAAA",)}, "wants a key and salt of 30 bytes, got 3"),
        ({"srtp": ("AES_CM_128_HMAC_SHA1_80 inline:?",)}, "is not base64"),
        ({"srtp": (f"{CRYPTO[:-1]}\N{EN DASH}",)}, "srtp: the key behind 'inline:' is not base64"),
        (
            {"sdp": f"m=audio 1 RTP/SAVP 0\na=crypto:1 {CRYPTO[:-1]}\N{EN DASH}"},
            "a=crypto: the key behind 'inline:' is not base64",
        ),
        ({"payload_types": {MANY_DIGITS: "PCMU/8000"}}, "wanted a payload type of 0 to 127"),
        ({"payload_types": {"96": f"L16/{MANY_DIGITS}"}}, "wanted encoding/clock rate"),
        ({"sdp": f"m=audio {MANY_DIGITS} RTP/AVP 0"}, "wanted 'm=audio PORT PROTOCOL"),
        ({"sdp": f"m=audio 1 RTP/AVP {MANY_DIGITS}"}, "lists no codec that serstream decodes"),
        ({"sdp": f"m=audio 1 RTP/AVP 0\na=rtpmap:{MANY_DIGITS} PCMU/8000"}, "wanted 'a=rtpmap:0..127"),
    ],
)
def test_what_is_not_understood_is_named(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        media_of(RtpSettings(**settings))
    assert str(error.value).startswith("rtp 127.0.0.1:5004: ")
    assert message in str(error.value)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_no_bytes_raise_and_none_are_kept(seed: int) -> None:
    """`fuzz.py` does the same a million times."""
    monitor = Monitor()
    storm(monitor, seed, 1024)
    assert len(monitor.streams) <= SETTINGS.max_streams
    monitor.take(Datagrams.of([]), 1e6)
    assert len(monitor.streams) == 0
