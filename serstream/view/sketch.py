"""A recording as a picture: utterances, waveform, spectrogram and what the model heard over time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import scipy.fft

from serstream.classify import Classified
from serstream.errors import ConfigError, SourceError
from serstream.types import Samples
from serstream.view.canvas import Canvas, Pixels, canvas_for
from serstream.view.emoji import colour_of
from serstream.view.screen import duration

LIMIT_S = 1800.0
"""Seconds of sound that a picture has room for."""

WIDTH, HEIGHT = 1000, 560
LEFT, RIGHT = 64, 980
TITLE, UTTERANCES, WAVEFORM, SPECTROGRAM, EMOTIONS = 34, 50, 92, 202, 372
"""Tops of the rows, of the title the base line."""
ROW = {UTTERANCES: 30, WAVEFORM: 100, SPECTROGRAM: 160, EMOTIONS: 120}
"""Heights."""
AXIS = EMOTIONS + ROW[EMOTIONS]
LEGEND = HEIGHT - 16

FRAME_S, HOP_S = 0.032, 0.008
"""Of the spectrogram."""
TOP_HZ = 8000
RANGE_DB = 70.0
SHADES = 20
"""Steps from white to black: no fewer than the eye sees, no more than compress well."""
INK = np.array([[255, 255, 255], [26, 34, 56]], np.float32)
"""Of silence and of the loudest sound; no emotion has a colour like these."""

SOUND, GRID, DIM = "#bbb", "#e4e4e4", "#777"


def draw(classified: Classified, path: Path) -> None:
    """Draw one stream into an SVG or PNG file.

    Raises:
        SourceError: the recording is longer than `LIMIT_S`.
        ConfigError: the name ends in something else, PNG needs Pillow, or the file cannot be written.
    """
    seconds = classified.verdict.seconds
    if seconds > LIMIT_S:
        raise SourceError(
            f"picture {path}: {classified.verdict.recording} has {seconds / 60:.0f} minutes, a picture has "
            f"room for {LIMIT_S / 60:.0f}; cut it, or draw its events with 'serstream report'"
        )
    canvas = canvas_for(path, WIDTH, HEIGHT)
    scale = (RIGHT - LEFT) / max(seconds, 1e-3)
    _title(canvas, classified)
    canvas.image(LEFT, SPECTROGRAM, spectrogram(classified.samples, classified.sample_rate, scale))
    _axis(canvas, seconds, scale)
    _waveform(canvas, classified, scale)
    _utterances(canvas, classified, scale)
    _frequencies(canvas, classified.sample_rate)
    _emotions(canvas, classified, scale)
    _legend(canvas, classified)
    try:
        path.write_bytes(canvas.encode())
    except OSError as error:
        raise ConfigError(f"picture {path}: cannot write it: {error.strerror}") from error


def spectrogram(samples: Samples, sample_rate: int, scale: float) -> Pixels:
    """Power over time and frequency, as an RGB image of the row's size.

    Args:
        samples: shape (n,).
        sample_rate: Hz.
        scale: pixels per second.
    """
    height, width = ROW[SPECTROGRAM], RIGHT - LEFT
    frame, hop = round(FRAME_S * sample_rate), round(HOP_S * sample_rate)
    padded = np.pad(samples, (frame // 2, frame))
    frames = np.lib.stride_tricks.sliding_window_view(padded, frame)[: len(samples) : hop]
    taper = np.hanning(frame).astype(np.float32)
    edges = (np.arange(width + 1) / scale / HOP_S).astype(int)
    columns = np.empty((width, frame // 2 + 1), np.float32)
    for column, (begin, behind) in enumerate(zip(edges, np.maximum(edges[1:], edges[:-1] + 1), strict=False)):
        here = frames[min(begin, len(frames) - 1) : behind]
        columns[column] = np.square(np.abs(scipy.fft.rfft(here * taper, axis=1))).mean(axis=0)
    bins = np.linspace(min(TOP_HZ, sample_rate / 2), 0, height) * frame / sample_rate
    power = 10 * np.log10(columns[:, np.rint(bins).astype(int)].T + 1e-10)
    darkness = np.rint(np.clip((power - power.max()) / RANGE_DB + 1, 0, 1) * SHADES)[..., None] / SHADES
    pixels: Pixels = ((1 - darkness) * INK[0] + darkness * INK[1]).astype(np.uint8)
    return pixels


def _title(canvas: Canvas, classified: Classified) -> None:
    verdict = classified.verdict
    canvas.text(RIGHT, TITLE, f"{verdict.model}", anchor="end", colour=DIM)
    name = verdict.recording if len(verdict.recording) <= 60 else f"…{verdict.recording[-59:]}"
    if verdict.emotion is None:
        canvas.text(LEFT, TITLE, f"no speech   {name}", size=16)
        return
    canvas.face(LEFT, TITLE, 24, verdict.emotion)
    canvas.text(
        LEFT + 34,
        TITLE,
        f"{verdict.emotion} {verdict.confidence:.0%}",
        size=20,
        colour=colour_of(verdict.emotion),
    )
    canvas.text(LEFT + 190, TITLE, f"{name}, {duration(verdict.seconds)}", colour=DIM)


def _axis(canvas: Canvas, seconds: float, scale: float) -> None:
    step = next(step for step in (0.5, 1, 2, 5, 10, 30, 60, 120, 300) if seconds / step <= 12)
    for tick in np.arange(0, seconds + 1e-6, step).tolist():
        x = LEFT + tick * scale
        canvas.line((x, UTTERANCES), (x, AXIS + 4), GRID)
        name = f"{tick:g} s" if seconds < 60 else duration(tick)
        canvas.text(x, AXIS + 18, name, size=12, anchor="middle", colour=DIM)


def _waveform(canvas: Canvas, classified: Classified, scale: float) -> None:
    """Grey, and in the emotion's colour where there is one."""
    samples, sample_rate = classified.samples, classified.sample_rate
    height = ROW[WAVEFORM]
    middle = WAVEFORM + height / 2
    width = min(RIGHT - LEFT, max(1, round(len(samples) / sample_rate * scale)))
    pieces = np.array_split(samples, width)
    loudest = max(float(np.abs(samples).max()), 1e-3)
    reach = height / 2 / loudest
    upper = [(LEFT + x, middle - float(piece.max(initial=0)) * reach) for x, piece in enumerate(pieces)]
    lower = [(LEFT + x, middle - float(piece.min(initial=0)) * reach + 1) for x, piece in enumerate(pieces)]
    canvas.polygon([*upper, *reversed(lower)], SOUND)
    for utterance in classified.verdict.utterances:
        own = slice(int(utterance.start * scale), int(utterance.end * scale) + 1)
        canvas.polygon([*upper[own], *reversed(lower[own])], colour_of(utterance.emotion))
    canvas.text(LEFT - 8, middle + 4, "sound", size=12, anchor="end", colour=DIM)


def _utterances(canvas: Canvas, classified: Classified, scale: float) -> None:
    top, height = UTTERANCES, ROW[UTTERANCES]
    for utterance in classified.verdict.utterances:
        x, width = LEFT + utterance.start * scale, max((utterance.end - utterance.start) * scale, 1.0)
        colour = colour_of(utterance.emotion)
        canvas.rectangle(x, top + height - 4, width, 4, colour)
        if width >= 26:
            canvas.face(x, top + height - 10, 18, utterance.emotion)
        if width >= 130:
            name = f"{utterance.emotion} {utterance.confidence:.0%}"
            canvas.text(x + 28, top + height - 11, name, colour=colour)


def _frequencies(canvas: Canvas, sample_rate: int) -> None:
    top = min(TOP_HZ, sample_rate / 2)
    for share in (0.25, 0.5, 0.75):
        y = SPECTROGRAM + ROW[SPECTROGRAM] * (1 - share)
        canvas.text(LEFT - 8, y + 4, f"{top * share / 1000:g} kHz", size=12, anchor="end", colour=DIM)


def _emotions(canvas: Canvas, classified: Classified, scale: float) -> None:
    """Every window's probabilities on top of each other, over the sound that no window before it held."""
    top, height = EMOTIONS, ROW[EMOTIONS]
    labels = list(classified.verdict.probabilities)
    heard_to = 0.0
    for window in classified.windows:
        x = LEFT + max(window.start, heard_to) * scale
        width = LEFT + window.end * scale - x
        heard_to = window.end
        y = float(top)
        for label in labels:
            share = height * window.probabilities.get(label, 0.0)
            canvas.rectangle(x, y, max(width - 1, 1), share, colour_of(label))
            y += share
    for share in (0, 0.5, 1):
        canvas.text(
            LEFT - 8, top + height * (1 - share) + 4, f"{share:.0%}", size=12, anchor="end", colour=DIM
        )
    canvas.line((LEFT, AXIS), (RIGHT, AXIS), DIM)


def _legend(canvas: Canvas, classified: Classified) -> None:
    probabilities = classified.verdict.probabilities
    room = (RIGHT - LEFT) / max(len(probabilities), 6)
    for number, (label, probability) in enumerate(probabilities.items()):
        x = LEFT + number * room
        canvas.rectangle(x, LEGEND - 10, 11, 11, colour_of(label))
        canvas.text(x + 17, LEGEND, f"{label} {probability:.0%}")
