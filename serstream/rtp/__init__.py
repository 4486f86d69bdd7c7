"""RTP in: packets, jitter buffer, codecs, receiver."""
