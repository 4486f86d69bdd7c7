"""What a synthetic caller says: the recorded utterances of the sample call, with pauses between them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import soundfile
from numpy.typing import NDArray

from serstream.config import SegmenterSettings
from serstream.rtp.codecs import ULAW
from serstream.rtp.sender import CLOCK_RATE, PACKET_SAMPLES, encode_mulaw
from serstream.shipped import SAMPLE_CALL
from serstream.speech.segmenter import UtteranceEnd
from serstream.speech.stream import StreamSegmenter
from serstream.types import SAMPLE_RATE, AudioChunk, SpeechWindow

LINE_NOISE_RMS = 4.0
"""Of a pause, in steps of 16 bits (-78 dBFS): digital silence would spare the voice activity detector work,
and much more noise it takes for speech."""
TURN = 3
"""Utterances that follow one another without a pause: a turn of some seconds, as callers take them."""
FULL_SCALE = 32768.0


@dataclass(frozen=True, slots=True, eq=False)
class Script:
    """The sound of one caller, and what the daemon must make of it."""

    packets: NDArray[np.uint8]
    """mu-law, shape (n_packets, PACKET_SAMPLES)."""
    windows: NDArray[np.int64]
    """Ends of all speech windows in samples at ``CLOCK_RATE``, ascending, shape (n_windows,)."""


def write_script(seconds: float, talk_share: float, seed: int) -> Script:
    """A caller who talks for a share of the time.

    Utterances of both parties follow one another in random order; `TURN` of them make a turn, and a pause
    before it brings it to the share. Pauses vary between half and one and a half times that.

    Args:
        seconds: how long.
        talk_share: 0 < share <= 1.
        seed: of the order and the pauses.
    """
    rng = np.random.default_rng(seed)
    parts: list[NDArray[np.int16]] = []
    n_wanted, n = round(seconds * CLOCK_RATE), 0
    while n < n_wanted:
        turn = np.concatenate([_utterances()[i] for i in rng.permutation(len(_utterances()))[:TURN]])
        pause = round(len(turn) * (1 / talk_share - 1) * rng.uniform(0.5, 1.5))
        parts += [rng.normal(0, LINE_NOISE_RMS, pause).astype(np.int16), turn]
        n += pause + len(turn)
    n_packets = n_wanted // PACKET_SAMPLES
    code = np.frombuffer(encode_mulaw(np.concatenate(parts)[: n_packets * PACKET_SAMPLES]), np.uint8)
    sound = StreamSegmenter("script", SegmenterSettings())
    segments = sound.push(AudioChunk("script", ULAW[code], CLOCK_RATE, 0))
    ends = [
        segment.end * CLOCK_RATE // SAMPLE_RATE for segment in segments if isinstance(segment, SpeechWindow)
    ]
    return Script(code.reshape(n_packets, PACKET_SAMPLES), np.array(ends, np.int64))


@lru_cache(maxsize=1)
def _utterances() -> list[NDArray[np.int16]]:
    """What is said in the sample call, 16 bits at ``CLOCK_RATE``."""
    samples, rate = soundfile.read(SAMPLE_CALL, dtype="int16", always_2d=True)
    found: list[NDArray[np.int16]] = []
    for channel in samples.T:
        sound = StreamSegmenter("party", SegmenterSettings())
        party = (channel / FULL_SCALE).astype(np.float32)
        for segment in [*sound.push(AudioChunk("party", party, rate, 0)), *sound.flush()]:
            if isinstance(segment, UtteranceEnd):
                begin, end = (at * CLOCK_RATE // SAMPLE_RATE for at in (segment.start, segment.end))
                found.append(channel[begin:end])
    return found
