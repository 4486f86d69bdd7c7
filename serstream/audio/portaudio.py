"""The process's one PortAudio: its input devices and its open streams.

PortAudio has global state and no locks, so whoever lists, opens or closes goes through here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from serstream.errors import SourceError

BLOCK_S = 0.02
"""Seconds of sound per callback."""

CLOSE_TIMEOUT_S = 1.0
"""Seconds that closing a stream may take before it is left to itself."""

_lock = threading.RLock()
_open_streams: set[object] = set()


@dataclass(frozen=True, slots=True)
class InputDevice:
    """A microphone as PortAudio lists it."""

    index: int
    name: str
    host_api: str
    sample_rate: int
    """Hz, the device's own."""
    default: bool

    def __str__(self) -> str:
        mark = ", default" if self.default else ""
        return f"{self.index}: {self.name} ({self.host_api}, {self.sample_rate} Hz{mark})"


def input_devices() -> list[InputDevice]:
    """Every device that can record.

    Raises:
        SourceError: the PortAudio library is missing.
    """
    with _portaudio() as sounddevice:
        host_apis = sounddevice.query_hostapis()
        default = sounddevice.default.device[0]
        return [
            InputDevice(
                index=device["index"],
                name=device["name"],
                host_api=host_apis[device["hostapi"]]["name"],
                sample_rate=round(device["default_samplerate"]),
                default=device["index"] == default,
            )
            for device in sounddevice.query_devices()
            if device["max_input_channels"] > 0
        ]


def find_input(wanted: str | int | None) -> InputDevice:
    """The input device of that index or of a name that contains ``wanted``; None: the default.

    A name in full goes before names that merely contain it.

    Raises:
        SourceError: none or several fit (lists the ones there are), or the PortAudio library is missing.
    """
    devices = input_devices()
    if wanted is None:
        found = [device for device in devices if device.default]
    elif isinstance(wanted, int):
        found = [device for device in devices if device.index == wanted]
    else:
        found = [device for device in devices if device.name == wanted] or [
            device for device in devices if wanted.lower() in device.name.lower()
        ]
    if len(found) == 1:
        return found[0]
    name = "default" if wanted is None else repr(wanted)
    fault = "no such device" if not found else f"{len(found)} devices have this in their name"
    listed = "; ".join(str(device) for device in (found or devices)) or "none"
    raise SourceError(f"microphone {name}: {fault}, give the index or the name of one of: {listed}")


@contextmanager
def open_input(
    device: InputDevice, callback: Callable[[Any, int, Any, Any], None], finished: Callable[[], None]
) -> Iterator[None]:
    """Record from a device's first channel at its own rate, in blocks of `BLOCK_S`.

    Args:
        device: where to record.
        callback: sounddevice's callback; gets float32 of shape (frames, 1).
        finished: called when the stream has ended, of itself or closed.

    Raises:
        SourceError: PortAudio cannot open it.
    """
    with ExitStack() as opened:
        with _portaudio(f"microphone {device.name} at {device.sample_rate} Hz") as sounddevice:
            stream = sounddevice.InputStream(
                device=device.index,
                channels=1,
                samplerate=device.sample_rate,
                blocksize=round(BLOCK_S * device.sample_rate),
                dtype="float32",
                callback=callback,
                finished_callback=finished,
            )
            _open_streams.add(stream)
            opened.callback(_close, stream)
            stream.start()
        yield


def refresh_devices() -> None:
    """Look for devices anew.

    PortAudio's list is frozen when it starts, and starting it anew ends every open stream (python-sounddevice
    issues 125 and 601). So while another microphone records, or one still closes, the old list stays.

    Raises:
        SourceError: PortAudio does not start any more; the next call tries again.
    """
    with _portaudio() as sounddevice:
        if _open_streams:
            return
        if sounddevice._initialized:
            sounddevice._terminate()
        sounddevice._initialize()


def _close(stream: Any) -> None:
    # Closing a stream whose sound server has died may never return (ALSA's pulse plugin), so a thread of its
    # own does it. Until it is done the stream counts as open.
    def close() -> None:
        stream.close(ignore_errors=True)
        _open_streams.discard(stream)

    closing = threading.Thread(target=close, name="portaudio-close", daemon=True)
    with _lock:
        closing.start()
        closing.join(CLOSE_TIMEOUT_S)


@contextmanager
def _portaudio(what: str = "microphone") -> Iterator[Any]:
    """The library, for one thread at a time, its errors as SourceError."""
    try:
        # Not at the top: a server that takes only RTP needs no PortAudio.
        import sounddevice
    except OSError as error:
        raise SourceError(f"{what}: {error}; install it, on Debian: apt-get install libportaudio2") from error
    with _lock:
        try:
            yield sounddevice
        except sounddevice.PortAudioError as error:
            raise SourceError(
                f"{what}: PortAudio: {error}; see that it is plugged in, that the sound server runs and that "
                "no other program holds it"
            ) from error
