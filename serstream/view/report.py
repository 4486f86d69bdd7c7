"""One call on one page: HTML with a drawn timeline of both parties, which needs nothing but a browser."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from html import escape
from pathlib import Path

from serstream.errors import FeedError, readable
from serstream.feed.messages import Alert, rfc3339
from serstream.feed.recording import Call, Party, calls
from serstream.view.emoji import colour_of, face
from serstream.view.screen import duration

WIDTH = 1000
"""Units of the drawing; it scales with the page."""
LEFT = 90
LANE = 110
"""Height of one party: utterances above, mood below."""
BLOCK = 36
"""Height of an utterance."""

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62em; margin: 2em auto; padding: 0 1em; color: #222 }
h1 { margin-bottom: 0 } h2 { margin: 1.5em 0 .3em } .sub { color: #666; margin-top: 0 }
svg { width: 100%; height: auto } table { border-collapse: collapse } td, th { padding: .2em 1em .2em 0 }
th { text-align: left; border-bottom: 1px solid #ccc } .key { margin-right: 1.2em; white-space: nowrap }
.swatch { display: inline-block; width: .9em; height: .9em; margin-right: .35em }
svg text { font: 12px system-ui, sans-serif; fill: #222 }
"""


def write_reports(recording: Path, to: Path) -> list[Path]:
    """Write a page for each call of a recording.

    Args:
        recording: JSON lines of the feed.
        to: file for the page; with more than one call, the call's name is added to it, and a number if it
            is not the first of that name.

    Returns:
        The files written.

    Raises:
        FeedError: the recording cannot be read or holds no call, or a file cannot be written.
    """
    found = calls(recording)
    if not found:
        raise FeedError(
            f"recording {readable(recording)}: holds no call; record one with 'serstream listen > FILE'"
        )
    written: list[Path] = []
    taken: set[Path] = set()
    numbers: Counter[str] = Counter()
    for call in found:
        name = re.sub(r"[^A-Za-z0-9_-]", "_", call.name)
        path = to if len(found) == 1 else to.with_stem(f"{to.stem}-{name}")
        while path in taken:  # another call has the name, or this one with a number
            numbers[name] += 1
            path = to.with_stem(f"{to.stem}-{name}-{numbers[name] + 1}")
        taken.add(path)
        try:
            path.write_text(page(call), encoding="utf-8")
        except OSError as error:
            raise FeedError(f"report {path}: cannot write it: {error.strerror}") from error
        written.append(path)
    return written


def page(call: Call) -> str:
    """The page of one call, as HTML."""
    parties = sorted(call.parties.values(), key=lambda party: (party.role != "customer", party.stream))
    alerts = sorted(
        ((call.offset(party) + alert.end, alert) for party in parties for alert in party.alerts),
        key=lambda timed: timed[0],
    )
    labels = list(dict.fromkeys(label for p in parties for w in p.windows for label in w.probabilities))
    raised = sum(alert.state == "raised" for _, alert in alerts)
    return "\n".join(
        [
            '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">',
            f"<title>Call {escape(call.name)}</title><style>{STYLE}</style></head><body>",
            f"<h1>Call {escape(call.name)}</h1>",
            f'<p class="sub">{rfc3339(call.began)}, {duration(call.seconds)}, {raised} alerts, '
            f"model {escape(call.model)}</p>",
            "<p>" + "".join(_key(label) for label in labels) + "</p>",
            timeline(call, parties),
            '<p class="sub">Blocks are utterances; the line is mood (smoothed valence), pleasant above; '
            "grey was not heard.</p>",
            "<h2>Parties</h2>",
            _table(
                ("party", "source", "speech", "not received", "windows", "unscored", "emotions"),
                [_summary(party) for party in parties],
            ),
            "<h2>Alerts</h2>",
            _table(
                ("at", "party", "rule", "severity", "", "emotions", "probability"),
                [_alert(at, alert) for at, alert in alerts],
            )
            if alerts
            else "<p>None.</p>",
            "</body></html>\n",
        ]
    )


def timeline(call: Call, parties: Sequence[Party]) -> str:
    """The drawing, as SVG: a lane for each party, from top to bottom, in call time."""
    seconds = call.seconds
    scale = (WIDTH - LEFT - 10) / max(seconds, 1.0)
    height = LANE * len(parties) + 24
    shapes = [
        shape
        for number, party in enumerate(parties)
        for shape in _lane(party, call.offset(party), 4 + number * LANE, scale)
    ]
    steps = (1, 5, 10, 30, 60, 300, 600, 1800, 3600)
    step = next((step for step in steps if seconds / step <= 12), 86400)
    for tick in range(0, int(seconds) + 1, step):
        x = LEFT + tick * scale
        shapes.append(f'<line x1="{x:.1f}" y1="0" x2="{x:.1f}" y2="{height - 20}" stroke="#eee"/>')
        shapes.append(f'<text x="{x:.1f}" y="{height - 6}" text-anchor="middle">{duration(tick)}</text>')
    drawing = "\n".join(sorted(shapes, key=lambda shape: not shape.startswith("<line")))
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="Timeline">\n{drawing}\n</svg>'


def _lane(party: Party, offset: float, top: float, scale: float) -> list[str]:
    def place(stream_s: float) -> float:
        return LEFT + (offset + stream_s) * scale

    shapes = [f'<text x="0" y="{top + 24}" font-weight="bold">{escape(party.role)}</text>']
    for utterance in party.utterances:
        x, width = place(utterance.start), max((utterance.end - utterance.start) * scale, 1.0)
        title = f"{duration(offset + utterance.start)} {utterance.emotion} {utterance.confidence:.0%}"
        shapes.append(
            f'<rect class="utterance" x="{x:.1f}" y="{top}" width="{width:.1f}" height="{BLOCK}" '
            f'fill="{colour_of(utterance.emotion)}"><title>{escape(title)}</title></rect>'
        )
        if width > 20:
            emoji = face(utterance.emotion)
            shapes.append(f'<text x="{x + width / 2:.1f}" y="{top + 24}" text-anchor="middle">{emoji}</text>')
    shapes += [_muted(place(start), place(end), top) for start, end in party.muted]
    middle, reach = top + BLOCK + 32, 24
    shapes.append(f'<line x1="{LEFT}" y1="{middle}" x2="{WIDTH - 10}" y2="{middle}" stroke="#ccc"/>')
    points = " ".join(f"{place(w.end):.1f},{middle - w.valence * reach:.1f}" for w in party.windows)
    if points:
        shapes.append(f'<polyline points="{points}" fill="none" stroke="#333" stroke-width="1.5"/>')
    else:
        shapes.append(f'<text x="{LEFT + 6}" y="{middle - 6}">not analysed</text>')
    for alert in party.alerts:
        if alert.state == "raised":
            x = place(alert.end)
            shapes.append(
                f'<path class="alert" d="M{x - 7:.1f} {top + 50} h14 l-7 -12 z" fill="#b00020">'
                f"<title>{escape(alert.rule)}</title></path>"
            )
    return shapes


def _muted(x: float, end: float, top: float) -> str:
    return (
        f'<rect class="muted" x="{x:.1f}" y="{top}" width="{max(end - x, 1.0):.1f}" height="{LANE - 10}" '
        'fill="#ddd"><title>muted: no time to hear it</title></rect>'
    )


def _summary(party: Party) -> tuple[str, ...]:
    end = party.summary
    if end is None:
        return (
            party.role,
            party.source,
            "",
            "",
            str(len(party.windows)),
            "",
            "recording ends before the stream",
        )
    emotions = sorted(end.emotions_s.items(), key=lambda item: -item[1])
    return (
        party.role,
        party.source,
        f"{end.speech_s:.0f} s of {end.end:.0f} s" + (f", {end.muted_s:.0f} s muted" if end.muted_s else ""),
        f"{end.lost_s:.1f} s",
        str(end.windows),
        str(end.unscored),
        ", ".join(f"{face(label)} {label} {seconds:.0f} s" for label, seconds in emotions),
    )


def _alert(at: float, alert: Alert) -> tuple[str, ...]:
    return (
        duration(at),
        alert.role,
        alert.rule,
        alert.severity,
        alert.state,
        " + ".join(alert.emotions),
        f"{alert.probability:.0%} (threshold {alert.threshold:.0%})",
    )


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(title)}</th>" for title in titles)
    body = "\n".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>\n{body}</table>"


def _key(label: str) -> str:
    emoji = face(label)
    swatch = f'<span class="swatch" style="background:{colour_of(label)}"></span>'
    return f'<span class="key">{swatch}{emoji} {escape(label)}</span>'
