"""The service in a real systemd: install, boot, reload, kill, freeze, stop, uninstall.

Boots a Debian in a container (debootstrap, systemd-nspawn; both need root) without a network, installs
serstream with `make install`, and plays real RTP to it from inside. Prints a line per step; exit code 1 at
the first that fails, 0 with the reason when this machine cannot do it.

    python tests/systemd_rehearsal.py [ROOT]     # ROOT: where the Debian is, or shall be made
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).parent.parent
ROOT = Path("/var/cache/serstream-rehearsal")
PACKAGES = "systemd,systemd-sysv,dbus,python3,python3-venv,make,passwd"
PLAY = """
import sys, soundfile, numpy
from serstream.rtp.sender import OutgoingStream, encode_mulaw, send_in_real_time
from serstream.shipped import SAMPLE_CALL
samples, _ = soundfile.read(SAMPLE_CALL, dtype="int16", always_2d=True)
legs = [encode_mulaw(numpy.ascontiguousarray(party)) for party in samples.T]
send_in_real_time([OutgoingStream("127.0.0.1", 5004, 7 + i, leg) for i, leg in enumerate(legs)])
"""


def cannot() -> str:
    """Why this machine cannot rehearse; empty when it can."""
    if os.geteuid() != 0:
        return "needs root"
    missing = [tool for tool in ("debootstrap", "systemd-nspawn", "nsenter") if not shutil.which(tool)]
    return f"not installed: {', '.join(missing)}" if missing else ""


class Machine:
    """A booted container; commands run inside it."""

    def __init__(self, root: Path, wheel: Path):
        # Debian's Python takes the libraries from our environment instead of downloading them.
        libraries = sysconfig.get_paths()["purelib"]
        self._boot = subprocess.Popen(
            [
                *(
                    "systemd-nspawn",
                    "--quiet",
                    "--boot",
                    f"--directory={root}",
                    "--register=no",
                    "--keep-unit",
                ),
                *("--private-network", "--volatile=overlay", "--console=pipe"),
                f"--bind-ro={CHECKOUT}:/src",
                f"--bind-ro={libraries}:/libraries",
                f"--bind-ro={wheel.parent}:/wheel",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            wait(
                "boot", lambda: self.run("systemctl is-active multi-user.target", check=False) == "active", 60
            )
        except AssertionError:
            self.close()
            raise

    def run(self, command: str, *, check: bool = True) -> str:
        """Output of a shell command inside."""
        done = subprocess.run(
            ["nsenter", "--target", self._leader(), "--all", "bash", "-c", command],
            capture_output=True,
            text=True,
            timeout=180,
        )
        if check and done.returncode:
            raise AssertionError(f"{command}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout.strip()

    def start(self, command: str) -> subprocess.Popen[str]:
        """A shell command inside that goes on beside us."""
        return subprocess.Popen(
            ["nsenter", "--target", self._leader(), "--all", "bash", "-c", command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def show(self, name: str) -> str:
        """A property of the service."""
        return self.run(f"systemctl show -P {name} serstream.service")

    def status(self) -> dict[str, Any]:
        """What `serstream status` says."""
        status: dict[str, Any] = json.loads(self.run("serstream status --json"))
        return status

    def close(self) -> None:
        """Power off."""
        subprocess.run(["kill", "-s", "RTMIN+4", self._leader()], check=False)
        try:
            self._boot.wait(20)
        except subprocess.TimeoutExpired:
            self._boot.kill()

    def _leader(self) -> str:
        """The container's first process; asked each time, for at first it is one that makes the container."""
        children = Path(f"/proc/{self._boot.pid}/task/{self._boot.pid}/children").read_text().split()
        return children[0] if children else "0"


def wait(what: str, true: Callable[[], bool], seconds: float) -> float:
    """Seconds until it was true."""
    began = time.monotonic()
    while not true():
        if time.monotonic() - began > seconds:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.05)
    return time.monotonic() - began


def rehearse(machine: Machine) -> None:
    """Every step; raises at the first that fails."""
    install = (
        "cd /src && python3 -m venv --system-site-packages /opt/serstream 2>/dev/null; "
        "echo /libraries > $(echo /opt/serstream/lib/python3*/site-packages)/libraries.pth; "
        "make --no-print-directory install PACKAGE=$(echo /wheel/*.whl) PIP_OPTIONS='--no-index --no-deps'"
    )
    machine.run(f"{install} > /tmp/install.log 2>&1 || {{ cat /tmp/install.log; exit 1; }}")
    say(
        "installed", f"service {machine.show('ActiveState')}, ready after start: {machine.show('StatusText')}"
    )
    assert machine.show("ActiveState") == "active", machine.run(
        "journalctl -u serstream --no-pager | tail -30"
    )
    assert machine.run("systemctl is-enabled serstream") == "enabled"
    machine.run("echo '# kept' >> /etc/serstream/serstream.toml")
    machine.run(install)
    assert "# kept" in machine.run("tail -1 /etc/serstream/serstream.toml")
    say("installed again", "configuration kept")

    inside = "nsenter -t $(systemctl show -P MainPID serstream) -m setpriv --reuid serstream --clear-groups"
    for place in ("/etc/serstream/x", "/opt/serstream/x", "/usr/x", "/home/x", "/var/log/x"):
        assert machine.run(f"{inside} touch {place} 2>/dev/null && echo written", check=False) == "", place
    machine.run(f"{inside} touch /var/lib/serstream/x && rm /var/lib/serstream/x")
    say("confined", "writes to nothing but its state directory")

    listen = machine.start("timeout 120 /opt/serstream/bin/serstream listen > /tmp/events")
    machine.run(f"cat > /tmp/play.py <<'END'\n{PLAY}\nEND")
    play = machine.start("/opt/serstream/bin/python /tmp/play.py")
    time.sleep(5)
    before = machine.show("MainPID")
    for _ in range(3):
        machine.run("systemctl reload serstream")
        time.sleep(2)
    machine.run("sed -i 's/^#max_delay_ms.*/max_delay_sm = 1/' /etc/serstream/serstream.toml")
    assert machine.run("systemctl reload serstream && echo accepted", check=False) == ""
    machine.run("sed -i 's/^max_delay_sm.*/max_delay_ms = 400/' /etc/serstream/serstream.toml")
    assert play.wait(90) == 0
    time.sleep(7)
    assert machine.show("MainPID") == before
    ends = [json.loads(line) for line in machine.run("grep stream_end /tmp/events").splitlines()]
    lost = sum(end["lost_s"] for end in ends)
    assert len(ends) == 2, ends
    assert not lost, ends
    counts = machine.run('grep -cE \'"type":"(window|unscored)"\' /tmp/events')
    assert int(counts) == sum(end["windows"] + end["unscored"] for end in ends)
    say("reloaded under traffic", f"{counts} windows, none lost; a reload with a wrong key was refused")

    play = machine.start("/opt/serstream/bin/python /tmp/play.py")
    time.sleep(5)
    pid = machine.show("MainPID")
    machine.run(f"kill -9 {pid}")
    seconds = wait(
        "back after kill -9",
        lambda: machine.show("MainPID") not in (pid, "0") and machine.show("ActiveState") == "active",
        10,
    )
    time.sleep(2)
    streams = machine.status()["health"]["ports"][0]["streams"]
    lost_packets = sum(stream["lost"] for stream in streams)
    took = machine.run("journalctl -u serstream --no-pager | grep -c 'took over the UDP socket'")
    drops = machine.status()["health"]["ports"][0]["kernel_drops"]
    say(
        "killed",
        f"ready again after {seconds:.1f} s, {took} sockets kept, {lost_packets} lost, {drops} dropped",
    )
    assert seconds < 2.0 and int(took) >= 2 and not lost_packets and not drops
    assert play.wait(90) == 0

    pid = machine.show("MainPID")
    machine.run(f"kill -STOP {pid}")
    seconds = wait(
        "back after SIGSTOP",
        lambda: machine.show("MainPID") not in (pid, "0") and machine.show("ActiveState") == "active",
        30,
    )
    say("frozen", f"the watchdog had it ready again after {seconds:.1f} s")

    play = machine.start("/opt/serstream/bin/python /tmp/play.py")
    time.sleep(8)
    machine.run(
        "> /tmp/stopped; timeout 30 /opt/serstream/bin/serstream listen > /tmp/stopped & sleep 2; "
        "systemctl stop serstream; sleep 2; kill %1"
    )
    ends = [json.loads(line) for line in machine.run("grep stream_end /tmp/stopped").splitlines()]
    assert [end["reason"] for end in ends] == ["shutdown", "shutdown"], ends
    assert machine.show("Result") == "success"
    say("stopped", "both streams said goodbye")
    play.kill()
    listen.kill()

    machine.run("cd /src && make --no-print-directory uninstall")
    left = machine.run("find / -xdev -path /src -prune -o -path /proc -prune -o -iname '*serstream*' -print")
    remains = {
        line for line in left.splitlines() if not line.startswith(("/etc/serstream", "/var/lib/serstream"))
    }
    assert not remains, remains
    assert machine.run("ls /etc/serstream/serstream.toml /var/lib/serstream/models")
    say("uninstalled", "configuration and models are left, nothing else")


def say(step: str, text: str) -> None:
    """A line about a step that went well."""
    print(f"{step:24} {text}", flush=True)


def main() -> int:
    """Make the Debian if need be, and rehearse."""
    if reason := cannot():
        print(f"systemd rehearsal not done: {reason}")
        return 0
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT
    if not (root / "usr").is_dir():
        made = subprocess.run(
            ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", str(root)]
        )
        if made.returncode:
            print("systemd rehearsal not done: debootstrap could not make a Debian (no network?)")
            return 0
    with tempfile.TemporaryDirectory() as folder:
        wheel = [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--no-deps",
            "--wheel-dir",
            folder,
            str(CHECKOUT),
        ]
        subprocess.run(wheel, check=True)
        machine = Machine(root, Path(next(Path(folder).glob("*.whl"))))
        try:
            rehearse(machine)
        except AssertionError as error:
            print(f"FAILED: {error}")
            print(machine.run("journalctl -u serstream --no-pager | tail -40", check=False))
            return 1
        finally:
            machine.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
