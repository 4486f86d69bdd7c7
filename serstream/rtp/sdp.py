"""What a port expects to hear: payload types and keys, from SDP (RFC 8866) and from the configuration."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from serstream.config import RtpSettings
from serstream.errors import ConfigError
from serstream.rtp.codecs import STATIC_FORMATS, Format, format_of
from serstream.rtp.srtp import Key


@dataclass(frozen=True, slots=True)
class Media:
    """One audio stream as it was agreed on."""

    formats: dict[int, Format] = field(default_factory=lambda: dict(STATIC_FORMATS))
    """By payload type."""
    keys: tuple[Key, ...] = ()
    """SRTP keys of the sender; empty: plain RTP."""
    port: int = 0
    """Where the SDP says it goes; 0: nobody said."""


def media_of(settings: RtpSettings, base: Path = Path()) -> Media:
    """What the configuration of a port declares, inline keys over its SDP.

    Args:
        settings: of the port.
        base: folder that a relative ``sdp`` starts from.

    Raises:
        ConfigError: the SDP cannot be read, or a declaration is not understood.
    """
    where = f"rtp {settings.address}:{settings.port}"
    media = Media()
    if settings.sdp:
        media = _choose(parse(_sdp_text(settings.sdp, base, where), f"{where}: sdp"), settings.port, where)
    formats = dict(media.formats)
    for number, rtpmap in settings.payload_types.items():
        key = f"{where}: payload_types.{number}"
        if not number.isdecimal() or not 0 <= int(number) <= 127:
            raise ConfigError(f"{key}: wanted a payload type of 0 to 127 as key")
        formats[int(number)] = format_of(rtpmap, key)
    keys = tuple(Key.of(crypto, f"{where}: srtp") for crypto in settings.srtp) or media.keys
    return Media(formats, keys, media.port)


def parse(text: str, where: str) -> list[Media]:
    """The audio descriptions of an SDP; lines that say nothing about them are skipped.

    Raises:
        ConfigError: not SDP, no audio, or an attribute of the audio that is not understood.
    """
    sections: list[tuple[list[str], list[str]]] = []
    for line in text.replace("\r", "").split("\n"):
        kind, _, value = line.strip().partition("=")
        if kind == "m":
            sections.append((value.split(), []))
        elif kind == "a" and sections:
            sections[-1][1].append(value)
    audio = [(line, attributes) for line, attributes in sections if line and line[0] == "audio"]
    if not audio:
        raise ConfigError(f"{where}: no 'm=audio' line; give the SDP that the sender's call agreed on")
    return [_media(line, attributes, where) for line, attributes in audio]


def _media(line: list[str], attributes: list[str], where: str) -> Media:
    if len(line) < 4 or not line[1].partition("/")[0].isdecimal():
        raise ConfigError(f"{where}: 'm={' '.join(line)}', wanted 'm=audio PORT PROTOCOL PAYLOAD-TYPE ...'")
    formats = dict(STATIC_FORMATS)
    keys = []
    for attribute in attributes:
        name, _, value = attribute.partition(":")
        if name == "rtpmap":
            number, _, rtpmap = value.partition(" ")
            if not number.isdecimal() or int(number) > 127:
                raise ConfigError(f"{where}: 'a={attribute}', wanted 'a=rtpmap:0..127 ENCODING/RATE'")
            if number in line[3:] and rtpmap.partition("/")[0].upper() not in _NOT_HEARD:
                formats[int(number)] = format_of(rtpmap, f"{where}: rtpmap {number}")
        elif name == "crypto":
            keys.append(Key.of(value.partition(" ")[2], f"{where}: a=crypto"))
    if "SAVP" in line[2] and not keys:
        raise ConfigError(
            f"{where}: 'm={' '.join(line)}' is SRTP without 'a=crypto'; give the sender's key in 'srtp' "
            "(keys of DTLS-SRTP never stand in SDP: let the media server decrypt)"
        )
    return Media(formats, tuple(keys), int(line[1].partition("/")[0]))


_NOT_HEARD = {"RED", "ULPFEC", "FLEXFEC-03", "RTX"}
"""Encodings that offers carry beside the codec; they are dropped like any undeclared payload type."""


def _sdp_text(sdp: str, base: Path, where: str) -> str:
    if sdp.lstrip().startswith(("v=", "m=", "SDP:")):
        return sdp
    path = base / sdp
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        told = error.strerror
    except UnicodeDecodeError as error:
        told = f"not UTF-8: {error}"
    raise ConfigError(
        f"{where}: sdp {str(path)!r}: cannot read it: {told}; wanted a file or SDP that begins with 'v=0'"
    )


def _choose(candidates: list[Media], port: int, where: str) -> Media:
    """The description whose port is ours, or the only one."""
    fitting = [media for media in candidates if media.port == port]
    if len(fitting) == 1 or len(candidates) == 1:
        return (fitting or candidates)[0]
    ports = ", ".join(str(media.port) for media in candidates)
    raise ConfigError(
        f"{where}: the SDP describes audio for ports {ports}, wanted one description for {port}"
    )
