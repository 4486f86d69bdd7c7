"""What `serstream run` would refuse or warn of, found without opening a socket."""

from __future__ import annotations

import ipaddress
import logging
import os
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from serstream.audio.file import FileSource
from serstream.config import AlertSettings, Settings
from serstream.emotion.alerts import GROUPS
from serstream.emotion.loading import load_model
from serstream.emotion.model import EmotionModel
from serstream.errors import ConfigError
from serstream.feed.protocol import snapshot_endpoint
from serstream.feed.publisher import server_keys
from serstream.pacing import ALWAYS
from serstream.rtp.datagrams import IpAddress
from serstream.rtp.streams import Streams
from serstream.service.control_path import MAX_PATH_BYTES, socket_path
from serstream.service.metrics import HOST
from serstream.types import Role

log = logging.getLogger(__name__)


def check(settings: Settings, base: Path) -> EmotionModel:
    """Build everything that needs no socket, no microphone and no other process.

    Args:
        settings: what to check.
        base: folder that its relative paths start from.

    Returns:
        The model that it names.

    Raises:
        SerstreamError: something is not as `serstream run` needs it.
    """
    check_sources(settings, base)
    server_keys(settings.feed, base)
    check_endpoints(settings, base)
    model = load_model(settings.model, base)
    warn_of_idle_alerts(settings.alert, model)
    tell_who_is_analysed(settings)
    return model


def check_sources(settings: Settings, base: Path) -> None:
    """There is a source, no two share a UDP port or their streams' names, and each is understood.

    Args:
        settings: what to check.
        base: folder that its relative paths start from.

    Raises:
        ConfigError: otherwise.
        SourceError: a recording cannot be used.
    """
    if not (settings.rtp or settings.microphone or settings.file):
        raise ConfigError(
            "no source: the configuration needs at least one [[rtp]], [[microphone]] or [[file]]"
        )
    taken: defaultdict[int, dict[IpAddress, str]] = defaultdict(dict)
    names: dict[str, str] = {}
    for port in settings.rtp:
        where = f"{port.address}:{port.port}"
        for (ip, number), what in port.sockets.items():
            user = f"{what} of [[rtp]] {where}"
            for other_ip, other in taken[number].items():
                if _overlap(ip, other_ip):
                    raise ConfigError(
                        f"UDP port {ip}:{number} is wanted twice, for {other} and for {user}; give one of "
                        "them another (RTP ports are even, RTCP takes the next one unless rtcp_mux is set)"
                    )
            taken[number][ip] = user
        other = names.setdefault(port.prefix, where)
        if other != where:
            raise ConfigError(
                f"[[rtp]] {where}: its first stream would be called {port.prefix}-1, as that of {other}; "
                "give one of them another name"
            )
        Streams(port, utc_offset=0.0, base=base)
    for file in settings.file:
        if file.prefix in names:
            raise ConfigError(
                f"[[file]] {file.path}: its first stream would be called {file.prefix}-1, as that of "
                f"{names[file.prefix]}; give one of them another call"
            )
        names[file.prefix] = f"another [[file]] {file.path}"
        FileSource(file, base)


def check_endpoints(settings: Settings, base: Path) -> None:
    """The feed's endpoint can be bound and connected to, the control socket and metrics beside it.

    Raises:
        ConfigError: otherwise.
    """
    endpoint = settings.feed.endpoint
    transport, _, address = endpoint.partition("://")
    folder = Path(address).parent
    # What lies below /run may be made when the service starts (RuntimeDirectory=).
    if transport == "ipc" and not os.path.isdir(folder) and Path("/run") not in folder.parents:
        raise ConfigError(
            f"feed.endpoint {endpoint}: there is no folder {folder}; make it, or choose another endpoint"
        )
    sockets = {"control.socket": str(socket_path(settings.control.socket, base))}
    if transport == "ipc":
        sockets["feed.endpoint"] = snapshot_endpoint(endpoint).removeprefix("ipc://")
    for key, path in sockets.items():
        if "\0" in path:
            raise ConfigError(f"{key}: a socket at {path} has a zero byte in its path, wanted none")
        if (length := len(os.fsencode(path))) > MAX_PATH_BYTES:
            raise ConfigError(
                f"{key}: a socket at {path} has {length} bytes in its path, wanted at most {MAX_PATH_BYTES}; "
                "choose a shorter one"
            )
    if transport == "tcp" and _takes_loopback(address.rpartition(":")[0]):
        for taken, what in ((endpoint, "events"), (snapshot_endpoint(endpoint), "snapshots")):
            if taken.endswith(f":{settings.metrics.port}"):
                raise ConfigError(
                    f"metrics.port is {settings.metrics.port}, which the feed takes for its {what}, {taken}; "
                    "give one of them another"
                )


def _takes_loopback(host: str) -> bool:
    """Whether a TCP port that is bound there is bound at `metrics.HOST`, too."""
    try:
        return _overlap(ipaddress.ip_address(host.strip("[]")), ipaddress.ip_address(HOST))
    except ValueError:
        return host in ("*", "localhost")


def _overlap(one: IpAddress, other: IpAddress) -> bool:
    """Whether two sockets cannot have the same port; ``::`` takes IPv4 as well (ipv6(7))."""
    return one == other or any(
        wide.is_unspecified and (wide.version == 6 or narrow.version == 4)
        for wide, narrow in ((one, other), (other, one))
    )


def warn_of_idle_alerts(rules: Iterable[AlertSettings], model: EmotionModel) -> None:
    """Name the emotions that alert rules wait for in vain.

    No error: models with other labels come and go while the daemon runs, and none of them may keep it from
    starting.
    """
    labels = model.metadata.labels
    idle = [
        f"{name!r} of {rule.name!r}"
        for rule in rules
        for name in rule.emotions
        if not set(GROUPS.get(name, (name,))).intersection(labels)
    ]
    if idle:
        log.warning(
            "[[alert]] emotions: model %s never says %s, only %s; correct the rule, unless it is for another "
            "model",
            model.reference,
            ", ".join(idle),
            ", ".join(labels),
        )


def tell_who_is_analysed(settings: Settings) -> None:
    """Say what becomes of agents, and name the sources where nobody can know whether there are any."""
    if settings.privacy.analyse_agents:
        log.warning(
            "privacy.analyse_agents is set: the emotions of agents are inferred, "
            "which the EU prohibits at work",
            extra=ALWAYS,
        )
        return
    log.info("streams with role agent are not scored (privacy.analyse_agents is false)")
    roles: list[tuple[str, set[Role]]] = [
        *((port.label, {port.role, *port.roles.values(), *port.parties}) for port in settings.rtp),
        *((microphone.label, {microphone.role}) for microphone in settings.microphone),
        *((file.label, set(file.roles)) for file in settings.file),
    ]
    if unnamed := [label for label, named in roles if named <= {"unknown"}]:
        log.warning(
            "no role is named for %s: everybody who speaks there is analysed, agents as well if there are "
            'any; name it by role = "customer" or "agent", where several speak by roles or parties',
            ", ".join(unnamed),
            extra=ALWAYS,
        )
