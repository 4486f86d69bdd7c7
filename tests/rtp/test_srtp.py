"""SRTP: what passes, what is refused, and what it costs."""

import base64
import struct

import numpy as np
import pylibsrtp
import pytest
from network import (
    STRANGER,
    Sent,
    bye,
    decoded,
    ends,
    names,
    receive,
    rtp,
    sound,
    talk,
)
from network import speech as words

from serstream.config import RtpSettings
from serstream.rtp import srtp
from serstream.rtp.streams import Streams

SPEECH = words(2)
SECRET = bytes(range(30))
CRYPTO = "AES_CM_128_HMAC_SHA1_80 inline:" + base64.b64encode(SECRET).decode()


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
