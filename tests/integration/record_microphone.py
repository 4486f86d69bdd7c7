"""Run by test_pulseaudio: a MicrophoneSource in a process of its own, its events as JSON lines on stdout.

Arguments: the [[microphone]] table as JSON, and the .npz that gets each stream's samples. Ends with stdin.
"""

import json
import sys
import threading

import numpy as np

from serstream.audio.microphone import MicrophoneSource
from serstream.config import parse
from serstream.errors import SourceError
from serstream.types import AudioChunk, Samples, SourceEvent, StreamStart


def main() -> None:
    table, path = json.loads(sys.argv[1]), sys.argv[2]
    (settings,) = parse({"microphone": [table]}, "test").microphone
    pieces: dict[str, list[Samples]] = {}

    def say(**event: object) -> None:
        print(json.dumps(event), flush=True)

    def emit(events: list[SourceEvent]) -> None:
        for event in events:
            if isinstance(event, StreamStart):
                say(event="start", stream=event.stream, call=event.call, role=event.role, source=event.source)
                pieces[event.stream] = []
            elif isinstance(event, AudioChunk):
                if event.start != sum(map(len, pieces[event.stream])):
                    say(event="hole", stream=event.stream)
                if not pieces[event.stream]:
                    say(event="sound", stream=event.stream, rate=event.sample_rate)
                pieces[event.stream].append(event.samples)
            else:
                say(event="end", stream=event.stream, reason=event.reason)

    try:
        source = MicrophoneSource(settings)
    except SourceError as error:
        say(event="error", message=str(error))
        return
    thread = threading.Thread(target=source.run, args=(emit,))
    thread.start()
    sys.stdin.read()
    source.stop()
    thread.join()
    np.savez(path, **{stream: np.concatenate(p) for stream, p in pieces.items() if p})
    say(event="done", lost_s=source.lost_s)


main()
