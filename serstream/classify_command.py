"""``serstream classify``: what recordings, or a few words into the microphone, sound like."""

from __future__ import annotations

import argparse
import os
import queue
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from serstream import config
from serstream.command_line import add_command, add_configuration, add_roles, channel_roles, configuration
from serstream.errors import ConfigError, SerstreamError, SourceError, readable
from serstream.types import AudioChunk, Role, SourceEvent

if TYPE_CHECKING:
    from rich.console import Console

    from serstream.classify import Classified
    from serstream.command_line import Commands

TURN_S = 0.1
"""Seconds between two looks at the keyboard."""
WAITING = 50
"""Deliveries of the microphone that may wait; beyond that it waits itself, and counts what it loses."""


def add_parser(commands: Commands) -> None:
    """Add ``classify`` to ``serstream``."""
    command = add_command(
        commands,
        "classify",
        _classify,
        "what recordings sound like",
        "Put recordings, or words into the microphone, through the daemon's own pipeline.\n"
        "Print emotion, emoji and probabilities of each stream: the mean over its windows, then utterance\n"
        "by utterance. Exit code 0; 1 when a recording could not be used or a picture not drawn, and all\n"
        "others were.",
        "  serstream classify call.wav\n"
        "  serstream classify *.flac --json | jq -r '[.recording, .emotion, .confidence] | @tsv'\n"
        "  serstream classify call.wav --roles customer,agent\n"
        "  serstream classify call.wav --picture call.svg   # waveform, spectrogram, emotion over time\n"
        "  serstream classify --microphone                  # a key starts, a key stops\n"
        "  serstream classify --microphone USB --picture me.png",
    )
    command.add_argument("file", nargs="*", type=Path, metavar="FILE", help="a recording or network capture")
    command.add_argument(
        "--microphone",
        nargs="?",
        const="",
        metavar="DEVICE",
        help="record instead, from the default device or the one with this in its name ('serstream devices')",
    )
    command.add_argument("--json", action="store_true", help="one JSON object a stream and line")
    command.add_argument(
        "--picture",
        type=Path,
        metavar="OUT",
        help="draw it, too: OUT.svg, or OUT.png (needs Pillow); with several streams each "
        "picture's name gets the stream's",
    )
    add_roles(command)
    add_configuration(command)


def _classify(arguments: argparse.Namespace) -> int:
    if bool(arguments.file) == (arguments.microphone is not None):
        raise ConfigError("classify: wanted recordings or --microphone, one of both")
    from serstream.classify import classify
    from serstream.emotion.loading import load_model
    from serstream.replay import recording_events
    from serstream.view import sketch
    from serstream.view.canvas import canvas_for
    from serstream.view.console import console

    if arguments.picture:
        canvas_for(arguments.picture, 1, 1)
        if not os.path.isdir(folder := arguments.picture.parent):
            raise ConfigError(
                f"picture {arguments.picture}: there is no folder {folder}; make it, or name another"
            )
    settings, base = configuration(arguments)
    roles = channel_roles(arguments)
    if arguments.microphone is not None and len(roles) > 1:
        raise ConfigError(
            f"--roles {arguments.roles}: wanted one role for a microphone, which has one channel"
        )
    model = load_model(settings.model, base)
    keep_s = sketch.LIMIT_S if arguments.picture else 0.0
    output = console()
    failed = 0
    for path in arguments.file or [None]:
        try:
            if path is None:
                name, events = "microphone", _record(arguments.microphone, *roles)
            else:
                name, events = readable(path), recording_events(path, roles, settings, base)
            streams = classify(name, events, settings, model, keep_s)
        except SourceError as error:
            failed = _complain(error)
            continue
        for stream in streams:
            _tell(stream, len(streams) > 1, output, as_json=arguments.json)
        alone = len(arguments.file) < 2 and len(streams) == 1
        for stream in streams if arguments.picture else ():
            try:
                sketch.draw(stream, _picture(arguments.picture, stream, alone))
            except SerstreamError as error:
                failed = _complain(error)
    return failed


def _complain(error: SerstreamError) -> int:
    """Tell it and go on; the exit code that it makes."""
    print(f"serstream: error: {error}", file=sys.stderr)
    return 1


def _tell(stream: Classified, named: bool, console: Console, as_json: bool) -> None:
    if as_json:
        import msgspec

        sys.stdout.buffer.write(msgspec.json.encode(stream.verdict) + b"\n")
        sys.stdout.flush()
        return
    from serstream.view.verdict import show

    show(stream.verdict, named, console)


def _picture(wanted: Path, stream: Classified, alone: bool) -> Path:
    return wanted if alone else wanted.with_stem(f"{wanted.stem}-{stream.verdict.stream}")


def _record(device: str, role: Role = "unknown") -> Iterator[SourceEvent]:
    """What the microphone hears from one key to the next.

    Raises:
        ConfigError: there is no terminal to take keys from.
        SourceError: the microphone cannot be used.
    """
    from serstream.audio.microphone import MicrophoneSource
    from serstream.view.console import console
    from serstream.view.keyboard import Keyboard, has_keys
    from serstream.view.screen import bar
    from serstream.view.sketch import LIMIT_S

    if not has_keys():
        raise ConfigError(
            "--microphone: standard input is no terminal, wanted one for the keys; run it there"
        )
    source = MicrophoneSource(
        config.MicrophoneSettings(device=int(device) if device.isdigit() else device or None, role=role)
    )
    deliveries: queue.Queue[list[SourceEvent]] = queue.Queue(WAITING)
    errors = console(stderr=True)
    with Keyboard() as keyboard:
        errors.print("Press a key to start, and a key to stop.")
        while not keyboard.keys(TURN_S):
            pass
        thread = threading.Thread(target=source.run, args=(deliveries.put,), daemon=True)
        thread.start()
        seconds = 0.0
        with errors.status("opening the microphone") as status:
            while thread.is_alive() or not deliveries.empty():
                if keyboard.keys():
                    source.stop()
                try:
                    events = deliveries.get(timeout=TURN_S)
                except queue.Empty:
                    continue
                for event in events:
                    if isinstance(event, AudioChunk):
                        seconds += event.duration_s
                        if seconds >= LIMIT_S:  # a picture has no room for what comes until it has stopped
                            source.stop()
                            continue
                        level = float(abs(event.samples).max(initial=0.0))
                        status.update(f"recording {seconds:.1f} s {bar(level)} a key stops")
                    yield event
