"""The fast way for what almost every packet is: the next one of a G.711 stream.

A stream whose packets come in order is put into a lane: what its jitter buffer knows moves into arrays, and
all lanes take their next packets together, a few array operations for hundreds of packets. The first packet
that is anything else (far from its place or time, marked, of another type or length) brings the stream's
state back, and the jitter buffer deals with it. Both do the same to a packet in order; the tests hold them
together.

When our own socket was too full, what is missing will not come: then a stream stays in its lane when packets
are missing, with silence in their place. Its jitter buffer would wait for them, which costs the more the more
is lost.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from serstream.rtp.codecs import ALAW, ULAW
from serstream.rtp.concealment import HISTORY_S
from serstream.rtp.datagrams import Datagrams
from serstream.rtp.jitter import JitterBuffer
from serstream.rtp.packet import Headers, parse_batch
from serstream.rtp.timeline import (
    EARLIEST_RISE,
    JITTER_GAIN,
    LATE_GAIN_S,
    LATE_S,
    TIMESTAMP_SLACK_S,
    TRANSIT_GAIN,
)
from serstream.types import INT16_SCALE, Samples

CLOCK_RATE = 8000
MAX_PAYLOAD = 320
"""Bytes; longer packets than 40 ms are rare."""
HISTORY = round(HISTORY_S * CLOCK_RATE)
"""Bytes and samples."""
PAYLOAD_TYPES = (0, 8)
"""PCMU and PCMA have these even where SDP lists them."""
MAX_MISSING = 50
"""Packets lost in a row that are made up for in a lane: a second."""
MIN_PACKETS = 12
"""Fewer packets than this are cheaper one by one."""

_CLOSED = np.uint32(0xFFFF_FFFF)
"""Matches no packet."""


class Pieces(NamedTuple):
    """The sound of one packet each of many streams."""

    lanes: NDArray[np.int64]
    """Shape (n,)."""
    pcm: NDArray[np.int16]
    """Shape (n, n_samples)."""
    position: NDArray[np.int64]
    """Where each begins in its stream, shape (n,)."""
    arrived: NDArray[np.float64]
    lost: int
    """Samples at the beginning of each that were lost; they are silent."""


class Lanes:
    """State of the streams that are in order, one row each."""

    def __init__(self, n_lanes: int):
        self._free = list(range(n_lanes - 1, -1, -1))
        self._expected = np.full(n_lanes, _CLOSED)
        """Marker, payload type and sequence number of the next packet, as in `Headers`; or closed."""
        self._timestamp = np.zeros(n_lanes, np.uint32)
        self._length = np.zeros(n_lanes, np.int64)
        """Bytes and samples of every packet."""
        self._sender = np.zeros((4, n_lanes), np.uint64)
        self._position = np.zeros(n_lanes, np.int64)
        self._received = np.zeros(n_lanes, np.int64)
        self._lost = np.zeros(n_lanes, np.int64)
        self._transit = np.zeros(n_lanes)
        self._last_transit = np.zeros(n_lanes)
        self._earliest = np.zeros(n_lanes)
        self._behind = np.zeros(n_lanes)
        self._jitter = np.zeros(n_lanes)
        self.last_arrived = np.zeros(n_lanes)
        self._before = np.zeros(n_lanes, np.int64)
        """What `_received` was when the lane was opened."""
        self._heard = np.zeros((n_lanes, HISTORY), np.uint8)
        """The last bytes, for concealment: those at the end, as many as came since then."""
        self._ssrc = np.zeros(n_lanes, np.uint32)
        self._used = np.zeros(n_lanes, np.bool_)
        self._sorted_ssrc = np.zeros(0, np.uint32)
        self._sorted_lane = np.zeros(0, np.int64)
        self._sorted = True
        self._newest = np.zeros(n_lanes, np.int64)

    def allot(self, ssrc: int, sender: NDArray[np.uint64]) -> int:
        """A lane for a stream, closed; there are as many as streams are allowed."""
        lane = self._free.pop()
        self._ssrc[lane] = ssrc
        self._sender[:, lane] = sender
        self._used[lane] = True
        self._sorted = False
        return lane

    def give_back(self, lane: int) -> None:
        """The stream is over."""
        self._expected[lane] = _CLOSED
        self._used[lane] = False
        self._sorted = False
        self._free.append(lane)

    def open(self, lane: int, jitter: JitterBuffer, payload_type: int, n_bytes: int) -> None:
        """Move a stream's state here; its packets have ``n_bytes`` of sound."""
        timeline = jitter.timeline
        self._expected[lane] = payload_type << 16 | jitter.next_sequence
        self._timestamp[lane] = timeline.next_timestamp
        self._length[lane] = n_bytes
        self._position[lane] = timeline.position
        self._received[lane] = self._before[lane] = jitter.received
        self._lost[lane] = jitter.lost
        self._transit[lane] = timeline.transit
        self._last_transit[lane] = timeline.last_transit
        self._earliest[lane] = timeline.earliest
        self._behind[lane] = timeline.behind
        self._jitter[lane] = timeline.jitter
        self.last_arrived[lane] = timeline.last_arrived

    def copy_back(self, lane: int, jitter: JitterBuffer) -> None:
        """Bring the stream's jitter buffer up to date."""
        timeline = jitter.timeline
        jitter.next_sequence = int(self._expected[lane]) & 0xFFFF
        timeline.next_timestamp = int(self._timestamp[lane])
        timeline.position = int(self._position[lane])
        jitter.received = int(self._received[lane])
        jitter.lost = int(self._lost[lane])
        timeline.transit = float(self._transit[lane])
        timeline.last_transit = float(self._last_transit[lane])
        timeline.earliest = float(self._earliest[lane])
        timeline.behind = float(self._behind[lane])
        timeline.jitter = float(self._jitter[lane])
        timeline.last_arrived = float(self.last_arrived[lane])

    def close(self, lane: int, jitter: JitterBuffer) -> bytes:
        """Move a stream's state back and return what it heard here last, as concealment wants to know."""
        self.copy_back(lane, jitter)
        self._expected[lane] = _CLOSED
        n_heard = int((self._received[lane] - self._before[lane]) * self._length[lane])
        return self._heard[lane, max(0, HISTORY - n_heard) :].tobytes()

    def take(
        self, datagrams: Datagrams, *, overflowed: bool = False
    ) -> tuple[list[Pieces], NDArray[np.int64]]:
        """Take all packets that are the next ones of open lanes.

        Args:
            datagrams: in order of arrival.
            overflowed: the socket has dropped some of late: packets behind a hole are taken as well.

        Returns:
            Their sound, and the indices of all other datagrams, in order. A lane that one of those belongs to
            has taken nothing behind it.
        """
        max_missing = MAX_MISSING if overflowed else 0
        headers = parse_batch(datagrams)
        lanes = self._lanes_of(headers, datagrams)
        pieces: list[Pieces] = []
        candidates = np.flatnonzero(lanes >= 0)
        other = [np.flatnonzero(lanes < 0)]
        while len(candidates):
            first = self._first_of_each(lanes[candidates])
            now, later = candidates[first], candidates[~first]
            if len(now) < MIN_PACKETS:
                other.append(candidates)
                break
            missing, transit, fit = self._compare(headers, datagrams, now, lanes[now])
            plain = fit & (missing <= max_missing)
            other.append(now[~plain])
            own = lanes[now[plain]]
            self._measure(own, transit[plain], missing[plain])
            pieces += self._advance(headers, datagrams, now[plain], own, missing[plain])
            if not plain.all() and len(later):
                # What follows an irregular packet of its stream must not overtake it.
                halted = np.isin(lanes[later], lanes[now[~plain]])
                other.append(later[halted])
                later = later[~halted]
            candidates = later
        return pieces, np.sort(np.concatenate(other))

    def _lanes_of(self, headers: Headers, datagrams: Datagrams) -> NDArray[np.int64]:
        """The lane of each packet by SSRC and sender, -1 for none."""
        if not self._sorted:
            used = np.flatnonzero(self._used)
            order = np.argsort(self._ssrc[used], kind="stable")
            self._sorted_lane = used[order]
            self._sorted_ssrc = self._ssrc[self._sorted_lane]
            self._sorted = True
        if not len(self._sorted_ssrc):
            return np.full(len(datagrams), -1)
        found = np.searchsorted(self._sorted_ssrc, headers.ssrc)
        lanes = self._sorted_lane.take(found, mode="clip")
        known = headers.valid & (self._ssrc[lanes] == headers.ssrc)
        for word, sender in zip(datagrams.senders.T, self._sender, strict=True):
            known &= sender[lanes] == word
        return np.where(known, lanes, -1)

    def _first_of_each(self, lanes: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which entries are the first of their lane."""
        numbers = np.arange(len(lanes))
        self._newest[lanes[::-1]] = numbers[::-1]
        first: NDArray[np.bool_] = self._newest[lanes] == numbers
        return first

    def _compare(
        self, headers: Headers, datagrams: Datagrams, packets: NDArray[np.int64], lanes: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.bool_]]:
        """How many packets of its lane are missing before each, its transit, and whether it is a next one."""
        expected, length = self._expected[lanes], self._length[lanes]
        found = headers.marker_type_sequence[packets]
        missing = ((found - expected) & np.uint32(0xFFFF)).astype(np.int64)
        begin = self._position[lanes] + missing * length
        transit = datagrams.arrived[packets] - begin / CLOCK_RATE
        late = transit - self._transit[lanes]
        fit = (
            (found >> 16 == expected >> 16)
            & (headers.timestamp[packets] == self._timestamp[lanes] + (missing * length).astype(np.uint32))
            & (length == headers.end[packets] - headers.begin[packets])
            & (late <= np.maximum(TIMESTAMP_SLACK_S, self._behind[lanes] + LATE_S))
            & (late >= -TIMESTAMP_SLACK_S)
            & ((missing == 0) | (transit >= self._earliest[lanes] - TIMESTAMP_SLACK_S))
        )
        return missing, transit, fit

    def _advance(
        self,
        headers: Headers,
        datagrams: Datagrams,
        packets: NDArray[np.int64],
        lanes: NDArray[np.int64],
        missing: NDArray[np.int64],
    ) -> list[Pieces]:
        """Count and decode packets of different lanes, grouped by the form of their sound."""
        if not len(packets):
            return []
        position, arrived = self._position[lanes], datagrams.arrived[packets]
        expected, length = self._expected[lanes], self._length[lanes]
        lost = missing * length
        end = position + lost + length
        self.last_arrived[lanes] = arrived
        self._received[lanes] += 1
        self._position[lanes] = end
        self._timestamp[lanes] += (end - position).astype(np.uint32)
        self._expected[lanes] = expected & 0xFF_0000 | (expected + missing + 1) & 0xFFFF
        layout = missing << 40 | headers.begin[packets] << 24 | length << 8 | expected >> 16
        pieces = []
        alike = bool((layout == layout[0]).all())
        for where in (layout[:1] if alike else np.unique(layout)).tolist():
            group = slice(None) if alike else layout == where
            begin, n_samples, payload_type = where >> 24 & 0xFFFF, where >> 8 & 0xFFFF, where & 0x7F
            n_missing = where >> 40
            n_lost = n_missing * n_samples
            payload = datagrams.content[packets[group], begin : begin + n_samples]
            own = lanes[group]
            heard = payload if n_samples >= HISTORY else np.hstack([self._heard[own], payload])
            self._heard[own] = heard[:, -HISTORY:]
            pcm = _PAIRS[payload_type].take(payload.view(np.uint16), mode="clip").view(np.int16)
            if n_missing:
                self._lost[own] += n_missing
                pcm = np.pad(pcm, ((0, 0), (n_lost, 0)))
            pieces.append(Pieces(own, pcm, position[group], arrived[group], n_lost))
        return pieces

    def _measure(
        self, lanes: NDArray[np.int64], transit: NDArray[np.float64], missing: NDArray[np.int64]
    ) -> None:
        """Mean and jitter of what is on time, what is late raises the mean a little; and the earliest."""
        mean = self._transit[lanes]
        late = transit - mean
        on_time = late <= LATE_S
        mean = np.minimum(mean + np.where(on_time, TRANSIT_GAIN * late, LATE_GAIN_S), transit + LATE_S)
        self._transit[lanes] = mean
        self._behind[lanes] = transit - mean
        duration, earliest = self._length[lanes] / CLOCK_RATE, self._earliest[lanes]
        earliest = np.maximum(earliest, np.minimum(earliest + EARLIEST_RISE * (missing + 1) * duration, mean))
        self._earliest[lanes] = np.minimum(np.maximum(transit, earliest - duration), earliest)
        if not on_time.all():
            lanes, transit = lanes[on_time], transit[on_time]
        jitter = self._jitter[lanes]
        variation = np.abs(transit - self._last_transit[lanes])
        self._jitter[lanes] = jitter + JITTER_GAIN * (variation - jitter)
        self._last_transit[lanes] = transit


def _pairs(law: Samples) -> NDArray[np.uint32]:
    """Two samples at a time: every pair of bytes decoded to 16 bits, as one word, shape (65536,)."""
    first, second = np.arange(65536, dtype=np.uint16).view(np.uint8).reshape(-1, 2).T
    pcm = (law * INT16_SCALE).astype(np.int16)
    return np.stack([pcm[first], pcm[second]], axis=1).reshape(-1).view(np.uint32)


_PAIRS = {payload_type: _pairs(law) for payload_type, law in zip(PAYLOAD_TYPES, (ULAW, ALAW), strict=True)}
