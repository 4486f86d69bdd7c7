"""The Makefile where something is missing."""

import shutil
import subprocess
from pathlib import Path

import pytest

MAKEFILE = Path(__file__).parent.parent / "Makefile"


def test_a_python_that_makes_no_environments_is_named_and_leaves_none_behind(tmp_path: Path) -> None:
    make = shutil.which("make")
    if make is None:
        pytest.skip("make is not installed")
    shutil.copy(MAKEFILE, tmp_path)
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\ncase "$*" in *ensurepip*) exit 1;; *venv*) mkdir -p .venv/bin;; esac\n')
    python.chmod(0o755)
    done = subprocess.run(
        [make, "--quiet", ".venv/bin/python", f"PYTHON={python}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert f"{python} cannot make environments; on Debian: apt install python3-venv" in done.stdout
    assert not (tmp_path / ".venv").exists()
