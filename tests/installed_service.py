"""serstream as it is installed in a `Machine`: heard, configured, and looked at from inside its sandbox."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any, TypeAlias

from nspawn import Machine, wait

PROBE = """[Service]
Type=oneshot
ExecStart=
ExecReload=
ExecStart=/bin/bash /etc/serstream/probe
StandardOutput=truncate:/tmp/probe
StandardError=inherit
RuntimeDirectory=
Environment=RUNTIME_DIRECTORY=/run/serstream
FileDescriptorStoreMax=0
TimeoutStartSec=150
Restart=no
"""

Events: TypeAlias = list[dict[str, Any]]
_numbers = count()


@contextmanager
def listening(machine: Machine, options: str = "") -> Iterator[Callable[[], Events]]:
    """A subscriber inside; what it has heard so far."""
    name = f"listener-{next(_numbers)}"
    file = f"/tmp/{name}"
    snapshots = machine.status()["health"]["snapshots"]
    machine.run(
        f"systemd-run --quiet --collect --unit={name} --property=StandardOutput=file:{file} "
        f"serstream listen {options}"
    )
    wait("a subscriber connected", lambda: machine.status()["health"]["snapshots"] > snapshots, 20)
    yield lambda: [json.loads(line) for line in machine.run(f"cat {file}").splitlines()]
    machine.ask(f"systemctl stop {name}")


@contextmanager
def drop_in(machine: Machine, text: str) -> Iterator[None]:
    """The service restarted with a drop-in, and without it behind."""
    file = "/etc/systemd/system/serstream.service.d/rehearsal.conf"
    machine.write(file, f"[Service]\n{text}\n")
    machine.run("systemctl daemon-reload && systemctl restart serstream")
    yield
    machine.run(f"rm {file} && systemctl daemon-reload && systemctl restart serstream")


def inside(machine: Machine, script: str) -> str:
    """Output of a shell script run as the service is: its user, its sandbox, its state directory."""
    unit = "/run/systemd/system/serstream-probe.service"
    if not machine.ask(f"ls {unit}"):
        machine.run(f"cp /usr/local/lib/systemd/system/serstream.service {unit}")
        machine.write(f"{unit}.d/probe.conf", PROBE)
        machine.run("systemctl daemon-reload")
    machine.write("/etc/serstream/probe", f"set -e\n{script}\n")
    machine.ask("systemctl start serstream-probe")
    output = machine.run("cat /tmp/probe")
    assert machine.show("Result", "serstream-probe") == "success", output
    return output


def ended(heard: Callable[[], Events], n_streams: int) -> Events:
    """The ends of so many streams, of which every window must have arrived."""

    def ends() -> Events:
        return [event for event in heard() if event["type"] == "stream_end"]

    wait(f"{n_streams} streams over", lambda: len(ends()) >= n_streams, 60)
    assert len(ends()) == n_streams, ends()
    told = sum(end["windows"] + end["unscored"] for end in ends())
    windows = sum(event["type"] in ("window", "unscored") for event in heard())
    assert told == windows, f"{windows} windows arrived, {told} were told at the ends"
    return ends()


def exposure(machine: Machine) -> float:
    """What `systemd-analyze security` says of the service, 0 (best) to 10."""
    told = machine.ask("systemd-analyze security --no-pager serstream.service")
    found = re.search(r"exposure level for \S+: ([0-9.]+)", told)
    assert found, told
    return float(found[1])
