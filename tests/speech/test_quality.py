import numpy as np
import pytest

from serstream.config import QualitySettings
from serstream.speech.quality import measure, quality_fault
from serstream.types import Quality, SpeechWindow


def window(**quality: float) -> SpeechWindow:
    good = {"loss": 0.0, "clipping": 0.0, "level_dbfs": -26.0, "speech": 0.9}
    return SpeechWindow("s", np.zeros(1, np.float32), 0, 1, 0, False, Quality(**(good | quality)))


def test_a_square_wave_of_full_scale_is_0_dbfs_and_clipped() -> None:
    square = np.tile(np.array([1, -1], np.float32), 100)
    quality = measure(square, loss=0.25, speech=0.5)
    assert quality == Quality(loss=0.25, clipping=1.0, level_dbfs=0.0, speech=0.5)


def test_digital_silence_has_a_level() -> None:
    assert measure(np.zeros(10, np.float32), 0, 0).level_dbfs == -120.0


@pytest.mark.parametrize(
    ("quality", "reason"),
    [
        ({}, None),
        ({"loss": 0.2}, None),
        ({"loss": 0.21}, "loss"),
        ({"clipping": 0.11}, "clipping"),
        ({"level_dbfs": -61.0}, "level"),
        ({"speech": 0.1}, "speech"),
    ],
)
def test_reason(quality: dict[str, float], reason: str | None) -> None:
    assert quality_fault(window(**quality), QualitySettings()) == reason
