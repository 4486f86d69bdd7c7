"""A machine with a real systemd: a Debian booted in a container, with serstream's checkout at /src."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).parent.parent
PACKAGES = "systemd,systemd-sysv,dbus,python3,python3-venv,make,passwd"
BOOT_TIMEOUT_S = 120.0
COMMAND_TIMEOUT_S = 180.0
SERVICE = "serstream.service"


def cannot() -> str:
    """Why there can be no such machine here; empty when there can."""
    if os.geteuid() != 0:
        return "needs root"
    missing = [tool for tool in ("debootstrap", "systemd-nspawn", "nsenter", "ip") if not shutil.which(tool)]
    return f"not installed: {', '.join(missing)}" if missing else ""


def make_debian(root: Path) -> str:
    """Put a small Debian into a folder, if none is there; why not, or an empty string."""
    if root.is_dir():
        return ""
    unfinished = root.with_name(f"{root.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    made = subprocess.run(
        ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", str(unfinished)],
        stdout=subprocess.DEVNULL,
    )
    if made.returncode:
        return "debootstrap could not make a Debian (no network?)"
    unfinished.rename(root)
    return ""


class Machine:
    """A booted copy of a Debian; commands run inside it as root. Nothing of it outlives `close`.

    Args:
        root: folder of the Debian.
        wheel: serstream's, seen inside as /wheel/NAME.whl.

    Raises:
        TimeoutError: it does not boot.
    """

    def __init__(self, root: Path, wheel: Path):
        # Not nspawn's --ephemeral: that copy would not outlive a reboot, at which nspawn ends.
        self._copy = tempfile.TemporaryDirectory(prefix="serstream-machine-", dir=root.parent)
        self._wheel = wheel
        subprocess.run(
            ["cp", "--archive", "--reflink=auto", f"{root}/.", f"{self._copy.name}/root"], check=True
        )
        try:
            self._begin()
        except TimeoutError:
            self.close()
            raise

    def reboot(self) -> None:
        """Shut down in order and boot again."""
        self.ask("systemctl reboot")
        self._boot.wait(BOOT_TIMEOUT_S)
        self._begin()

    def run(self, command: str) -> str:
        """Output of a shell command inside.

        Raises:
            AssertionError: its exit code is not 0.
        """
        done = self._enter(command)
        if done.returncode:
            raise AssertionError(f"{command}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout.strip()

    def ask(self, command: str) -> str:
        """Output of a shell command inside, whatever its exit code."""
        return self._enter(command).stdout.strip()

    def refused(self, command: str) -> str:
        """What a shell command says that must fail."""
        done = self._enter(command)
        assert done.returncode, f"{command}: went well, wanted a refusal\n{done.stdout}"
        return done.stdout + done.stderr

    def start(self, command: str) -> subprocess.Popen[str]:
        """A shell command inside that goes on beside us."""
        return subprocess.Popen(
            ["nsenter", "--target", self.leader, "--all", "bash", "-c", command],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def network(self, command: str) -> str:
        """As `run`, for a command of ours in the machine's network."""
        done = subprocess.run(
            ["nsenter", "--target", self.leader, "--net", *command.split()], capture_output=True, text=True
        )
        assert not done.returncode, f"{command}: {done.stderr}"
        return done.stdout.strip()

    def write(self, path: str, text: str, mode: str = "644") -> None:
        """Make a file inside."""
        subprocess.run(
            [
                *("nsenter", "--target", self.leader, "--all", "bash", "-c"),
                f"mkdir -p $(dirname {path}) && cat > {path} && chmod {mode} {path}",
            ],
            input=text,
            text=True,
            check=True,
        )

    def show(self, name: str, unit: str = SERVICE) -> str:
        """A property of a unit."""
        return self.run(f"systemctl show -P {name} {unit}")

    def status(self) -> dict[str, Any]:
        """What `serstream status` says."""
        status: dict[str, Any] = json.loads(self.run("serstream status --json"))
        return status

    def wait_for_another(self, pid: str, seconds: float) -> float:
        """Until the service is ready again with another process; seconds."""
        return wait(
            "the service ready again",
            lambda: self.show("MainPID") not in (pid, "0") and self.show("ActiveState") == "active",
            seconds,
        )

    def close(self) -> None:
        """Power off."""
        subprocess.run(["kill", "-s", "RTMIN+4", self.leader], check=False)
        try:
            self._boot.wait(20)
        except subprocess.TimeoutExpired:
            self._boot.kill()
        self._copy.cleanup()

    @property
    def leader(self) -> str:
        """Its first process, seen from outside; another one after each boot."""
        try:
            children = Path(f"/proc/{self._boot.pid}/task/{self._boot.pid}/children").read_text().split()
        except OSError:
            children = []
        return children[0] if children else "0"

    def _begin(self) -> None:
        # Debian's Python takes the libraries from our environment instead of downloading them.
        libraries = sysconfig.get_paths()["purelib"]
        self._boot = subprocess.Popen(
            [
                *("systemd-nspawn", "--quiet", "--boot", f"--directory={self._copy.name}/root"),
                *("--register=no", "--keep-unit", "--private-network", "--console=pipe"),
                f"--bind-ro={CHECKOUT}:/src",
                f"--bind-ro={libraries}:/libraries",
                f"--bind-ro={self._wheel.parent}:/wheel",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait("boot", lambda: self.ask("systemctl is-active multi-user.target") == "active", BOOT_TIMEOUT_S)

    def _enter(self, command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["nsenter", "--target", self.leader, "--all", "bash", "-c", command],
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
        )


def wait(what: str, true: Callable[[], bool], seconds: float) -> float:
    """Seconds until it was true.

    Raises:
        TimeoutError: it was not in time.
    """
    began = time.monotonic()
    while not true():
        if time.monotonic() - began > seconds:
            raise TimeoutError(f"not within {seconds:g} s: {what}")
        time.sleep(0.05)
    return time.monotonic() - began


def starved() -> float:
    """Seconds since the boot in which something waited for a processor (PSI; 0 where the kernel has none)."""
    try:
        some = Path("/proc/pressure/cpu").read_text().splitlines()[0]
    except OSError:
        return 0.0
    return int(some.rpartition("total=")[2]) / 1e6
