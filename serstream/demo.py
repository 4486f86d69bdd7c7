"""``serstream demo``: a sample call through a real daemon process, over real RTP, watched live.

Nothing is staged: the daemon is the one that `serstream run` starts, the sound goes over UDP in real time,
and what is shown arrives over the ZeroMQ feed.
"""

from __future__ import annotations

import threading
import time

import numpy as np
import soundfile
from rich.console import Console
from rich.table import Table

from serstream.errors import SerstreamError
from serstream.feed.messages import CallEnded, UtteranceEmotion
from serstream.rehearsal import DaemonProcess, Leg, free_port_pair
from serstream.rtp.sender import send_in_real_time
from serstream.shipped import SAMPLE_CALL
from serstream.types import Role
from serstream.view.console import console
from serstream.view.emoji import face
from serstream.view.live import view_on

PARTIES: tuple[Role, ...] = ("customer", "agent")
END_TIMEOUT_S = 10.0
"""How long the end of the call may take after the last packet."""


def run_demo() -> int:
    """Play the sample call through a daemon and show what it says.

    Returns:
        0 when every window came back, else 1.

    Raises:
        SerstreamError: the daemon did not start, or the call did not end.
    """
    screen = console()
    samples, _ = soundfile.read(SAMPLE_CALL, dtype="int16", always_2d=True)
    legs = [Leg(samples[:, i], free_port_pair(), i + 1, role) for i, role in enumerate(PARTIES)]
    sources = [f'[[rtp]]\nport = {leg.outgoing.port}\nrole = "{leg.role}"\ncall = "demo"' for leg in legs]
    # The agent of the sample call is an actor: nobody's emotions at work are inferred.
    configuration = "\n".join([*sources, "[privacy]", "analyse_agents = true"])
    with DaemonProcess(configuration) as daemon:
        stopped = threading.Event()
        sender = threading.Thread(target=send_in_real_time, args=([leg.outgoing for leg in legs], stopped))
        sender.start()
        try:
            _watch(screen, daemon, legs, sender)
        finally:
            stopped.set()
            sender.join()
    _print_summary(screen, legs)
    return 1 if any(leg.lost for leg in legs) else 0


def _watch(screen: Console, daemon: DaemonProcess, legs: list[Leg], sender: threading.Thread) -> None:
    """Show the call until it has ended."""
    by_role: dict[str, Leg] = {leg.role: leg for leg in legs}
    deadline = float("inf")
    with view_on(screen) as view:
        while True:
            now = time.monotonic()
            for event, arrived in daemon.take(0.1):
                view.update(event, arrived)
                if isinstance(event, CallEnded):
                    return
                if leg := by_role.get(getattr(event, "role", "")):
                    leg.take(event, arrived)
            view.refresh(now)
            if not sender.is_alive():
                deadline = min(deadline, now + END_TIMEOUT_S)
            if now > deadline:
                raise SerstreamError(
                    f"the call did not end within {END_TIMEOUT_S:.0f} s of its last packet; "
                    f"the daemon's log:\n{daemon.log()}"
                )


def _print_summary(screen: Console, legs: list[Leg]) -> None:
    table = Table(title="The call")
    table.add_column("party")
    table.add_column("emotions over time", no_wrap=True)
    table.add_column("events", justify="right")
    table.add_column("windows\nlost", justify="right")
    table.add_column("latency ms\nmedian / p99", justify="right")
    for leg in legs:
        latencies = leg.latencies_ms or [float("nan")]
        table.add_row(
            leg.role,
            "\n".join(map(_line, leg.utterances)),
            str(leg.events),
            f"{leg.lost} of {len(leg.expected)}",
            f"{np.median(latencies):.0f} / {np.percentile(latencies, 99):.0f}",
        )
    screen.print(table)
    screen.print("Latency: from sending the packet that completes a window to its event here.")


def _line(utterance: UtteranceEmotion) -> str:
    emoji = face(utterance.emotion)
    span = f"{utterance.start:2.0f}-{utterance.end:2.0f} s"
    return f"{span} {emoji} {utterance.emotion} {utterance.confidence:.0%}"
