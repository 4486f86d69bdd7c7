"""Plays the sample call's two parties as RTP in real time; prints when each packet left, by monotonic clock.

python tests/play_call.py [--host HOST] [--port PORT] [--seconds SECONDS] [--srtp MASTER_KEY_AND_SALT_IN_HEX]
"""

from __future__ import annotations

import argparse
import json

import numpy as np
import pylibsrtp
import soundfile

from serstream.rtp.sender import CLOCK_RATE, OutgoingStream, encode_mulaw, send_in_real_time
from serstream.shipped import SAMPLE_CALL


class Encrypted(OutgoingStream):
    """As SRTP and SRTCP, AES_CM_128_HMAC_SHA1_80."""

    def __init__(self, host: str, port: int, ssrc: int, payload: bytes, key: bytes):
        super().__init__(host, port, ssrc, payload)
        self._session = pylibsrtp.Session(
            pylibsrtp.Policy(key=key, ssrc_type=pylibsrtp.Policy.SSRC_ANY_OUTBOUND)
        )

    def packet(self, number: int) -> bytes:
        """The encrypted packet."""
        return self._session.protect(OutgoingStream.packet(self, number))

    def bye(self) -> bytes:
        """The encrypted BYE."""
        return self._session.protect_rtcp(OutgoingStream.bye(self))


def main() -> None:
    """Play."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=5004)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--srtp", type=bytes.fromhex, default=b"")
    arguments = parser.parse_args()
    samples, _ = soundfile.read(SAMPLE_CALL, dtype="int16", always_2d=True)
    streams = []
    for ssrc, party in enumerate(samples[: arguments.seconds * CLOCK_RATE].T, start=7):
        leg = (arguments.host, arguments.port, ssrc, encode_mulaw(np.ascontiguousarray(party)))
        streams.append(Encrypted(*leg, arguments.srtp) if arguments.srtp else OutgoingStream(*leg))
    send_in_real_time(streams)
    print(json.dumps([stream.sent_at for stream in streams]))


if __name__ == "__main__":
    main()
