"""SDP as it comes from PBXs, with what the configuration adds."""

import base64
from pathlib import Path
from typing import Any

import pytest
from network import (
    receive,
    talk,
)
from network import speech as words

from serstream.config import RtpSettings
from serstream.errors import ConfigError
from serstream.rtp import srtp
from serstream.rtp.sdp import media_of
from serstream.rtp.streams import Streams

SPEECH = words(2)
SECRET = bytes(range(30))
MANY_DIGITS = 5000 * "1"
"""More than Python takes for a number."""
CRYPTO = "AES_CM_128_HMAC_SHA1_80 inline:" + base64.b64encode(SECRET).decode()


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
    "settings",
    [
        {"srtp": (CRYPTO.partition(" ")[2],)},
        {"sdp": f"m=audio 1 RTP/SAVP 0\na=crypto:1 {CRYPTO.partition(' ')[2]}"},
        {"sdp": f"SDP begins here:\na=crypto:1 {CRYPTO}"},
        {"sdp": f"a=crypto:1 {CRYPTO}"},
    ],
)
def test_no_error_shows_a_key(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as error:
        media_of(RtpSettings(**settings))
    assert CRYPTO.partition("inline:")[2] not in str(error.value)


def test_tabs_may_stand_between_suite_and_key() -> None:
    assert srtp.Key.of(CRYPTO.replace(" ", "\t"), "") == srtp.Key.of(CRYPTO, "")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sdp": "none.sdp"}, "sdp 'none.sdp': cannot read it"),
        ({"sdp": "/dev/null"}, "sdp '/dev/null': cannot read it: no regular file; wanted a file or SDP"),
        ({"sdp": "a\0"}, "sdp 'a\\x00': cannot read it: embedded null byte; wanted a file or SDP"),
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
        ({"payload_types": {"96": "PCMU/8000/2"}}, "PCMU is decoded with 1 channel, not 2"),
        ({"payload_types": {"96": "g722/8000/2"}}, "g722 is decoded with 1 channel, not 2"),
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
