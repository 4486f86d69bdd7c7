"""From RTP payloads to float32 samples: G.711 and L16 in numpy, G.722, Opus and G.729 through PyAV."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

import numpy as np

from serstream.errors import ConfigError
from serstream.types import INT16_SCALE, Samples

if TYPE_CHECKING:
    import av


class Format(NamedTuple):
    """What ``a=rtpmap`` says about a payload type (RFC 8866, section 6.6)."""

    encoding: str
    """Upper case, as registered with IANA; case does not matter on the wire."""
    clock_rate: int
    """Hz of the RTP timestamps."""
    channels: int = 1


COMFORT_NOISE = "CN"
"""RFC 3389."""
TELEPHONE_EVENT = "TELEPHONE-EVENT"
"""RFC 4733."""
ENCODINGS = ("PCMU", "PCMA", "L16", "G722", "OPUS", "G729", COMFORT_NOISE, TELEPHONE_EVENT)

STATIC_FORMATS = {
    0: Format("PCMU", 8000),
    8: Format("PCMA", 8000),
    9: Format("G722", 8000),
    10: Format("L16", 44100, 2),
    11: Format("L16", 44100),
    13: Format(COMFORT_NOISE, 8000),
    18: Format("G729", 8000),
}
"""Payload types that need no declaration (RFC 3551, table 4)."""

_NUMBER = re.compile("[0-9]{1,9}")


def format_of(rtpmap: str, where: str) -> Format:
    """Read ``encoding/clock rate[/channels]``.

    Raises:
        ConfigError: not of this form, or an encoding that serstream cannot decode.
    """
    parts = rtpmap.strip().split("/")
    if not 2 <= len(parts) <= 3 or not all(_NUMBER.fullmatch(part) for part in parts[1:]):
        raise ConfigError(
            f"{where} is {rtpmap!r}, wanted encoding/clock rate[/channels], e.g. 'opus/48000/2'"
        )
    found = Format(parts[0].upper(), int(parts[1]), int(parts[2]) if len(parts) == 3 else 1)
    if found.encoding not in ENCODINGS:
        known = ", ".join(name.lower() if name in ("OPUS", TELEPHONE_EVENT) else name for name in ENCODINGS)
        raise ConfigError(
            f"{where} is {rtpmap!r}: serstream decodes {known}; let the sender offer one of them"
        )
    if not 8000 <= found.clock_rate <= 192_000 or not 1 <= found.channels <= 8:
        raise ConfigError(f"{where} is {rtpmap!r}, wanted 8000 to 192000 Hz and 1 to 8 channels")
    fixed = {"PCMU": 8000, "PCMA": 8000, "G722": 8000, "G729": 8000, "OPUS": 48000}.get(found.encoding)
    if fixed and fixed != found.clock_rate:
        raise ConfigError(
            f"{where} is {rtpmap!r}: the RTP clock of {parts[0]} is {fixed} Hz (RFC 3551, RFC 7587)"
        )
    if found.channels != 1 and found.encoding in ("PCMU", "PCMA", "G722", "G729"):
        raise ConfigError(
            f"{where} is {rtpmap!r}: {parts[0]} is decoded with 1 channel, not {found.channels}; let the "
            "sender offer mono, or L16"
        )
    return found


def ends_talkspurt(wanted: Format, payload: bytes) -> bool:
    """Whether a payload says that its sender falls silent behind it (G.729 Annex B; RFC 3551, 4.5.6)."""
    return wanted.encoding == "G729" and len(payload) % 10 == 2


class Decoder(Protocol):
    """Decodes the payloads of one stream, in order; holds the codec's state."""

    sample_rate: int
    """Hz of the samples; a multiple of the format's clock rate."""

    def duration(self, payload: bytes) -> int:
        """Ticks of the RTP clock that the payload lasts; 0: there is no sound in it."""

    def decode(self, payload: bytes) -> Samples | None:
        """Mono samples in [-1, 1], shape (n,); None when the payload is broken."""


def decoder(wanted: Format) -> Decoder:
    """A fresh decoder; call it for sound only, not for comfort noise or telephone events."""
    match wanted.encoding:
        case "PCMU":
            return G711(ULAW)
        case "PCMA":
            return G711(ALAW)
        case "L16":
            return L16(wanted)
        case "G722":
            return G722()
        case "OPUS":
            return Opus()
        case "G729":
            return G729()
    raise ValueError(f"{wanted.encoding} is not sound")


def _ulaw() -> Samples:
    """The 256 values of mu-law."""
    code = ~np.arange(256, dtype=np.uint8)
    exponent = (code >> 4) & 0x07
    magnitude = (((code & 0x0F).astype(np.int32) << 3) + 0x84 << exponent) - 0x84
    return (np.where(code & 0x80, -magnitude, magnitude) / INT16_SCALE).astype(np.float32)


def _alaw() -> Samples:
    """The 256 values of A-law."""
    code = np.arange(256, dtype=np.uint8) ^ 0x55
    exponent = ((code >> 4) & 0x07).astype(np.int32)
    mantissa = ((code & 0x0F).astype(np.int32) << 4) + 8
    magnitude = np.where(exponent == 0, mantissa, mantissa + 0x100 << np.maximum(exponent - 1, 0))
    return (np.where(code & 0x80, magnitude, -magnitude) / INT16_SCALE).astype(np.float32)


ULAW: Samples = _ulaw()
ALAW: Samples = _alaw()


class G711:
    """PCMU or PCMA by table (ITU-T G.711)."""

    sample_rate = 8000

    def __init__(self, table: Samples):
        self.table = table

    def duration(self, payload: bytes) -> int:
        """One tick a byte."""
        return len(payload)

    def decode(self, payload: bytes) -> Samples:
        """One sample a byte."""
        return self.table[np.frombuffer(payload, np.uint8)]


class L16:
    """Linear 16 bit, big-endian, channels interleaved (RFC 3551, section 4.5.11)."""

    def __init__(self, wanted: Format):
        self.sample_rate = wanted.clock_rate
        self._channels = wanted.channels

    def duration(self, payload: bytes) -> int:
        """One tick a sample of all channels; at least 1, so that half a sample is not taken for silence."""
        return max(1, len(payload) // (2 * self._channels))

    def decode(self, payload: bytes) -> Samples | None:
        """The mean of the channels."""
        n_samples = len(payload) // (2 * self._channels)
        if n_samples * 2 * self._channels != len(payload):
            return None
        samples = np.frombuffer(payload, ">i2").astype(np.float32) / np.float32(INT16_SCALE)
        return samples if self._channels == 1 else samples.reshape(-1, self._channels).mean(axis=1)


class _Av:
    """A decoder of libavcodec; imported only where a stream needs it."""

    codec: str
    sample_rate: int

    def __init__(self) -> None:
        import av

        self._av = av
        self._context = cast("av.AudioCodecContext", av.CodecContext.create(self.codec, "r"))
        self._context.sample_rate = self.sample_rate
        self._context.layout = "mono"

    def decode(self, payload: bytes) -> Samples | None:
        try:
            frames = self._context.decode(self._av.Packet(payload))
        except self._av.FFmpegError:
            return None
        parts = [frame.to_ndarray() for frame in frames]
        if not parts:
            return None
        samples = np.concatenate([part.reshape(len(part), -1).mean(axis=0) for part in parts])
        scale = 1 / INT16_SCALE if parts[0].dtype == np.int16 else 1.0
        return (samples * scale).astype(np.float32)


class G722(_Av):
    """ITU-T G.722: 16 kHz sound on a clock of 8 kHz, for reasons of history (RFC 3551, section 4.5.2)."""

    codec = "g722"
    sample_rate = 16_000

    def duration(self, payload: bytes) -> int:
        """One tick a byte."""
        return len(payload)


class Opus(_Av):
    """Opus, mixed down to mono (RFC 6716, RFC 7587)."""

    codec = "libopus"
    sample_rate = 48_000

    def duration(self, payload: bytes) -> int:
        """From the TOC byte (RFC 6716, section 3.1)."""
        config, code = payload[0] >> 3, payload[0] & 0x03
        if config < 12:
            ticks = (480, 960, 1920, 2880)[config & 3]
        elif config < 16:
            ticks = (480, 960)[config & 1]
        else:
            ticks = (120, 240, 480, 960)[config & 3]
        frames = (1, 2, 2, payload[1] & 0x3F if len(payload) > 1 else 1)[code]
        return ticks * min(max(frames, 1), 5760 // ticks)


class G729(_Av):
    """ITU-T G.729 and Annex A; frames of Annex B (silence descriptors) end a talkspurt (RFC 3551, 4.5.6)."""

    codec = "g729"
    sample_rate = 8000

    def duration(self, payload: bytes) -> int:
        """80 ticks a frame of 10 bytes; a trailing silence descriptor of 2 bytes lasts nothing."""
        return len(payload) // 10 * 80

    def decode(self, payload: bytes) -> Samples | None:
        """One frame at a time, as libavcodec wants it."""
        parts = [super(G729, self).decode(payload[i : i + 10]) for i in range(0, len(payload) // 10 * 10, 10)]
        whole = [part for part in parts if part is not None]
        return np.concatenate(whole) if whole and len(whole) == len(parts) else None
