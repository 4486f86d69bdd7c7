"""serstream.toml as frozen, typed structs; unknown keys and bad values are refused by key name."""

from __future__ import annotations

import ipaddress
import os
import re
import tomllib
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from serstream.errors import ConfigError, readable
from serstream.explain import explain
from serstream.overrides import Override, apply
from serstream.types import Role, Severity

Share = Annotated[float, Meta(ge=0, le=1)]
Port = Annotated[int, Meta(ge=1, le=65535)]
CallName = Annotated[str, Meta(pattern=r"^(?!-\Z)[A-Za-z0-9_-]{0,64}\Z")]
"""Letters, digits, '-' and '_': it becomes a part of ZeroMQ topics, which '.' separates. '-' alone is
the daemon's own."""


def as_name(text: str, otherwise: str) -> str:
    """What streams and calls may be named after a text; of one without letters and digits: ``otherwise``."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-") or otherwise


class _Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, rename=None):
    pass


class RtpSettings(_Settings, frozen=True):
    """``[[rtp]]``: one UDP port that takes RTP."""

    name: CallName = ""
    """What its streams, and calls without a name of their own, are named after; empty: ``rtp-PORT``."""
    address: str = "127.0.0.1"
    """Local address to bind, or multicast group to join; 0.0.0.0 takes RTP from everywhere."""
    port: Port = 5004
    rtcp_mux: bool = False
    """RTCP comes on the RTP port only (RFC 5761); else the next port is bound too."""
    role: Role = "unknown"
    """Role of every stream on this port that ``roles`` and ``parties`` say nothing about."""
    roles: dict[str, Role] = {}
    """Roles by sender: an SSRC (``0x1A2B3C4D``) or a network (``10.1.0.0/16``)."""
    parties: tuple[Role, ...] = ()
    """The streams of this port that live at the same time are one call, in these roles as they appear."""
    call: CallName = ""
    """Call that the streams belong to; empty: every stream is a call of its own (but see ``parties``)."""
    silence_timeout_s: Annotated[float, Meta(gt=0, le=3600)] = 5.0
    """A stream without packets for so long is over."""
    ssrc_change_s: Annotated[float, Meta(ge=0, le=60)] = 1.0
    """A sender's only stream goes on under another SSRC if that comes within so long of silence."""
    max_streams: Annotated[int, Meta(ge=1, le=100_000)] = 1000
    allow: tuple[str, ...] = ()
    """Networks that may send, in CIDR notation; empty: all."""
    latch: Literal["stream", "port", "off"] = "stream"
    """An SSRC, or the whole port, belongs to its first sender until the stream is over."""
    sdp: str = ""
    """What the sender announced: a file, relative to the configuration file, or the SDP itself."""
    payload_types: dict[str, str] = {}
    """Payload type to ``encoding/clock rate[/channels]``; wins over ``sdp``."""
    srtp: tuple[str, ...] = ()
    """Keys, as in ``a=crypto``: ``SUITE inline:KEY``. What they do not open is dropped."""
    jitter_min_ms: Annotated[int, Meta(ge=0, le=1000)] = 40
    """Least wait for a missing packet behind its mean time of arrival."""
    jitter_max_ms: Annotated[int, Meta(ge=20, le=2000)] = 400
    receive_buffer_kb: Annotated[int, Meta(ge=64, le=1_048_576)] = 4096
    """SO_RCVBUF that is asked of the kernel."""

    def __post_init__(self) -> None:
        if self.jitter_min_ms > self.jitter_max_ms:
            raise ValueError(
                f"jitter_min_ms is {self.jitter_min_ms}, must be at most jitter_max_ms ({self.jitter_max_ms})"
            )
        try:
            ipaddress.ip_address(self.address)
        except ValueError as error:
            raise ValueError(
                f"address is {self.address!r}, wanted an IP address of this machine, of a multicast group, "
                "0.0.0.0 or ::"
            ) from error
        if not self.rtcp_mux and self.port == 65535:
            raise ValueError("port is 65535, there is no next one for RTCP: choose another or set rtcp_mux")
        for key, networks in (("allow", self.allow), ("roles", tuple(self.roles))):
            for network in networks:
                if not (key == "roles" and re.fullmatch(r"0x[0-9A-Fa-f]{1,8}", network)):
                    try:
                        ipaddress.ip_network(network)
                    except ValueError as error:
                        raise ValueError(
                            f"{key} has {network!r}: {error}; wanted e.g. '10.1.0.0/16'"
                        ) from error

    @property
    def prefix(self) -> str:
        """What the names of its streams begin with."""
        return self.name or f"rtp-{self.port}"

    @property
    def label(self) -> str:
        """What log and status call it."""
        return f"rtp:{self.address}:{self.port}"

    @property
    def sockets(self) -> dict[tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int], str]:
        """Address and UDP port of each socket that it binds, and what for."""
        ip = ipaddress.ip_address(self.address)
        rtp = {(ip, self.port): "RTP"}
        return rtp if self.rtcp_mux else {**rtp, (ip, self.port + 1): "RTCP"}


class MicrophoneSettings(_Settings, frozen=True):
    """``[[microphone]]``: one input device."""

    device: str | int | None = None
    """Name (or a part of it) or index as 'serstream devices' prints them; absent: the default device."""
    role: Role = "unknown"
    call: CallName = ""
    """Empty: every connection of the device is a call of its own."""
    reconnect_s: Annotated[float, Meta(gt=0, le=5)] = 2.0
    """Without a sample for so long the stream ends and the device is opened again, as a new stream. A source
    that is silent for longer than 5 s could be taken for stuck."""

    @property
    def label(self) -> str:
        """What log and status call it."""
        return f"microphone:{'default' if self.device is None else self.device}"


class FileSettings(_Settings, frozen=True):
    """``[[file]]``: one recording."""

    path: str
    roles: tuple[Role, ...] = ()
    """One role per channel; empty: unknown."""
    call: CallName = ""
    """Empty: the file's name and a check sum of its path."""
    realtime: bool = True
    """Play at the speed of the recording instead of as fast as possible."""

    @property
    def prefix(self) -> str:
        """What the names of its streams begin with."""
        # The sum keeps recordings of the same name apart, and the same one played in two calls.
        key = zlib.crc32(os.fsencode(f"{self.path}\0{self.call}"))
        return f"{as_name(Path(self.path).stem, 'file')[:40]}-{key:08x}"

    @property
    def label(self) -> str:
        """What log and status call it."""
        return f"file:{self.path}"


class SegmenterSettings(_Settings, frozen=True):
    """``[segmenter]``: from sound to speech windows."""

    aggressiveness: Annotated[int, Meta(ge=0, le=3)] = 2
    """WebRTC VAD mode: 0 lets most through, 3 the least."""
    start_speech_ms: Annotated[int, Meta(ge=20, le=2000)] = 120
    """Speech begins after so much uninterrupted voice."""
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

    repository: str = ""
    """Folder of published models, relative to the configuration file; empty: those that ship."""
    path: str = ""
    """One model.onnx instead of a repository, relative to the configuration file."""
    shadow_share: Share = 1.0
    """Share of the streams that a shadow model hears too."""
    canary_share: Annotated[float, Meta(gt=0, le=1)] = 0.1
    """Share of the calls that a canary scores, unless it is asked to score another."""
    auto_activate: bool = False
    """Activate a newer version of the active model as soon as it is published."""
    threads: Annotated[int, Meta(ge=1, le=64)] = 1
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto takes CUDA when a session can really use it, else the CPU."""
    require_gpu: bool = False
    """Refuse to run on the CPU."""


class TrackerSettings(_Settings, frozen=True):
    """``[tracker]``: from scores to emotions."""

    smoothing_s: Annotated[float, Meta(ge=0, le=60)] = 3.0
    """Time constant of the exponential smoothing, seconds of speech."""


class PrivacySettings(_Settings, frozen=True):
    """``[privacy]``: who is analysed; see docs/privacy.md."""

    analyse_agents: bool = False
    """Infer the emotions of agents as well; prohibited at work in the EU (AI Act, Art. 5(1)(f))."""


class AlertSettings(_Settings, frozen=True):
    """``[[alert]]``: a rule that tells supervisors about a stream."""

    name: Annotated[str, Meta(min_length=1, max_length=64)]
    """Printable, and no other rule's: whoever hears of an alert knows it by its name."""
    emotions: Annotated[tuple[str, ...], Meta(min_length=1)]
    """Labels of the model, or the groups negative and positive; their probabilities are added up."""
    threshold: Share = 0.6
    """Smoothed probability from which on the rule is met."""
    for_s: Annotated[float, Meta(ge=0, le=600)] = 6.0
    """Seconds of speech for which it must be met."""
    clear_below: Share = 0.4
    """The alert is cleared when the probability falls below; at most the threshold."""
    cool_down_s: Annotated[float, Meta(ge=0, le=3600)] = 60.0
    """Stream seconds after that in which the rule is not raised again."""
    role: Role | Literal["any"] = "any"
    severity: Severity = "warning"

    def __post_init__(self) -> None:
        if not self.name.isprintable():
            raise ValueError(f"name is {self.name!r}, wanted printable characters only")
        if self.clear_below > self.threshold:
            raise ValueError(
                f"clear_below is {self.clear_below}, must be at most threshold ({self.threshold})"
            )


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
    server_keys: str = ""
    """File with the daemon's own pair, relative likewise; empty: server.toml in ``keys``."""


class ControlSettings(_Settings, frozen=True):
    """``[control]``: where the commands talk to the running daemon."""

    socket: str = ""
    """Socket file, relative to the configuration file; empty: `serstream.service.control_path` says where."""


class OverloadSettings(_Settings, frozen=True):
    """``[overload]``: what happens when there is more speech than can be scored."""

    max_delay_ms: Annotated[int, Meta(ge=10, le=60_000)] = 500
    """Scoring of one turn may take so long; windows beyond that are published as unscored. Streams are muted
    when sound waits for half of it."""


class MetricsSettings(_Settings, frozen=True):
    """``[metrics]``: HTTP on loopback for Prometheus and health checks."""

    port: Annotated[int, Meta(ge=0, le=65535)] = 9464
    """0: none."""


class Settings(_Settings, frozen=True):
    """The whole of serstream.toml."""

    rtp: tuple[RtpSettings, ...] = ()
    microphone: tuple[MicrophoneSettings, ...] = ()
    file: tuple[FileSettings, ...] = ()
    segmenter: SegmenterSettings = SegmenterSettings()
    quality: QualitySettings = QualitySettings()
    model: ModelSettings = ModelSettings()
    tracker: TrackerSettings = TrackerSettings()
    privacy: PrivacySettings = PrivacySettings()
    alert: tuple[AlertSettings, ...] = ()
    feed: FeedSettings = FeedSettings()
    control: ControlSettings = ControlSettings()
    overload: OverloadSettings = OverloadSettings()
    metrics: MetricsSettings = MetricsSettings()

    def __post_init__(self) -> None:
        for name, count in Counter(rule.name for rule in self.alert).items():
            if count > 1:
                raise ValueError(
                    f"[[alert]] name is {name!r} {count} times, wanted another for each rule, e.g. '{name} 2'"
                )


def load(path: Path | None, overrides: Sequence[Override] = (), only: Sequence[str] = ()) -> Settings:
    """Read a configuration file, if there is one, and lay overrides over it.

    Args:
        path: of the file.
        overrides: keys set elsewhere.
        only: tables to look at, for who asks a running daemon that judges the others; empty: all. An unknown
            name is refused in any case: it may be one of these, mistyped.

    Raises:
        ConfigError: the file is missing, is not TOML, or a key or value is not allowed.
    """
    tables = _read(path) if path else {}
    if only:
        others = set(Settings.__struct_fields__).difference(only)
        tables = {name: table for name, table in tables.items() if name not in others}
        overrides = [override for override in overrides if override.key[0] not in others]
    apply(overrides, tables)
    origins = [str(path or "configuration"), *(override.origin for override in overrides)]
    return parse(tables, " with ".join(origins))


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8-sig")  # some editors begin a file with a mark
    except OSError as error:
        raise ConfigError(
            f"configuration {readable(path)}: cannot read it: {error.strerror}; "
            "give the path of a serstream.toml that you may read"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"configuration {readable(path)}: not UTF-8: {error}; save it as UTF-8") from error
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"configuration {readable(path)}: not TOML: {error}") from error


def parse(tables: dict[str, Any], where: str) -> Settings:
    """Turn TOML tables into settings.

    Raises:
        ConfigError: names the key, the value seen and the value wanted.
    """
    try:
        return msgspec.convert(tables, Settings)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: {explain(error, tables, Settings)}") from error
