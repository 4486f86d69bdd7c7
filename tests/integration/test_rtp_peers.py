"""RTP from programs that others wrote: ffmpeg in every codec and with SRTP, GStreamer, sipp's capture."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import scipy.signal
import soundfile
import soxr
from numpy.typing import NDArray

from serstream.config import RtpSettings
from serstream.rtp.pcap import source_events
from serstream.rtp.receiver import RtpReceiver
from serstream.types import AudioBlock, AudioChunk, SourceEvent, StreamEnd, StreamStart

FIXTURES = Path(__file__).parents[1] / "fixtures"
SECONDS = 6
KEY = "AES_CM_128_HMAC_SHA1_80 inline:" + "MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkw"

needs_ffmpeg = pytest.mark.skipif(not shutil.which("ffmpeg"), reason="Debian's ffmpeg is not installed")
needs_gstreamer = pytest.mark.skipif(
    not shutil.which("gst-launch-1.0"), reason="Debian's gstreamer1.0-tools is not installed"
)
needs_sipp = pytest.mark.skipif(
    not Path("/usr/share/sip-tester/g711a.pcap").exists(), reason="Debian's sip-tester is not installed"
)


def free_port() -> int:
    """An even UDP port whose successor is free too."""
    while True:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as first:
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            if port % 2 == 0:
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as second:
                    second.bind(("127.0.0.1", port + 1))
                    return port


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six seconds of speech at 48 kHz."""
    clips = sorted(FIXTURES.glob("emo-db/*.flac"))
    parts = []
    for clip in clips:
        samples, rate = soundfile.read(clip, dtype="float32", always_2d=True)
        parts.append(soxr.resample(samples[:, 0], rate, 48_000))
    path = tmp_path_factory.mktemp("speech") / "speech.wav"
    soundfile.write(path, np.resize(np.concatenate(parts), SECONDS * 48_000), 48_000)
    return path


class Listening:
    """A receiver in a thread, as the daemon runs it."""

    def __init__(self, settings: RtpSettings):
        self.source = RtpReceiver([settings])
        self.events: list[SourceEvent] = []
        self._thread = threading.Thread(target=self.source.run, args=(self.events.extend,))
        self._thread.start()

    def sound(self) -> tuple[NDArray[np.float32], int]:
        """Stop; the one stream's samples with holes as silence, and its rate."""
        time.sleep(0.3)  # what a real sender has sent last is still on its way
        self.source.stop()
        self._thread.join()
        return joined(self.events)


def joined(events: list[SourceEvent]) -> tuple[NDArray[np.float32], int]:
    starts = [event for event in events if isinstance(event, StreamStart)]
    assert len(starts) == 1
    assert isinstance(events[-1], StreamEnd)
    chunks: list[AudioChunk] = []
    for event in events:  # a burst comes as a block
        chunks += event.chunks() if isinstance(event, AudioBlock) else ()
        chunks += [event] if isinstance(event, AudioChunk) else ()
    line = np.zeros(chunks[-1].start + len(chunks[-1].samples), np.float32)
    for chunk in chunks:
        assert chunk.lost == 0
        line[chunk.start :][: len(chunk.samples)] = chunk.samples
    return line, chunks[0].sample_rate


def compare(heard: NDArray[np.float32], reference: NDArray[np.float32], rate: int) -> tuple[float, float]:
    """Milliseconds by which ``heard`` lags, and the correlation there."""
    n = min(len(heard), len(reference))
    lag = int(np.argmax(scipy.signal.correlate(heard[:n], reference[:n], "full"))) - (n - 1)
    a, b = heard[max(0, lag) : n], reference[max(0, -lag) : n]
    n = min(len(a), len(b))
    return 1000 * lag / rate, float(np.corrcoef(a[:n], b[:n])[0, 1])


def ffmpeg(*arguments: str) -> None:
    subprocess.run(["ffmpeg", "-v", "error", "-y", *arguments], check=True, timeout=60)


CODECS = {
    "PCMU": (["-ar", "8000", "-acodec", "pcm_mulaw"], "wav"),
    "PCMA": (["-ar", "8000", "-acodec", "pcm_alaw"], "wav"),
    "L16": (["-ar", "16000", "-acodec", "pcm_s16be"], "aiff"),
    "G722": (["-ar", "16000", "-acodec", "g722"], "wav"),
    "opus": (["-ar", "48000", "-acodec", "libopus", "-b:a", "32k", "-application", "voip"], "ogg"),
}


@needs_ffmpeg
def test_ffmpeg_every_codec(speech: Path, tmp_path: Path) -> None:
    """All at once, each on its port with the SDP that ffmpeg writes."""
    senders, listeners = [], {}
    for codec, (encode, _) in CODECS.items():
        port, sdp = free_port(), tmp_path / f"{codec}.sdp"
        target = [*encode, "-ac", "1", "-f", "rtp", "-sdp_file", str(sdp)]
        url = f"rtp://127.0.0.1:{port}?pkt_size=652"
        # ffmpeg writes the SDP when it starts to send: once for the SDP, once for the sound.
        ffmpeg("-t", "0.1", "-i", str(speech), *target, url)
        listeners[codec] = Listening(RtpSettings(port=port, sdp=str(sdp)))
        command = ["ffmpeg", "-v", "error", "-re", "-y", "-i", str(speech), *target, url]
        senders.append(subprocess.Popen(command))
    for sender in senders:
        assert sender.wait(60) == 0
    for codec, (encode, suffix) in CODECS.items():
        heard, rate = listeners[codec].sound()
        encoded, plain = tmp_path / f"{codec}.{suffix}", tmp_path / f"{codec}-decoded.wav"
        ffmpeg("-i", str(speech), *encode, "-ac", "1", str(encoded))
        ffmpeg("-i", str(encoded), "-ar", str(rate), str(plain))
        lag, correlation = compare(heard, soundfile.read(plain, dtype="float32")[0], rate)
        assert abs(lag) <= 20, (codec, lag)
        assert correlation > 0.99, (codec, correlation)
        assert abs(len(heard) / rate - SECONDS) < 0.1, codec


@needs_ffmpeg
def test_ffmpeg_srtp(speech: Path) -> None:
    port, _, secret = free_port(), *KEY.split(" inline:")
    listening = Listening(RtpSettings(port=port, srtp=(KEY,)))
    stranger = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for i in range(5):
        stranger.sendto(bytes([0x80, 0, 0, i]) + bytes(168), ("127.0.0.1", port))
    suite = ["-srtp_out_suite", "AES_CM_128_HMAC_SHA1_80", "-srtp_out_params", secret]
    url = f"srtp://127.0.0.1:{port}?pkt_size=172"
    encode = [*CODECS["PCMU"][0], "-ac", "1", "-f", "rtp", *suite, url]
    ffmpeg("-re", "-t", "2", "-i", str(speech), *encode)
    heard, rate = listening.sound()
    original = soundfile.read(speech, dtype="float32")[0][: 2 * 48_000]
    lag, correlation = compare(heard, soxr.resample(original, 48_000, rate), rate)
    assert abs(lag) <= 20
    assert correlation > 0.98
    assert listening.source.status[0].dropped["not authenticated"] == 5


def ffmpeg_decoded(path: Path, rate: int) -> NDArray[np.float32]:
    """What ffmpeg makes of the packets that were sent."""
    decoded = path.with_suffix(".decoded.wav")
    ffmpeg("-i", str(path), "-ar", str(rate), "-ac", "1", str(decoded))
    samples: NDArray[np.float32] = soundfile.read(decoded, dtype="float32")[0]
    return samples


@needs_ffmpeg
@needs_gstreamer
def test_gstreamer_opus_with_dtx(speech: Path, tmp_path: Path) -> None:
    """Silence that is not sent is silence that is heard, and no loss."""
    samples, rate = soundfile.read(speech, dtype="float32")
    samples[2 * rate : 4 * rate] = 0
    paused = tmp_path / "paused.wav"
    soundfile.write(paused, samples, rate)
    port = free_port()
    listening = Listening(RtpSettings(port=port, payload_types={"96": "opus/48000/2"}))
    pipeline = (
        f"filesrc location={paused} ! wavparse ! audioconvert ! audioresample"
        " ! audio/x-raw,rate=48000,channels=1"
        " ! opusenc dtx=true bitrate=32000 audio-type=voice ! tee name=packets"
        f" packets. ! queue ! rtpopuspay pt=96 dtx=true ! udpsink host=127.0.0.1 port={port} sync=true"
        f" packets. ! queue ! oggmux ! filesink location={tmp_path}/sent.ogg"
    )
    subprocess.run(["gst-launch-1.0", "-q", *pipeline.split()], check=True, timeout=60)
    status = listening.source.status[0]
    heard, heard_rate = listening.sound()
    lag, correlation = compare(heard, samples, heard_rate)
    assert abs(lag) <= 20
    assert correlation > 0.9  # with the original, which the codec has changed
    decoded = ffmpeg_decoded(tmp_path / "sent.ogg", heard_rate)
    for spoken in (slice(0, 2 * heard_rate), slice(round(4.3 * heard_rate), None)):
        _, correlation = compare(heard[spoken], decoded[spoken], heard_rate)
        assert correlation > 0.99, "outside the pause, where ffmpeg makes up noise and we stay silent"
    assert abs(len(heard) / heard_rate - SECONDS) < 0.1
    assert status.streams[0].received < 50 * SECONDS * 0.9, "nothing was left out: no DTX took place"
    assert np.abs(heard[3 * heard_rate : round(3.8 * heard_rate)]).max() < 0.01


@needs_ffmpeg
@needs_gstreamer
def test_gstreamer_pcmu(speech: Path, tmp_path: Path) -> None:
    port = free_port()
    listening = Listening(RtpSettings(port=port))
    pipeline = (
        f"filesrc location={speech} ! wavparse ! audioconvert ! audioresample"
        " ! audio/x-raw,rate=8000,channels=1 ! mulawenc ! tee name=packets"
        f" packets. ! queue ! rtppcmupay ! udpsink host=127.0.0.1 port={port} sync=true"
        f" packets. ! queue ! wavenc ! filesink location={tmp_path}/sent.wav"
    )
    subprocess.run(["gst-launch-1.0", "-q", *pipeline.split()], check=True, timeout=60)
    heard, rate = listening.sound()
    original = soundfile.read(speech, dtype="float32")[0]
    lag, correlation = compare(heard, soxr.resample(original, 48_000, rate), rate)
    assert abs(lag) <= 20
    assert correlation > 0.98
    lag, correlation = compare(heard, ffmpeg_decoded(tmp_path / "sent.wav", rate), rate)
    assert abs(lag) <= 20
    assert correlation > 0.99


@needs_sipp
@needs_ffmpeg
def test_sipps_capture(tmp_path: Path) -> None:
    """The A-law call that sipp plays in its scenarios, as ffmpeg decodes its payload."""
    capture = Path("/usr/share/sip-tester/g711a.pcap")
    events = [event for tick in source_events(capture, RtpSettings()) for event in tick]
    heard, rate = joined(events)
    assert rate == 8000
    raw = capture.read_bytes()
    payload, at = b"", 24
    while at < len(raw):
        length = int.from_bytes(raw[at + 8 : at + 12], "little")
        payload += raw[at + 16 + 14 + 20 + 8 + 12 : at + 16 + length]
        at += 16 + length
    encoded, plain = tmp_path / "payload.al", tmp_path / "payload.wav"
    encoded.write_bytes(payload)
    ffmpeg("-f", "alaw", "-ar", "8000", "-ac", "1", "-i", str(encoded), str(plain))
    np.testing.assert_array_equal(heard, soundfile.read(plain, dtype="float32")[0])


@needs_sipp
@pytest.mark.skipif(os.geteuid() != 0, reason="sipp sends captures through a raw socket: root only")
def test_sipp_plays_a_call(tmp_path: Path) -> None:
    """INVITE, A-law sound, a DTMF digit, BYE: two sipps talk, and the answer names our port for the sound."""
    sounds = Path("/usr/share/sip-tester")
    (tmp_path / "pcap").mkdir()
    for name in ("g711a.pcap", "dtmf_2833_1.pcap"):
        shutil.copy(sounds / name, tmp_path / "pcap")
    port, answering, calling = free_port(), free_port(), free_port()
    scenario = subprocess.run(["sipp", "-sd", "uas"], capture_output=True, text=True).stdout
    (tmp_path / "uas.xml").write_text(scenario.replace("[media_port]", str(port)))
    listening = Listening(RtpSettings(port=port, payload_types={"101": "telephone-event/8000"}))
    common = ["-i", "127.0.0.1", "-mi", "127.0.0.1", "-m", "1", "-nostdin"]
    answer = subprocess.Popen(
        ["sipp", "-sf", "uas.xml", "-p", str(answering), "-mp", str(free_port()), *common],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        call = subprocess.run(
            ["sipp", "-sn", "uac_pcap", "-p", str(calling), *common, f"127.0.0.1:{answering}"],
            cwd=tmp_path,
            capture_output=True,
            timeout=30,
        )
        assert call.returncode == 0, call.stdout[-2000:]
    finally:
        answer.kill()
        answer.wait()
    heard, rate = listening.sound()
    reference, _ = joined(
        [event for tick in source_events(sounds / "g711a.pcap", RtpSettings()) for event in tick]
    )
    assert rate == 8000
    lag, correlation = compare(heard[: len(reference)], reference, rate)
    assert abs(lag) <= 20
    assert correlation > 0.99
