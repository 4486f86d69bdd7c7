"""A microphone without hardware: PulseAudio with a null sink, in a directory of its own."""

import importlib
import os
import shutil
import subprocess
import threading
from pathlib import Path

PROGRAMS = ("pulseaudio", "pactl", "paplay")
ASOUNDRC = "pcm.!default { type pulse }\nctl.!default { type pulse }\npcm.pulse { type pulse }\n"


def missing() -> str:
    for program in PROGRAMS:
        if shutil.which(program) is None:
            return f"needs {program} (make system-deps)"
    try:
        importlib.import_module("sounddevice")
    except OSError as error:
        return f"needs libportaudio2 (make system-deps): {error}"
    return ""


class SoundServer:
    """A PulseAudio that nobody else sees; what is played into it is what its default source records."""

    def __init__(self, folder: Path):
        (folder / ".asoundrc").write_text(ASOUNDRC)
        self.env = {
            **os.environ,
            "HOME": str(folder),
            "XDG_RUNTIME_DIR": str(folder),
            "XDG_CONFIG_HOME": str(folder),
            "PULSE_SERVER": f"unix:{folder}/native",
        }
        self._socket = folder / "native"
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            [
                "pulseaudio",
                "-n",
                "--system=false",
                "--daemonize=no",
                "--use-pid-file=no",
                "--exit-idle-time=-1",
                f"--load=module-native-protocol-unix socket={self._socket} auth-anonymous=1",
                "--load=module-null-sink sink_name=vmic rate=16000 channels=1",
            ],
            env=self.env,
            stderr=subprocess.DEVNULL,
        )
        # pactl waits for nobody, so ask until the server answers.
        for _ in range(100):
            if not subprocess.run(
                ["pactl", "set-default-source", "vmic.monitor"], env=self.env, stderr=subprocess.DEVNULL
            ).returncode:
                return
            assert self.process.poll() is None, "pulseaudio ended"
            threading.Event().wait(0.05)
        raise AssertionError("pulseaudio does not answer")

    def play(self, path: Path) -> None:
        subprocess.run(["paplay", "--device=vmic", str(path)], env=self.env, check=True, timeout=20)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
