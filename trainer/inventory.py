"""What is in a data folder: clips by emotion, speaker and sex, as tables and as a picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from rich.bar import Bar
from rich.columns import Columns
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from trainer.corpora import KNOWN, Clip, Corpus, CorpusError, about, found, read
from trainer.corpora.clip import Sex
from trainer.windows import open_recording

SEXES: tuple[Sex, ...] = get_args(Sex)
NAMED = 40
"""Speakers of a corpus whose names stand at their bars; there is no room for more."""
COLOURS = {"female": "tab:orange", "male": "tab:blue", "unknown": "tab:gray"}


@dataclass(frozen=True, slots=True, eq=False)
class Inventory:
    """Counts of one corpus."""

    corpus: Corpus
    clips: list[Clip]

    @property
    def emotions(self) -> dict[str, Counter[Sex]]:
        """Clips of each emotion by sex, the most frequent emotion first."""
        total = Counter(clip.emotion for clip in self.clips)
        return {
            emotion: Counter(clip.sex for clip in self.clips if clip.emotion == emotion)
            for emotion, _ in total.most_common()
        }

    @property
    def speakers(self) -> dict[Sex, dict[str, int]]:
        """Clips of each speaker, by sex, the most frequent first."""
        return {
            sex: dict(Counter(self._own_name(clip) for clip in self.clips if clip.sex == sex).most_common())
            for sex in SEXES
        }

    def _own_name(self, clip: Clip) -> str:
        return clip.speaker.removeprefix(f"{self.corpus.name}/")


@dataclass(frozen=True, slots=True, eq=False)
class Stock:
    """What a data folder holds."""

    found: list[Inventory]
    missing: list[Corpus]
    """Known corpora that are not there."""
    faults: list[str]
    """Of corpora, or clips of them, that are there but cannot be read."""


def take(data: Path) -> Stock:
    """Count the corpora below a data folder; a clip whose header cannot be read is a fault and not counted.

    Raises:
        CorpusError: there is none.
    """
    names = found(data)
    if not names:
        raise CorpusError(
            f"data folder {data}: no corpus in it; wanted folders {', '.join(KNOWN)}, "
            "or any folder with a manifest.csv (columns file, speaker, emotion)"
        )
    stock = Stock([], [corpus for name, corpus in KNOWN.items() if name not in names], [])
    for name in names:
        try:
            corpus, clips = about(name, data), read(name, data)
        except CorpusError as error:
            stock.faults.append(str(error))
            continue
        faults = {clip: fault for clip in clips if (fault := _fault(clip))}
        stock.faults.extend(faults.values())
        if readable := [clip for clip in clips if clip not in faults]:
            stock.found.append(Inventory(corpus, readable))
    return stock


def _fault(clip: Clip) -> str:
    """What is wrong with a recording, as far as its header tells; empty if nothing."""
    try:
        open_recording(clip.path).close()
    except CorpusError as error:
        return str(error)
    return ""


def show(stock: Stock, console: Console) -> None:
    """Tables with bars, and what is missing."""
    for inventory in stock.found:
        console.print(_table(inventory))
        for sex, counts in inventory.speakers.items():
            if counts:
                each = Columns([Text(f"{name}: {n}") for name, n in counts.items()], padding=(0, 2))
                console.print(f"  {len(counts)} speakers {sex}, clips of each:")
                console.print(Padding(each, (0, 0, 0, 4)))
        console.print()
    for corpus in stock.missing:
        console.print(
            f"not here: {corpus.name} ({corpus.licence}), {corpus.published}; expected {corpus.layout}",
            style="dim",
        )


def draw(inventories: Sequence[Inventory], path: Path) -> None:
    """A PNG with a row per corpus: clips of each emotion, and of each speaker, by sex.

    Speakers are named where they are few enough for it.
    """
    figure = Figure(figsize=(10, 2.8 * len(inventories)), layout="constrained")
    rows = figure.subplots(len(inventories), 2, squeeze=False)
    for (left, right), inventory in zip(rows, inventories, strict=True):
        emotions, speakers = inventory.emotions, inventory.speakers
        bottom = np.zeros(len(emotions), np.int64)
        names = [name for counts in speakers.values() for name in counts]
        begin = 0
        for sex in SEXES:
            counts = np.array([by_sex[sex] for by_sex in emotions.values()])
            if counts.any():
                left.bar(list(emotions), counts, bottom=bottom, color=COLOURS[sex])
                places = range(begin, begin + len(speakers[sex]))
                right.bar(places, list(speakers[sex].values()), color=COLOURS[sex])
            bottom += counts
            begin += len(speakers[sex])
        left.set(ylabel="clips", title=f"{inventory.corpus.name}: {len(inventory.clips)} clips")
        left.tick_params(axis="x", rotation=30)
        right.set(ylabel="clips", xlabel="speakers, most clips first", title=f"{begin} speakers")
        if len(names) <= NAMED:
            right.set_xticks(range(len(names)), names, rotation=90, fontsize=7, parse_math=False)
        else:
            right.set_xticks([])
    handles = [Patch(color=colour, label=sex) for sex, colour in COLOURS.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    figure.savefig(path, format="png", dpi=110)


def _table(inventory: Inventory) -> Table:
    emotions = inventory.emotions
    sexes = [sex for sex in SEXES if any(by_sex[sex] for by_sex in emotions.values())]
    most = max(by_sex.total() for by_sex in emotions.values())
    languages = ", ".join(sorted({clip.language for clip in inventory.clips}))
    corpus = inventory.corpus
    title = f"{corpus.name}: {len(inventory.clips)} clips, {languages}, {corpus.licence}"
    table = Table(title=Text(title), title_justify="left", title_style="bold", box=None, pad_edge=True)
    table.add_column("emotion", min_width=10)
    for name in (*sexes, "clips"):
        table.add_column(name, justify="right")
    table.add_column(min_width=20, max_width=30)
    for emotion, by_sex in emotions.items():
        counts = [str(by_sex[sex]) for sex in sexes]
        table.add_row(emotion, *counts, str(by_sex.total()), Bar(most, 0, by_sex.total()))
    return table
