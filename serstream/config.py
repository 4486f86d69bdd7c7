"""serstream.toml as frozen, typed structs; unknown keys and bad values are refused by key name."""

from __future__ import annotations

import difflib
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from serstream.errors import ConfigError
from serstream.types import Role

Share = Annotated[float, Meta(ge=0, le=1)]
Port = Annotated[int, Meta(ge=1, le=65535)]
CallName = Annotated[str, Meta(pattern="^[A-Za-z0-9_-]{0,64}$")]
"""Letters, digits, '-' and '_': it becomes a part of ZeroMQ topics, which '.' separates."""


class _Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, rename=None):
    pass


class RtpSettings(_Settings, frozen=True):
    """``[[rtp]]``: one UDP port that takes RTP."""

    address: str = "127.0.0.1"
    """Local address to bind; 0.0.0.0 takes RTP from everywhere."""
    port: Port = 5004
    role: Role = "unknown"
    """Role of every stream on this port."""
    call: str = ""
    """Call that the streams belong to; empty: every stream is a call of its own."""
    silence_timeout_s: Annotated[float, Meta(gt=0, le=3600)] = 5.0
    """A stream without packets for so long is over."""


class MicrophoneSettings(_Settings, frozen=True):
    """``[[microphone]]``: one input device."""

    device: str | int | None = None
    """Name (or a part of it) or index as 'serstream devices' prints them; absent: the default device."""
    role: Role = "unknown"
    call: CallName = ""
    """Empty: every connection of the device is a call of its own."""
    reconnect_s: Annotated[float, Meta(gt=0, le=60)] = 2.0
    """Without a sample for so long the stream ends and the device is opened again, as a new stream."""


class FileSettings(_Settings, frozen=True):
    """``[[file]]``: one recording."""

    path: str
    roles: tuple[Role, ...] = ()
    """One role per channel; empty: unknown."""
    call: CallName = ""
    """Empty: the file's name and a check sum of its path."""
    realtime: bool = True
    """Play at the speed of the recording instead of as fast as possible."""


class SegmenterSettings(_Settings, frozen=True):
    """``[segmenter]``: from sound to speech windows."""

    aggressiveness: Annotated[int, Meta(ge=0, le=3)] = 2
    """WebRTC VAD mode: 0 lets most through, 3 the least."""
    start_speech_ms: Annotated[int, Meta(ge=20, le=2000)] = 120
    """Speech begins when so much of the last 1.5 times this was voiced."""
    end_silence_ms: Annotated[int, Meta(ge=20, le=5000)] = 300
    """Speech ends after so much silence."""
    pre_roll_ms: Annotated[int, Meta(ge=0, le=2000)] = 100
    """Sound kept from before the first voiced frame."""
    window_ms: Annotated[int, Meta(ge=500, le=10_000)] = 2000
    hop_ms: Annotated[int, Meta(ge=100, le=10_000)] = 1000
    """A window starts every so often while speech lasts."""
    min_speech_ms: Annotated[int, Meta(ge=0, le=10_000)] = 600
    """Speech behind the last full window makes a final shorter one if it is at least this long."""

    def __post_init__(self) -> None:
        for key in (
            "start_speech_ms",
            "end_silence_ms",
            "pre_roll_ms",
            "window_ms",
            "hop_ms",
            "min_speech_ms",
        ):
            if getattr(self, key) % 20:
                raise ValueError(f"{key} is {getattr(self, key)}, wanted a multiple of 20 (one VAD frame)")
        if self.hop_ms > self.window_ms:
            raise ValueError(f"hop_ms is {self.hop_ms}, must be at most window_ms ({self.window_ms})")


class QualitySettings(_Settings, frozen=True):
    """``[quality]``: windows that are published as unscored instead of with an emotion."""

    max_loss: Share = 0.2
    max_clipping: Share = 0.1
    min_level_dbfs: Annotated[float, Meta(ge=-100, le=0)] = -60.0
    min_speech: Share = 0.2


class ModelSettings(_Settings, frozen=True):
    """``[model]``: what scores the windows."""

    path: str = ""
    """A model.onnx, relative to the configuration file; empty: the model that ships with serstream."""
    threads: Annotated[int, Meta(ge=1, le=64)] = 1
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto takes CUDA when a session can really use it, else the CPU."""
    require_gpu: bool = False
    """Refuse to run on the CPU."""


class TrackerSettings(_Settings, frozen=True):
    """``[tracker]``: from scores to emotions."""

    smoothing_s: Annotated[float, Meta(ge=0, le=60)] = 3.0
    """Time constant of the exponential smoothing, seconds of speech."""


class FeedSettings(_Settings, frozen=True):
    """``[feed]``: what the daemon publishes, and to whom."""

    endpoint: str = "tcp://127.0.0.1:5556"
    """Bound PUB socket; late joiners ask at the next port. Anything but loopback and ipc needs ``keys``."""
    format: Literal["json", "msgpack"] = "json"
    high_water_mark: Annotated[int, Meta(ge=1, le=10_000_000)] = 10_000
    """Messages kept per slow subscriber before they are dropped."""
    history: Annotated[int, Meta(ge=0, le=10_000_000)] = 50_000
    """Messages kept for subscribers that missed some; about 1 KB each."""
    heartbeat_s: Annotated[float, Meta(gt=0, le=60)] = 1.0
    keys: str = ""
    """Directory made by 'serstream keys', relative to the configuration file; empty: no encryption."""


class Settings(_Settings, frozen=True):
    """The whole of serstream.toml."""

    rtp: tuple[RtpSettings, ...] = ()
    microphone: tuple[MicrophoneSettings, ...] = ()
    file: tuple[FileSettings, ...] = ()
    segmenter: SegmenterSettings = SegmenterSettings()
    quality: QualitySettings = QualitySettings()
    model: ModelSettings = ModelSettings()
    tracker: TrackerSettings = TrackerSettings()
    feed: FeedSettings = FeedSettings()


def load(path: Path) -> Settings:
    """Read a configuration file.

    Raises:
        ConfigError: the file is missing, is not TOML, or a key or value is not allowed.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"configuration {path}: cannot read it: {error}") from error
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"configuration {path}: not TOML: {error}") from error
    return parse(tables, str(path))


def parse(tables: dict[str, Any], where: str) -> Settings:
    """Turn TOML tables into settings.

    Raises:
        ConfigError: names the key, the value seen and the value wanted.
    """
    try:
        return msgspec.convert(tables, Settings)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: {_explain(str(error), tables)}") from error


def _explain(message: str, tables: dict[str, Any]) -> str:
    """Msgspec's message with key names as TOML writes them, the value seen, and the nearest known key."""
    text, _, path = message.partition(" - at `$")
    steps = re.findall(r"[^.\[\]`]+", path)
    key = re.sub(r"^\.", "", path.rstrip("`"))
    unknown = re.search(r"unknown field `(.+)`", text)
    if unknown:
        known = _known_keys(steps)
        near = difflib.get_close_matches(unknown[1], known, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"known keys: {', '.join(known)}"
        return f"unknown key '{'.'.join(filter(None, (key, unknown[1])))}'; {hint}"
    value: Any = tables
    for step in steps:
        value = (
            value[int(step)] if isinstance(value, (list, tuple)) and step.isdigit() else _child(value, step)
        )
    return f"{key or 'top level'} is {value!r}: {text}"


def _child(value: Any, step: str) -> Any:
    return value.get(step) if isinstance(value, dict) else value


def _known_keys(steps: list[str]) -> list[str]:
    tables: dict[str, type[msgspec.Struct]] = {
        "rtp": RtpSettings,
        "microphone": MicrophoneSettings,
        "file": FileSettings,
        "segmenter": SegmenterSettings,
        "quality": QualitySettings,
        "model": ModelSettings,
        "tracker": TrackerSettings,
        "feed": FeedSettings,
    }
    return list((tables[steps[0]] if steps else Settings).__struct_fields__)
