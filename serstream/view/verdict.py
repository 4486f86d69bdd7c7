"""What a recording sounds like, for a terminal."""

from __future__ import annotations

from rich.bar import Bar
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from serstream.classify import Verdict
from serstream.view.emoji import colour_of, face
from serstream.view.screen import colour, duration

BAR = 30
"""Cells of a probability of 1."""


def show(verdict: Verdict, named: bool, console: Console) -> None:
    """Emotion, emoji and probabilities of a stream, and of its utterances if there are several.

    Args:
        verdict: of the stream.
        named: whether the stream's name is shown beside the recording's.
        console: where to.
    """
    name = f"{verdict.recording}, {verdict.stream}" if named else verdict.recording
    what = f"{verdict.speech_s:.1f} s of speech in {verdict.seconds:.1f} s, {verdict.model}"
    console.print(Text.assemble((name, "bold"), (f"  {what}", "dim")), soft_wrap=True)
    console.print(_body(verdict), end="\n\n")


def _body(verdict: Verdict) -> RenderableType:
    if verdict.emotion is None:
        reasons = ", ".join(f"{count} by {reason}" for reason, count in verdict.unscored.items())
        return Text(f"  no verdict: {f'windows not scored: {reasons}' if reasons else 'no speech found'}")
    table = Table.grid(padding=(0, 1))
    for label, share in sorted(verdict.probabilities.items(), key=lambda item: -item[1]):
        winner = label == verdict.emotion
        table.add_row(
            "  " + face(label),
            Text(label, style="bold" if winner else ""),
            f"{share:4.0%}",
            Bar(1.0, 0.0, share, width=BAR, color=colour_of(label)),
        )
    if len(verdict.utterances) < 2:
        return table
    course = Table.grid(padding=(0, 1))
    for utterance in verdict.utterances:
        course.add_row(
            f"  {duration(utterance.start)} to {duration(utterance.end)}",
            face(utterance.emotion),
            Text(utterance.emotion, style=colour(utterance.emotion)),
            f"{utterance.confidence:4.0%}",
        )
    return Group(table, "", course)
