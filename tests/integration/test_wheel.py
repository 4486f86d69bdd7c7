"""The demo, from an installed wheel and outside the repository: the two things a stranger relies on."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def built(folder: Path, **environment: str) -> list[Path]:
    """The wheels that a build leaves in a folder."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(
        command, cwd=ROOT, check=True, capture_output=True, timeout=60, env=os.environ | environment
    )
    return list(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds what the wheel installs."""
    folder = tmp_path_factory.mktemp("wheel")
    (wheel,) = built(folder)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_the_wheel_holds_model_sample_and_licences(installed: Path) -> None:
    shipped = installed / "serstream" / "shipped"
    assert list((shipped / "models" / "cnn-lstm").glob("*/model.onnx"))
    assert (shipped / "sample" / "call.wav").is_file() and (shipped / "sample" / "ATTRIBUTION.md").is_file()
    assert (installed / "serstream" / "py.typed").is_file() and (installed / "trainer" / "py.typed").is_file()
    assert list(installed.glob("*.dist-info/licenses/LICENSE"))


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler (cc)")
def test_the_wheel_holds_what_was_compiled(installed: Path) -> None:
    assert (installed / "serstream" / "emotion" / "libspectra.so").is_file()
    (tags,) = installed.glob("*.dist-info/WHEEL")
    assert "Tag: py3-none-linux" in tags.read_text()


def test_without_a_compiler_there_is_a_wheel_for_every_platform(tmp_path: Path) -> None:
    (wheel,) = built(tmp_path, CC="no-such-compiler")
    assert wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert "serstream/emotion/libspectra.so" not in archive.namelist()


def test_the_demo_loses_nothing(installed: Path, tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "serstream", "demo"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(installed), "COLUMNS": "120"},
        capture_output=True,
        text=True,
        timeout=80,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    lost = [line.split("│") for line in result.stdout.splitlines() if re.search(r"0 of \d+", line)]
    assert [cells[1].strip() for cells in lost] == ["customer", "agent"]
    assert "angry" in result.stdout, "the customer is acted angry in a third of the call"
