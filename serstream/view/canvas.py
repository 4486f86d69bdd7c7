"""Two sheets to draw on, SVG and PNG, with the same few shapes. Coordinates are pixels from the top left."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Sequence
from html import escape
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from serstream.errors import ConfigError
from serstream.view.emoji import colour_of, face

Point: TypeAlias = tuple[float, float]
Anchor: TypeAlias = Literal["start", "middle", "end"]
Pixels: TypeAlias = NDArray[np.uint8]

FONT = "system-ui, sans-serif"


class Canvas(Protocol):
    """What both can do."""

    def rectangle(self, x: float, y: float, width: float, height: float, colour: str) -> None:
        """Filled."""

    def polygon(self, points: Sequence[Point], colour: str) -> None:
        """Filled."""

    def line(self, begin: Point, end: Point, colour: str) -> None:
        """One pixel wide."""

    def text(
        self, x: float, y: float, text: str, *, size: int = 13, anchor: Anchor = "start", colour: str = "#222"
    ) -> None:
        """``y`` is the base line."""

    def face(self, x: float, y: float, size: int, emotion: str) -> None:
        """The mark of an emotion, ``size`` wide, standing on ``y``."""

    def image(self, x: float, y: float, pixels: Pixels) -> None:
        """RGB, shape (height, width, 3)."""

    def encode(self) -> bytes:
        """The file."""


def canvas_for(path: Path, width: int, height: int) -> Canvas:
    """The sheet whose format the file's name says.

    Raises:
        ConfigError: another format, or PNG without Pillow.
    """
    suffix = path.suffix.lower()
    if suffix == ".svg":
        return Svg(width, height)
    if suffix == ".png":
        return Png(width, height, path)
    raise ConfigError(f"picture {path}: its name ends in {suffix!r}, wanted .svg or .png")


class Svg:
    """Scales, and has real emoji."""

    def __init__(self, width: int, height: int):
        self._shapes = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
            f'height="{height}" font-family="{FONT}">',
            f'<rect width="{width}" height="{height}" fill="#fff"/>',
        ]

    def rectangle(self, x: float, y: float, width: float, height: float, colour: str) -> None:
        """See `Canvas`."""
        self._shapes.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}"/>'
        )

    def polygon(self, points: Sequence[Point], colour: str) -> None:
        """See `Canvas`."""
        corners = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self._shapes.append(f'<polygon points="{corners}" fill="{colour}"/>')

    def line(self, begin: Point, end: Point, colour: str) -> None:
        """See `Canvas`."""
        (x1, y1), (x2, y2) = begin, end
        self._shapes.append(
            f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>'
        )

    def text(
        self, x: float, y: float, text: str, *, size: int = 13, anchor: Anchor = "start", colour: str = "#222"
    ) -> None:
        """See `Canvas`."""
        self._shapes.append(
            f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{colour}">'
            f"{escape(text)}</text>"
        )

    def face(self, x: float, y: float, size: int, emotion: str) -> None:
        """See `Canvas`."""
        self.text(x, y, face(emotion), size=size)

    def image(self, x: float, y: float, pixels: Pixels) -> None:
        """See `Canvas`."""
        height, width, _ = pixels.shape
        encoded = base64.b64encode(_png(pixels)).decode()
        self._shapes.append(
            f'<image x="{x:.1f}" y="{y:.1f}" width="{width}" height="{height}" '
            f'href="data:image/png;base64,{encoded}"/>'
        )

    def encode(self) -> bytes:
        """See `Canvas`."""
        return "\n".join([*self._shapes, "</svg>\n"]).encode()


class Png:
    """Drawn by Pillow at twice the size; a disc of the emotion's colour stands for its emoji.

    Raises:
        ConfigError: Pillow is not installed.
    """

    SCALE = 2

    def __init__(self, width: int, height: int, path: Path):
        try:
            # Not at the top: only this needs it.
            from PIL import Image, ImageDraw, ImageFont
        except ImportError as error:
            raise ConfigError(
                f"picture {path}: PNG needs Pillow; pip install pillow, or let the name end in .svg"
            ) from error
        self._font = ImageFont.load_default
        self._from_array = Image.fromarray
        self._image = Image.new("RGB", (width * self.SCALE, height * self.SCALE), "#fff")
        self._draw = ImageDraw.Draw(self._image)

    def rectangle(self, x: float, y: float, width: float, height: float, colour: str) -> None:
        """See `Canvas`."""
        left, top, right, bottom = self._scaled(x, y, x + width, y + height)
        self._draw.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), fill=colour)

    def polygon(self, points: Sequence[Point], colour: str) -> None:
        """See `Canvas`."""
        self._draw.polygon(self._scaled(*(value for point in points for value in point)), fill=colour)

    def line(self, begin: Point, end: Point, colour: str) -> None:
        """See `Canvas`."""
        self._draw.line(self._scaled(*begin, *end), fill=colour, width=self.SCALE)

    def text(
        self, x: float, y: float, text: str, *, size: int = 13, anchor: Anchor = "start", colour: str = "#222"
    ) -> None:
        """See `Canvas`."""
        left, base = self._scaled(x, y)
        side = {"start": "l", "middle": "m", "end": "r"}[anchor]
        font = self._font(size * self.SCALE)
        self._draw.text((left, base), text, fill=colour, font=font, anchor=f"{side}s")

    def face(self, x: float, y: float, size: int, emotion: str) -> None:
        """See `Canvas`."""
        box = self._scaled(x + size / 8, y - 0.7 * size, x + 7 * size / 8, y + 0.05 * size)
        self._draw.ellipse(box, fill=colour_of(emotion))

    def image(self, x: float, y: float, pixels: Pixels) -> None:
        """See `Canvas`."""
        large = pixels.repeat(self.SCALE, axis=0).repeat(self.SCALE, axis=1)
        left, top = self._scaled(x, y)
        self._image.paste(self._from_array(large), (left, top))

    def encode(self) -> bytes:
        """See `Canvas`."""
        file = BytesIO()
        self._image.save(file, "PNG")
        return file.getvalue()

    def _scaled(self, *values: float) -> tuple[Any, ...]:
        return tuple(round(value * self.SCALE) for value in values)


def _png(pixels: Pixels) -> bytes:
    """A PNG file (W3C PNG, third edition): three chunks, rows unfiltered."""
    height, width, _ = pixels.shape
    rows = np.concatenate([np.zeros((height, 1), np.uint8), pixels.reshape(height, -1)], axis=1)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )
