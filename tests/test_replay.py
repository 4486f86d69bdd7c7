import os
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from serstream.cli import main
from serstream.config import RtpSettings, Settings
from serstream.emotion.model import EmotionModel
from serstream.errors import SourceError
from serstream.feed.coding import encode
from serstream.feed.messages import WindowEmotion
from serstream.replay import recording_events, replay
from serstream.rtp.sender import CLOCK_RATE, PACKET_SAMPLES, OutgoingStream, encode_mulaw
from serstream.shipped import SAMPLE_CALL


def write_capture(path: Path, stream: OutgoingStream) -> None:
    """A pcap of raw IPv4 packets, one every 20 ms."""
    with path.open("wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 101))
        for number in range(stream.n_packets):
            payload = stream.packet(number)
            udp = struct.pack("!HHHH", 40000, stream.port, 8 + len(payload), 0)
            ip = struct.pack(
                "!BBHHHBBH4s4s", 0x45, 0, 28 + len(payload), 0, 0, 64, 17, 0, b"\x7f\0\0\1", b"\x7f\0\0\1"
            )
            frame = ip + udp + payload
            at = 1_700_000_000_000_000 + number * 1_000_000 * PACKET_SAMPLES // CLOCK_RATE
            file.write(struct.pack("<IIII", at // 1_000_000, at % 1_000_000, len(frame), len(frame)) + frame)


def windows(path: Path, model: EmotionModel) -> list[WindowEmotion]:
    settings = Settings(rtp=(RtpSettings(role="customer"),))
    events = recording_events(path, (), settings)
    return [message for message in replay(events, settings, model) if isinstance(message, WindowEmotion)]


def test_a_capture_gives_what_its_recording_gives(tiny_model: Path, tmp_path: Path) -> None:
    samples, rate = soundfile.read(SAMPLE_CALL, dtype="int16", always_2d=True, frames=12 * CLOCK_RATE)
    customer = samples[:, 0]
    soundfile.write(tmp_path / "call.wav", customer, rate, subtype="ULAW")
    write_capture(tmp_path / "call.pcap", OutgoingStream("127.0.0.1", 5004, 1, encode_mulaw(customer)))
    model = EmotionModel(tiny_model)
    of_capture, of_file = windows(tmp_path / "call.pcap", model), windows(tmp_path / "call.wav", model)
    assert of_capture
    assert [(w.start, w.end, w.emotion) for w in of_capture] == [(w.start, w.end, w.emotion) for w in of_file]
    assert of_capture[0].role == "customer"
    assert of_capture[0].time.startswith("2023-11-14T22:13:2"), "the capture's own clock"


def test_a_bad_recording_is_named_and_the_others_are_replayed(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.wav").write_text("no sound")
    soundfile.write(tmp_path / "silence.wav", np.zeros(8000), 8000)
    files = [str(tmp_path / name) for name in ("text.wav", "none.pcap", "silence.wav")]
    assert main(["replay", *files, "--set", f"model.path={tiny_model}"]) == 2
    printed = capsys.readouterr()
    assert printed.out.count('"source":"file:silence.wav"') == len(printed.out.splitlines()) == 4
    assert f"error: file {files[0]}: not a recording" in printed.err
    assert f"error: capture {files[1]}: cannot read it" in printed.err


def test_roles_of_channels_do_not_fit_a_capture(tmp_path: Path) -> None:
    with pytest.raises(
        SourceError, match=r"a capture has no channels; give roles to its streams under \[\[rtp\]\]"
    ):
        recording_events(tmp_path / "call.pcap", ("customer",), Settings())


def test_the_name_of_a_capture_need_not_be_utf8(tmp_path: Path, tiny_model: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.pcap")
    write_capture(path, OutgoingStream("127.0.0.1", 5004, 1, bytes(8000)))
    messages = list(replay(recording_events(path, (), Settings()), Settings(), EmotionModel(tiny_model)))
    assert {message.source for message in messages} == {r"file:caf\xe9.pcap"}
    assert all(encode(message) for message in messages)


def test_the_sdp_of_a_capture_is_sought_beside_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "call.sdp").write_text("v=0\nm=audio 5004 RTP/AVP 96\na=rtpmap:96 PCMU/8000\n")
    call = OutgoingStream("127.0.0.1", 5004, 1, bytes(800), payload_type=96)
    write_capture(tmp_path / "call.pcap", call)
    settings = Settings(rtp=(RtpSettings(sdp="call.sdp"),))
    assert list(recording_events(tmp_path / "call.pcap", (), settings, tmp_path))
