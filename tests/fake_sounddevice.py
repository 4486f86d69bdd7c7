"""sounddevice without PortAudio: a device list and streams that a test feeds."""

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np

Script = Callable[["FakeInputStream"], None]


class PortAudioError(Exception):
    pass


class FakeInputStream:
    """Runs its script when it is started."""

    def __init__(self, module: "FakeSounddevice", **arguments: Any):
        self.arguments = arguments
        self.closed = False
        self._script = module.scripts.pop(0)
        self._time = 1000.0
        module.opened.append(self)

    def start(self) -> None:
        self._script(self)

    def close(self, ignore_errors: bool) -> None:
        self.closed = True

    def bring(self, *values: float, lost_before: int = 0) -> None:
        """One callback; with ``lost_before``, PortAudio says that it has dropped so many samples."""
        rate = self.arguments["samplerate"]
        self._time += lost_before / rate
        block = np.array(values, np.float32)[:, None]
        times = SimpleNamespace(inputBufferAdcTime=self._time)
        self.arguments["callback"](
            block, len(block), times, SimpleNamespace(input_overflow=bool(lost_before))
        )
        block[:] = np.nan  # PortAudio uses its buffer again
        self._time += len(block) / rate

    def finish(self) -> None:
        self.arguments["finished_callback"]()


class FakeSounddevice:
    """What serstream uses of sounddevice."""

    PortAudioError = PortAudioError

    def __init__(self, *names: str, scripts: list[Script] | None = None):
        self.names = names
        self.scripts = scripts or []
        self.opened: list[FakeInputStream] = []
        self.starts = 1
        self.faults = 0
        """How many of the next starts fail."""
        self._initialized = 1
        self.InputStream = partial(FakeInputStream, self)
        self.default = SimpleNamespace(device=(0 if names else -1, -1))

    def query_hostapis(self) -> list[dict[str, Any]]:
        return [{"name": "ALSA"}]

    def query_devices(self) -> list[dict[str, Any]]:
        inputs = [
            {
                "index": index,
                "name": name,
                "hostapi": 0,
                "max_input_channels": 2,
                "default_samplerate": 48000.0,
            }
            for index, name in enumerate(self.names)
        ]
        loudspeaker = {"index": len(inputs), "name": "USB loudspeaker", "hostapi": 0, "max_input_channels": 0}
        return [*inputs, loudspeaker]

    def _terminate(self) -> None:
        if not self._initialized:
            raise PortAudioError("PortAudio not initialized")
        self._initialized -= 1

    def _initialize(self) -> None:
        self.starts += 1
        if self.faults:
            self.faults -= 1
            raise PortAudioError("Unanticipated host error")
        self._initialized += 1
