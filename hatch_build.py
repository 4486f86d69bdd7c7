"""Compiles serstream/emotion/spectra.c where there is a C compiler; without one, numpy does the same work."""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = Path("serstream", "emotion")
# Every x86-64 server of the last ten years has these; serstream looks before it uses the library.
INSTRUCTIONS = ["-mavx2", "-mfma"] if platform.machine() in ("x86_64", "AMD64") else []
OPTIONS = ["-O3", "-std=gnu11", "-Wno-psabi", "-shared", "-fPIC"]


class CompileHook(BuildHookInterface[Any]):
    """Adds ``libspectra.so`` to the wheel or, for an editable installation, to the sources."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called before what goes into the wheel is collected."""
        library, fresh = FOLDER / "libspectra.so", FOLDER / "libspectra.so.new"
        compiler = shlex.split(os.environ.get("CC", "cc"))
        if shutil.which(compiler[0]) is None:
            self.app.display_warning(f"no C compiler ({compiler[0]}): MFCC will take three times as long")
            return
        command = [*compiler, *OPTIONS, *INSTRUCTIONS, "-o", str(fresh), str(FOLDER / "spectra.c")]
        result = subprocess.run(command, cwd=self.root, capture_output=True, text=True)
        if result.returncode:
            self.app.display_warning(
                f"{shlex.join(command)}: {result.stderr}\nMFCC will take three times as long"
            )
            return
        Path(self.root, fresh).replace(Path(self.root, library))
        build_data["artifacts"].append(str(library))
        build_data["pure_python"] = False
        build_data["tag"] = "py3-none-" + sysconfig.get_platform().replace("-", "_").replace(".", "_")
