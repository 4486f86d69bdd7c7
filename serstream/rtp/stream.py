"""One stream: its packets put in order, decoded and, where they are missing, concealed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from serstream.rtp.codecs import (
    COMFORT_NOISE,
    ENCODINGS,
    TELEPHONE_EVENT,
    Decoder,
    Format,
    decoder,
    ends_talkspurt,
)
from serstream.rtp.concealment import FADE_S, HISTORY_S, conceal
from serstream.rtp.datagrams import Sender
from serstream.rtp.jitter import Gap, Heard, JitterBuffer, Released
from serstream.rtp.packet import RtpPacket
from serstream.types import AudioChunk, Samples, StreamStart

SOUND = frozenset(ENCODINGS) - {COMFORT_NOISE, TELEPHONE_EVENT}
LONGEST_SILENCE_S = 2.0
"""Longer silence is left out: the next chunk starts behind it."""


class Stream:
    """The sound of one SSRC from one sender, or of several SSRCs that followed one another."""

    def __init__(
        self,
        start: StreamStart,
        sender: Sender,
        ssrc: int,
        formats: Mapping[int, Format],
        jitter: JitterBuffer,
    ):
        self.start = start
        self.sender = sender
        self.ssrc = ssrc
        self.jitter = jitter
        self.last_payload_type = -1
        self.last_n_bytes = 0
        """Of the last packet that was decoded."""
        self.undecodable = 0
        """Packets of sound that the codec could not read; they are concealed like lost ones."""
        self._formats = formats
        self._decoders: dict[int, Decoder] = {}
        self._sample_rate = 8000
        self._history: Samples = np.zeros(0, np.float32)
        self._before_loss = self._history
        """`_history` where the concealment that goes on began."""
        self._n_concealed = 0
        """Samples since then; more than `FADE_S` are not counted."""

    def push(self, packet: RtpPacket, arrived: float) -> list[AudioChunk]:
        """Take a packet; returns the sound that it completes."""
        found = self._formats.get(packet.payload_type)
        clock_rate = self.jitter.timeline.clock_rate
        if (
            found is None
            or found.encoding not in SOUND
            or not packet.payload
            or (found.clock_rate != clock_rate and self.jitter.has_passed(packet.sequence_number))
        ):
            # It has a place in the sequence, so that it is not missed, but it is no sound, or was before the
            # clock changed.
            silent = found is not None and found.encoding == COMFORT_NOISE
            return self._chunks(self.jitter.push(packet, 0, arrived, silent=silent))
        chunks: list[AudioChunk] = []
        if found.clock_rate != clock_rate:
            chunks = self.flush()
            self.jitter.restart(found.clock_rate, packet.sequence_number)
            self._tune(self._decoder(packet.payload_type).sample_rate)
        duration = self._decoder(packet.payload_type).duration(packet.payload)
        silent = ends_talkspurt(found, packet.payload)
        return chunks + self._chunks(self.jitter.push(packet, duration, arrived, silent=silent))

    def release(self, now: float) -> list[AudioChunk]:
        """What is due at ``now``; see `JitterBuffer.release`."""
        return self._chunks(self.jitter.release(now))

    def flush(self) -> list[AudioChunk]:
        """What still waits in the jitter buffer."""
        return self._chunks(self.jitter.flush())

    def change_ssrc(self, ssrc: int) -> list[AudioChunk]:
        """Go on with another SSRC, which has its own sequence, timestamps and codec state."""
        chunks = self.flush()
        self.ssrc = ssrc
        self.jitter.restart(self.jitter.timeline.clock_rate)
        self._decoders.clear()
        return chunks

    def resume(self, heard: bytes) -> None:
        """The stream comes out of its lane, where it heard this last."""
        samples = self._decoder(self.last_payload_type).decode(heard)
        # Only G.711 has lanes, and it decodes everything.
        if samples is not None:
            self._remember(samples)

    def _decoder(self, payload_type: int) -> Decoder:
        if payload_type not in self._decoders:
            self._decoders[payload_type] = decoder(self._formats[payload_type])
        return self._decoders[payload_type]

    def _tune(self, sample_rate: int) -> None:
        """What follows has this rate; sound of another cannot stand in for what is lost of it."""
        self._sample_rate = sample_rate
        self._history = self._history[:0]
        self._n_concealed = 0

    def _chunks(self, released: list[Released]) -> list[AudioChunk]:
        return [chunk for item in released for chunk in self._decode(item)]

    def _decode(self, item: Heard | Gap) -> list[AudioChunk]:
        if isinstance(item, Gap):
            return self._fill(item)
        codec = self._decoder(item.payload_type)
        if codec.sample_rate != self._sample_rate:
            self._tune(codec.sample_rate)
        ratio = codec.sample_rate // self.jitter.timeline.clock_rate
        wanted = item.duration * ratio
        samples = codec.decode(item.payload)
        skip, lost = item.skip * ratio, 0
        if samples is None:
            self.undecodable += 1
            samples, lost = self._conceal(wanted), wanted - skip
        else:
            if len(samples) != wanted:
                samples = np.resize(np.append(samples, np.zeros(wanted, np.float32)), wanted)
            self._remember(samples)
        self.last_payload_type, self.last_n_bytes = item.payload_type, len(item.payload)
        return (
            [self._chunk(samples[skip:], item.position * ratio, lost, item.arrived)] if skip < wanted else []
        )

    def _fill(self, gap: Gap) -> list[AudioChunk]:
        ratio = self._sample_rate // self.jitter.timeline.clock_rate
        n_silent = (gap.ticks - gap.lost) * ratio
        if n_silent > LONGEST_SILENCE_S * self._sample_rate:
            n_silent = 0
        lost = gap.lost * ratio
        if lost + n_silent == 0:
            return []
        samples = self._conceal(lost)
        if n_silent:
            silence = np.zeros(n_silent, np.float32)
            self._remember(silence)
            samples = np.concatenate([samples, silence])
        return [self._chunk(samples, gap.position * ratio, lost, gap.arrived)]

    def _chunk(self, samples: Samples, start: int, lost: int, arrived: float) -> AudioChunk:
        return AudioChunk(self.start.stream, samples, self._sample_rate, start, lost, arrived)

    def _conceal(self, n_samples: int) -> Samples:
        """Stand in for lost sound, and go on from what stands in for the sound before it."""
        if self._n_concealed == 0:
            self._before_loss = self._history
        before = self._n_concealed
        samples = conceal(self._before_loss, before + n_samples, self._sample_rate)[before:]
        self._remember(samples)
        self._n_concealed = min(before + n_samples, round(FADE_S * self._sample_rate))
        return samples

    def _remember(self, samples: Samples) -> None:
        self._n_concealed = 0
        n_history = round(HISTORY_S * self._sample_rate)
        if len(samples) < n_history:
            samples = np.concatenate([self._history, samples])
        self._history = samples[-n_history:]
