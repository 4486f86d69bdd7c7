from __future__ import annotations

import shutil
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import soundfile
from rich.console import Console

pytest.importorskip("torch", reason="needs the trainer extra")

from matplotlib.figure import Figure

from trainer import inventory
from trainer.cli import main
from trainer.corpora import CorpusError

pytestmark = pytest.mark.trainer


def test_clips_are_counted_by_emotion_sex_and_speaker(tiny_data: Path) -> None:
    stock = inventory.take(tiny_data)
    (tiny,) = stock.found
    assert tiny.emotions["angry"] == {"male": 6, "female": 6}
    assert tiny.speakers == {"female": {"s1": 9, "s3": 9}, "male": {"s0": 9, "s2": 9}, "unknown": {}}
    missing = ["emo-db", "ravdess", "crema-d", "tess", "savee", "banglaser"]
    assert [corpus.name for corpus in stock.missing] == missing


def test_the_list_shows_counts_and_what_is_missing(tiny_data: Path) -> None:
    out = StringIO()
    inventory.show(inventory.take(tiny_data), Console(width=200, file=out))
    text = out.getvalue()
    assert "tiny: 36 clips, de, no licence stated" in text
    lines = [line.split() for line in text.splitlines()]
    women = lines.index(["2", "speakers", "female,", "clips", "of", "each:"])
    assert lines[women + 1] == ["s1:", "9", "s3:", "9"]
    assert any(line.split()[:4] == ["sad", "6", "6", "12"] for line in text.splitlines())
    assert "not here: savee (research only, on request), http://kahlan.eps.surrey.ac.uk/savee" in text


def test_a_corpus_that_cannot_be_read_does_not_hide_the_others(
    tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tiny").symlink_to(tiny_data / "tiny")
    (tmp_path / "crema-d").mkdir()
    (tmp_path / "crema-d/1001_DFA_ANG_XX.wav").touch()
    assert main(["corpora", "--data", str(tmp_path)]) == 2
    printed = capsys.readouterr()
    assert "tiny: 36 clips" in printed.out
    assert "VideoDemographics.csv: no such file; CREMA-D is published with it" in printed.err


def test_files_without_a_name_of_their_corpus_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "emo-db").mkdir()
    for name in ("03a01Fa", *(f"renamed-{i}" for i in range(7))):
        soundfile.write(tmp_path / f"emo-db/{name}.wav", np.zeros(160), 16_000)
    assert main(["corpora", "--data", str(tmp_path)]) == 0
    (said,) = caplog.messages
    names = ", ".join(f"renamed-{i}.wav" for i in range(5))
    assert said == f"{tmp_path / 'emo-db'}: audio files left out, not named as published: 7 ({names}, ...)"


def test_every_clip_that_cannot_be_read_is_named_and_not_counted(
    tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(tiny_data / "tiny", tmp_path / "tiny")
    (tmp_path / "tiny/0-sad-0.wav").write_text("no sound")
    (tmp_path / "tiny/1-sad-0.wav").write_bytes(b"")
    soundfile.write(tmp_path / "tiny/2-sad-0.wav", np.zeros(0), 16_000)
    cut = tmp_path / "tiny/3-sad-0.wav"
    cut.write_bytes(cut.read_bytes()[:-16_000])
    table = tmp_path / "tiny/manifest.csv"
    table.write_text(table.read_text().replace("0-angry-0.wav", "headerless.raw"))
    (tmp_path / "tiny/0-angry-0.wav").rename(tmp_path / "tiny/headerless.raw")
    (tmp_path / "emo-db").mkdir()
    (tmp_path / "emo-db/03a01Fa.wav").touch()
    assert main(["corpora", "--data", str(tmp_path), "--picture", str(tmp_path / "counts.png")]) == 2
    printed = capsys.readouterr()
    assert "tiny: 31 clips" in printed.out
    for name in ("tiny/0-sad-0", "tiny/1-sad-0", "emo-db/03a01Fa"):
        assert f"{tmp_path / name}.wav: cannot read it: Format not recognised" in printed.err
    assert f"{tmp_path / 'tiny/2-sad-0.wav'}: holds no samples" in printed.err
    assert f"{cut}: its last 0.50 s are missing" in printed.err
    assert f"{tmp_path / 'tiny/headerless.raw'}: cannot read it: samplerate must be" in printed.err


def test_licences_and_names_are_no_markup(
    tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(tiny_data / "tiny", tmp_path / "tiny")
    table = tmp_path / "tiny/manifest.csv"
    table.write_text(table.read_text().replace(",s1,", ",$a_$,"))
    (tmp_path / "tiny/corpus.toml").write_text(
        'licence = "my [non-commercial] [/terms]"\npublished = "here"\nsellable = false\n'
    )
    assert main(["corpora", "--data", str(tmp_path), "--picture", str(tmp_path / "counts.png")]) == 0
    printed = capsys.readouterr().out
    assert "my [non-commercial] [/terms]" in printed
    assert "$a_$: " in printed


def test_bars_have_the_names_of_their_speakers_where_there_is_room(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    found = inventory.take(tiny_data).found
    inventory.draw(found, tmp_path / "counts.png")
    monkeypatch.setattr(inventory, "NAMED", 3)
    inventory.draw(found, tmp_path / "counts.png")
    named, crowded = ([text.get_text() for text in figure.axes[1].get_xticklabels()] for figure in drawn)
    assert (named, crowded) == (["s1", "s3", "s0", "s2"], [])


@pytest.mark.parametrize("name", ["counts", "counts.xyz", "counts.png"])
def test_the_picture_is_a_png_whatever_its_name(name: str, tiny_data: Path, tmp_path: Path) -> None:
    assert main(["corpora", "--data", str(tiny_data), "--picture", str(tmp_path / name)]) == 0
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_a_folder_is_no_picture(tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["corpora", "--data", str(tiny_data), "--picture", str(tmp_path)]) == 2
    assert f"error: {tmp_path}: Is a directory" in capsys.readouterr().err


def test_an_empty_folder_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"no corpus in it; wanted folders emo-db, .*manifest\.csv"):
        inventory.take(tmp_path)
