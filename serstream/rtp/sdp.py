"""What a port expects to hear: payload types and keys, from SDP (RFC 8866) and from the configuration."""

from __future__ import annotations

import logging
import re
import stat
from pathlib import Path
from typing import NamedTuple

from serstream.config import RtpSettings
from serstream.errors import ConfigError
from serstream.rtp.codecs import STATIC_FORMATS, Format, format_of
from serstream.rtp.srtp import SUITES, Key
from serstream.rtp.stream import SOUND

log = logging.getLogger(__name__)

_AUDIO = re.compile(r"audio\s+([0-9]{1,5})(?:/[0-9]+)?\s+(\S+)\s+(\S.*)")
"""The value of ``m=audio``: port, protocol, payload types."""
_PAYLOAD_TYPE = re.compile("[0-9]|[1-9][0-9]|1[01][0-9]|12[0-7]")
_NOT_HEARD = {"RED", "ULPFEC", "FLEXFEC-03", "RTX"}
"""Encodings that offers carry beside the codec; they are dropped like any undeclared payload type."""


class Media(NamedTuple):
    """One audio stream as it was agreed on."""

    formats: dict[int, Format]
    """By payload type."""
    keys: tuple[Key, ...]
    """SRTP keys of the sender; empty: plain RTP."""


def media_of(settings: RtpSettings, base: Path = Path()) -> Media:
    """What the configuration of a port declares, payload types and keys over those of its SDP.

    Args:
        settings: of the port.
        base: folder that a relative ``sdp`` starts from.

    Raises:
        ConfigError: the SDP cannot be read, or a declaration is not understood.
    """
    where = f"rtp {settings.address}:{settings.port}"
    declared = {}
    for number, rtpmap in settings.payload_types.items():
        key = f"{where}: payload_types.{number}"
        if not _PAYLOAD_TYPE.fullmatch(number):
            raise ConfigError(f"{key}: wanted a payload type of 0 to 127 as key")
        declared[int(number)] = format_of(rtpmap, key)
    keys = tuple(Key.of(crypto, f"{where}: srtp") for crypto in settings.srtp)
    if not settings.sdp:
        return Media(STATIC_FORMATS | declared, keys)
    audio = _choose(_parse(_sdp_text(settings.sdp, base, where), f"{where}: sdp"), settings.port, where)
    return Media(_formats(audio, declared, f"{where}: sdp"), keys or _keys(audio, f"{where}: sdp"))


class _Audio(NamedTuple):
    """An ``m=audio`` line and the attributes below it."""

    line: str
    port: int
    """Where it goes; 0: nobody said, or it was rejected."""
    protocol: str
    payload_types: list[str]
    attributes: list[str]

    def values(self, name: str) -> list[str]:
        """Of all attributes of a name."""
        return [value for key, _, value in (each.partition(":") for each in self.attributes) if key == name]


def _parse(text: str, where: str) -> list[_Audio]:
    """The audio of an SDP; lines that say nothing about it are skipped.

    Raises:
        ConfigError: no audio, or a line of it that is no SDP.
    """
    audio: list[_Audio] = []
    attributes: list[str] = []
    for line in text.replace("\r", "").split("\n"):
        kind, _, value = " ".join(line.split()).partition("=")
        if kind == "m":
            attributes = []
            if value.split()[:1] == ["audio"]:
                fields = _AUDIO.fullmatch(value)
                if not fields:
                    raise ConfigError(
                        f"{where}: 'm={value}', wanted 'm=audio PORT PROTOCOL PAYLOAD-TYPE ...'"
                    )
                port, protocol, payload_types = fields.groups()
                audio.append(_Audio(f"m={value}", int(port), protocol, payload_types.split(), attributes))
        elif kind == "a":
            attributes.append(value)
    if not audio:
        raise ConfigError(f"{where}: no 'm=audio' line; give the SDP that the sender's call agreed on")
    return audio


def _choose(described: list[_Audio], port: int, where: str) -> _Audio:
    """The description whose port is ours, or the only one, without those rejected (RFC 3264, section 6)."""
    accepted = [audio for audio in described if audio.port] or described
    fitting = [audio for audio in accepted if audio.port == port]
    if len(fitting) == 1 or len(accepted) == 1:
        return (fitting or accepted)[0]
    ports = ", ".join(str(audio.port) for audio in accepted)
    raise ConfigError(
        f"{where}: the SDP describes audio for ports {ports}, wanted one description for {port}"
    )


def _formats(audio: _Audio, declared: dict[int, Format], where: str) -> dict[int, Format]:
    """By payload type, without the codecs that serstream lacks."""
    formats = STATIC_FORMATS | declared
    lacking: dict[str, ConfigError] = {}
    for value in audio.values("rtpmap"):
        number, _, rtpmap = value.partition(" ")
        if not _PAYLOAD_TYPE.fullmatch(number):
            raise ConfigError(f"{where}: 'a=rtpmap:{value}', wanted 'a=rtpmap:0..127 ENCODING/RATE'")
        if number in audio.payload_types and int(number) not in declared:
            try:
                formats[int(number)] = format_of(rtpmap, f"rtpmap {number}")
            except ConfigError as error:
                formats.pop(int(number), None)
                if rtpmap.partition("/")[0].upper() not in _NOT_HEARD:
                    lacking[rtpmap] = error
    listed = set(map(int, filter(_PAYLOAD_TYPE.fullmatch, audio.payload_types))) | declared.keys()
    if not any(number in formats and formats[number].encoding in SOUND for number in listed):
        reasons = "".join(f"; {error}" for error in lacking.values())
        raise ConfigError(f"{where}: '{audio.line}' lists no codec that serstream decodes{reasons}")
    if lacking:
        log.warning(
            "%s: '%s' lists what serstream does not decode: %s", where, audio.line, ", ".join(lacking)
        )
    return formats


def _keys(audio: _Audio, where: str) -> tuple[Key, ...]:
    """Those of suites that serstream lacks do not count beside others."""
    cryptos = [value.partition(" ")[2] for value in audio.values("crypto")]
    if "SAVP" in audio.protocol and not cryptos:
        raise ConfigError(
            f"{where}: '{audio.line}' is SRTP without 'a=crypto'; give the sender's key in 'srtp' "
            "(keys of DTLS-SRTP never stand in SDP: let the media server decrypt)"
        )
    known = [crypto for crypto in cryptos if crypto.partition(" ")[0] in SUITES]
    return tuple(Key.of(crypto, f"{where}: a=crypto") for crypto in known or cryptos)


def _sdp_text(sdp: str, base: Path, where: str) -> str:
    if "\n" in sdp or sdp.lstrip()[1:2] == "=":  # no path, whatever is wrong with it: it may hold keys
        return sdp
    path = base / sdp
    try:
        if stat.S_ISREG(path.stat().st_mode):
            return path.read_text(encoding="utf-8")
        told: str | None = "no regular file"  # nobody might ever write to a FIFO, and calls would wait for it
    except OSError as error:
        told = error.strerror
    except UnicodeDecodeError as error:
        told = f"not UTF-8: {error}"
    except ValueError as error:  # a zero byte in the name
        told = str(error)
    raise ConfigError(
        f"{where}: sdp {str(path)!r}: cannot read it: {told}; wanted a file or SDP that begins with 'v=0'"
    )
