import ctypes
import ctypes.util
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from numpy.typing import NDArray

from serstream.rtp.codecs import ALAW, ULAW, Format, decoder
from serstream.rtp.concealment import conceal

CLIP = next((Path(__file__).parents[1] / "fixtures" / "emo-db").glob("*.flac"))


def speech(rate: int) -> NDArray[np.float32]:
    samples, original = soundfile.read(CLIP, dtype="float32")
    return soxr.resample(samples, original, rate)


@pytest.mark.parametrize(("codec", "table"), [("pcm_mulaw", ULAW), ("pcm_alaw", ALAW)])
def test_g711_tables_are_ffmpegs(codec: str, table: NDArray[np.float32]) -> None:
    import av

    context = av.CodecContext.create(codec, "r")
    assert isinstance(context, av.AudioCodecContext)
    context.sample_rate, context.layout = 8000, "mono"
    frames = context.decode(av.Packet(bytes(range(256))))
    expected = np.concatenate([frame.to_ndarray().ravel() for frame in frames]) / 32768
    np.testing.assert_array_equal(table, expected.astype(np.float32))


def test_l16_is_big_endian_and_mixed_down() -> None:
    stereo = decoder(Format("L16", 44100, 2))
    payload = np.array([[16384, 0], [-32768, -32768]], ">i2").tobytes()
    assert stereo.duration(payload) == 2
    np.testing.assert_array_equal(stereo.decode(payload), [0.25, -1.0])
    assert stereo.decode(payload[:-1]) is None


@pytest.mark.parametrize(
    ("toc", "ticks"),
    [("78", 960), ("08", 960), ("f8", 960), ("e0", 120), ("19", 5760), ("7b83", 2880)],
)
def test_opus_duration_is_in_its_first_bytes(toc: str, ticks: int) -> None:
    assert decoder(Format("OPUS", 48000, 2)).duration(bytes.fromhex(toc) + b"\0") == ticks


def test_broken_payloads_are_none_not_errors() -> None:
    assert decoder(Format("OPUS", 48000)).decode(b"\xff\x00") is None
    assert decoder(Format("G729", 8000)).decode(b"\xff\x01") is None


def test_a_silence_descriptor_of_g729_lasts_nothing() -> None:
    assert decoder(Format("G729", 8000)).duration(bytes(2)) == 0
    assert decoder(Format("G729", 8000)).duration(bytes(22)) == 160


@pytest.mark.skipif(
    not ctypes.util.find_library("bcg729"), reason="Debian's libbcg729-0 (a G.729 encoder) is not installed"
)
def test_g729_of_another_encoder() -> None:
    library = ctypes.CDLL(ctypes.util.find_library("bcg729"))
    library.initBcg729EncoderChannel.restype = ctypes.c_void_p
    channel = ctypes.c_void_p(library.initBcg729EncoderChannel(ctypes.c_uint8(0)))
    pcm = (speech(8000) * 32767).astype(np.int16)
    pcm = pcm[: len(pcm) // 160 * 160]
    g729 = decoder(Format("G729", 8000))
    heard = []
    for frame in pcm.reshape(-1, 2, 80):
        payload = b""
        for half in frame:
            bits, length = (ctypes.c_uint8 * 10)(), ctypes.c_uint8()
            samples = (ctypes.c_int16 * 80)(*half.tolist())
            library.bcg729Encoder(channel, samples, bits, ctypes.byref(length))
            payload += bytes(bits[: length.value])
        samples_out = g729.decode(payload)
        assert samples_out is not None
        assert len(samples_out) == g729.duration(payload) == 160
        heard.append(samples_out)
    line = np.concatenate(heard)
    # The encoder looks 40 samples ahead and its look is a filter's delay.
    best = max(np.corrcoef(line[lag:], pcm[: len(pcm) - lag])[0, 1] for lag in range(30, 120))
    assert best > 0.85


def test_concealment_goes_on_with_the_pitch_and_fades() -> None:
    tone = np.sin(2 * np.pi * 200 * np.arange(8000) / 8000).astype(np.float32)
    replacement = conceal(tone[:160], 800, 8000)
    np.testing.assert_allclose(replacement[:80], tone[160:240], atol=1e-6)
    assert np.abs(replacement[400:480]).max() < 0.25
    assert not replacement[480:].any()
    assert not conceal(tone[:10], 160, 8000).any()
    assert len(conceal(tone[:160], 0, 8000)) == 0
