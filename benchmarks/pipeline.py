"""Hours of call audio that one second of processor time replays, and where that time goes.

The sample call is repeated to half an hour and goes through the daemon's own pipeline, from 8 kHz chunks of
20 ms (as RTP delivers them) to encoded messages. Prints one JSON object as its last line.
"""

import json
import time
from collections.abc import Callable, Iterator

import numpy as np
import soundfile

from serstream.config import ModelSettings, Settings
from serstream.emotion.features import mfcc
from serstream.emotion.loading import load_model
from serstream.feed.coding import encode
from serstream.feed.messages import WindowEmotion
from serstream.replay import replay
from serstream.shipped import SAMPLE_CALL
from serstream.types import AudioChunk, SourceEvent, StreamEnd, StreamStart

REPEATS = 25


def call() -> Iterator[SourceEvent]:
    samples, rate = soundfile.read(SAMPLE_CALL, dtype="float32")
    n = len(samples) * REPEATS
    packet = rate // 50
    channels = {"left": np.tile(samples[:, 0], REPEATS), "right": np.tile(samples[:, 1], REPEATS)}
    for stream in channels:
        yield StreamStart(stream, "call", "unknown", "benchmark", 0.0)
    for begin in range(0, n, packet):
        for stream, channel in channels.items():
            yield AudioChunk(stream, channel[begin : begin + packet], rate, begin)
    for stream in channels:
        yield StreamEnd(stream, "eof")


def cpu_per_window(work: Callable[[], object], windows: int) -> float:
    """Seconds of processor time, the first run left out."""
    work()
    began = time.process_time()
    work()
    return (time.process_time() - began) / windows


def main() -> None:
    model = load_model(ModelSettings(device="cpu"))
    began = time.process_time()
    windows = n_bytes = 0
    events = list(call())
    made_s = time.process_time() - began
    began = time.process_time()
    for message in replay(events, Settings(), model):
        windows += isinstance(message, WindowEmotion)
        n_bytes += len(encode(message))
    cpu_s = time.process_time() - began
    stream_s = sum(len(e.samples) / e.sample_rate for e in events if isinstance(e, AudioChunk))

    noise = np.random.default_rng(0).normal(0, 0.1, (256, model.metadata.feature_spec.n_samples))
    samples = noise.astype(np.float32)
    mfcc_s = cpu_per_window(lambda: mfcc(samples, model.metadata.feature_spec), len(samples))
    score_s = cpu_per_window(lambda: model.score_samples(samples), len(samples))
    print(
        json.dumps(
            {
                "benchmark": "pipeline",
                "stream_hours": round(stream_s / 3600, 3),
                "windows": windows,
                "cpu_s": round(cpu_s, 2),
                "hours_per_cpu_s": round(stream_s / 3600 / cpu_s, 4),
                "times_real_time": round(stream_s / cpu_s),
                "share_mfcc": round(windows * mfcc_s / cpu_s, 2),
                "share_network": round(windows * (score_s - mfcc_s) / cpu_s, 2),
                "feed_bytes": n_bytes,
                "making_chunks_s": round(made_s, 2),
            }
        )
    )


if __name__ == "__main__":
    main()
