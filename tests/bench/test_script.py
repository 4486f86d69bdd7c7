import numpy as np
import pytest

from serstream.bench.script import write_script
from serstream.config import SegmenterSettings
from serstream.rtp.codecs import ULAW
from serstream.speech.segmenter import UtteranceEnd
from serstream.speech.stream import StreamSegmenter
from serstream.types import SAMPLE_RATE, AudioChunk


@pytest.mark.parametrize("share", [0.25, 0.5, 1.0])
def test_a_caller_talks_for_the_share_of_the_time_that_was_asked_for(share: float) -> None:
    script = write_script(120, share, seed=1)
    sound = StreamSegmenter("s", SegmenterSettings())
    segments = sound.push(AudioChunk("s", ULAW[script.packets.reshape(-1)], 8000, 0)) + sound.flush()
    talked = sum(s.end - s.start for s in segments if isinstance(s, UtteranceEnd)) / SAMPLE_RATE
    assert talked / 120 == pytest.approx(share, abs=0.1)


def test_windows_are_those_of_the_daemons_segmenter_and_callers_differ() -> None:
    one, same, other = (write_script(30, 0.5, seed) for seed in (1, 1, 2))
    assert one.packets.shape == (1500, 160)
    assert len(one.windows) > 5
    assert np.all(np.diff(one.windows) > 0) and one.windows[-1] <= 30 * 8000
    assert np.array_equal(one.packets, same.packets) and np.array_equal(one.windows, same.windows)
    assert not np.array_equal(one.packets, other.packets)
