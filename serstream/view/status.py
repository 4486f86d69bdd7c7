"""`serstream status` for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from serstream.service.health import PortHealth
from serstream.service.status import Status

NAMED_CLIENTS = 3
"""Those that asked for the most messages again."""


def describe(status: Status) -> str:
    """A few lines; counts since the start."""
    health, model = status.health, status.model
    windows = ", ".join(f"{count} {outcome}" for outcome, count in sorted(health.windows.items())) or "none"
    beside = "".join(
        f", {kind} {candidate.name}"
        for kind, candidate in (("shadow", model.shadow), ("canary", model.canary))
        if candidate
    )
    muted = f", {health.muted} muted: overload; {health.muted_s:g} s passed over" if health.muted_s else ""
    lines = [
        f"serstream {status.version}, pid {status.pid}, up {status.uptime_s:.0f} s, since {status.started}",
        f"model     {model.name} on {model.providers[0]}{beside}; "
        f"{model.swaps} swaps, {model.refusals} refused",
        f"sources   {', '.join(health.sources) or 'none'}",
        f"streams   {status.streams}{muted}",
        f"windows   {windows}; {health.window_limit or 'not yet measured'} fit into one turn",
        f"waiting   {health.waiting_s:g} s of sound, {health.dropped_s:g} s dropped",
        f"feed      {status.feed}: {health.subscribers} subscribers, {health.refused_clients} refused; "
        f"{health.published} published, {health.overflowed} met a full queue, {_repeated(health.repeated)}",
        *(_port(port) for port in health.ports),
        *(f"{name:<19} {lost_s:g} s lost to overflows" for name, lost_s in health.microphone_lost_s.items()),
    ]
    if health.stuck:
        lines.append(f"STUCK     {', '.join(health.stuck)}")
    if health.reload_error:
        lines.append(f"RELOAD    failed: {health.reload_error}")
    return "\n".join(lines)


def _repeated(by_client: Mapping[str, int]) -> str:
    """How many messages were sent again, and to whom most of them; a client without a key has no name."""
    most = Counter(by_client).most_common(NAMED_CLIENTS)
    named = ", ".join(f"{name} {count}" for name, count in most if name)
    return f"{sum(by_client.values())} repeated" + (f" ({named})" if named else "")


def _port(port: PortHealth) -> str:
    packets = ", ".join(f"{count} {fate}" for fate, count in port.packets.items() if count) or "none"
    dropped = ", ".join(f"{count} {reason}" for reason, count in port.dropped.items()) or "none"
    return (
        f"rtp:{port.where:<15} {len(port.streams)} streams; packets: {packets}; "
        f"dropped: {dropped}; by the kernel: {port.kernel_drops} "
        f"(buffer {port.receive_buffer_bytes // 1024} kB)"
    )
