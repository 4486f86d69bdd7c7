"""Who is analysed, and that sound is never kept: docs/privacy.md, as tests."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from serstream.config import AlertSettings, PrivacySettings, Settings
from serstream.emotion.model import EmotionModel
from serstream.feed.messages import Alert, CallEnded, Message, StreamEnded, WindowEmotion, WindowUnscored
from serstream.pipeline import Pipeline
from serstream.types import AudioChunk, Role, StreamEnd, StreamStart

CLIPS = sorted((Path(__file__).parent / "fixtures" / "emo-db").glob("*.flac"))
ALWAYS = AlertSettings(
    name="always", emotions=("negative", "positive", "neutral"), threshold=0.0, clear_below=0.0, for_s=0.0
)


def messages(settings: Settings, model: Path, role: Role) -> list[Message]:
    """A stream of real speech with this role, through the pipeline."""
    samples = np.concatenate([soundfile.read(clip, dtype="float32")[0] for clip in CLIPS])
    pipeline = Pipeline(settings, EmotionModel(model))
    start = StreamStart(stream="s", call="c", role=role, source="test", started_at=0.0)
    chunk = AudioChunk(stream="s", samples=samples, sample_rate=16_000, start=0)
    return pipeline.feed([start, chunk, StreamEnd(stream="s", reason="eof")])


def test_agents_are_measured_and_not_scored(tiny_model: Path) -> None:
    told = messages(Settings(alert=(ALWAYS,)), tiny_model, "agent")
    assert not any(isinstance(message, WindowEmotion | Alert) for message in told)
    unscored = [message for message in told if isinstance(message, WindowUnscored)]
    assert unscored
    assert {message.reason for message in unscored} == {"role"}
    (end,) = [message for message in told if isinstance(message, StreamEnded)]
    assert end.speech_s > 1.0, "the share of speech is measured"
    assert end.emotions_s == {}


@pytest.mark.parametrize("role", ["customer", "unknown"])
def test_customers_and_streams_without_a_role_are_scored(tiny_model: Path, role: Role) -> None:
    assert any(isinstance(message, WindowEmotion) for message in messages(Settings(), tiny_model, role))


def test_agents_are_scored_where_that_is_said(tiny_model: Path) -> None:
    settings = Settings(privacy=PrivacySettings(analyse_agents=True))
    assert any(isinstance(message, WindowEmotion) for message in messages(settings, tiny_model, "agent"))


def test_an_alert_follows_its_window_and_is_counted(tiny_model: Path) -> None:
    told = messages(Settings(alert=(ALWAYS,)), tiny_model, "customer")
    raised = [i for i, message in enumerate(told) if isinstance(message, Alert)]
    assert len(raised) == 1
    assert isinstance(told[raised[0] - 1], WindowEmotion)
    assert isinstance(told[-1], CallEnded)
    assert told[-1].alerts == 1
    numbers = [message.sequence for message in told if message.stream == "s"]
    assert numbers == list(range(len(numbers)))


def test_no_code_of_the_monitor_writes_sound() -> None:
    """Whoever adds a recorder has to read docs/privacy.md first."""
    for path in (Path(__file__).parents[1] / "serstream").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        for writer in ("soundfile.write", "sf.write", "wave.open", "wavfile.write", ".tofile("):
            assert writer not in text, f"{path.name} uses {writer}"
