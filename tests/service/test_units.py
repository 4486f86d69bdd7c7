"""The units, as systemd itself judges them without running them."""

import shutil
import subprocess
from pathlib import Path

import pytest

UNITS = Path(__file__).parent.parent.parent / "systemd"
EXPOSURE = 1.5


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    tool = shutil.which("systemd-analyze")
    if tool is None:
        pytest.skip("systemd-analyze is not installed (Debian package systemd)")
    return subprocess.run([tool, *map(str, arguments)], capture_output=True, text=True)


def test_the_exposure_of_the_rtp_unit_is_within_the_bound() -> None:
    # The threshold is in tenths; beyond it the exit code says so.
    threshold = f"--threshold={round(10 * EXPOSURE)}"
    done = analyze("security", "--offline=true", "--no-pager", threshold, UNITS / "serstream.service")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_sockets_that_systemd_opens_are_as_closed_to_strangers_as_the_service() -> None:
    def rules(unit: str) -> list[str]:
        return [line for line in (UNITS / unit).read_text().splitlines() if line.startswith("IPAddress")]

    # systemd.resource-control(5): the service's list "is not applied to any sockets passed into the service".
    assert (
        rules("serstream.socket")
        == rules("serstream.service")
        == [
            "IPAddressDeny=any",
            "IPAddressAllow=localhost",
        ]
    )


def test_a_start_at_boot_waits_for_the_addresses_that_it_binds() -> None:
    lines = (UNITS / "serstream.service").read_text().splitlines()
    assert {"Wants=network-online.target", "After=network-online.target"} <= set(lines)
