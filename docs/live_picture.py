"""Draws docs/live.svg: the live view in the middle of three copies of the sample call, as it really looks."""

from pathlib import Path

import numpy as np
import soundfile
from rich.console import Console

from serstream.config import AlertSettings, PrivacySettings, Settings
from serstream.emotion.loading import load_model
from serstream.replay import replay
from serstream.shipped import SAMPLE_CALL
from serstream.types import AudioChunk, Role, SourceEvent, StreamStart
from serstream.view.live import LiveView

SHOWN_S = 165
"""Seconds of stream time that the picture looks back on."""
CALLS = {"7f3a-0412": 0, "7f3a-0413": 12, "7f3a-0415": 25}
"""Call to the seconds by which it is ahead of the sample call."""


def events() -> list[SourceEvent]:
    samples, rate = soundfile.read(SAMPLE_CALL, dtype="float32")
    parties: tuple[Role, ...] = ("customer", "agent")
    started: list[SourceEvent] = []
    chunks: list[SourceEvent] = []
    for call, ahead_s in CALLS.items():
        shifted = np.roll(np.tile(samples, (4, 1)), -ahead_s * rate, axis=0)
        for channel, role in enumerate(parties):
            stream = f"{call}-{role}"
            started.append(StreamStart(stream, call, role, "rtp:5004", 1_795_000_000.0))
            for begin in range(0, SHOWN_S * rate, rate):
                chunks.append(AudioChunk(stream, shifted[begin : begin + rate, channel].copy(), rate, begin))
    return started + sorted(chunks, key=lambda chunk: chunk.start if isinstance(chunk, AudioChunk) else 0)


def main() -> None:
    settings = Settings(
        privacy=PrivacySettings(analyse_agents=True),
        alert=(
            AlertSettings(
                name="angry customer", emotions=("angry",), role="customer", for_s=2.0, threshold=0.5
            ),
        ),
    )
    console = Console(record=True, width=100, height=12, force_terminal=True, color_system="truecolor")
    view = LiveView(console)
    for message in replay(events(), settings, load_model(settings.model)):
        view.board.update(message, message.end)
    console.print(view.renderable(SHOWN_S), end="")
    Path(__file__).with_name("live.svg").write_text(console.export_svg(title="serstream live"))


if __name__ == "__main__":
    main()
