from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

pytest.importorskip("torch", reason="needs the trainer extra")

from trainer import inventory
from trainer.cli import main
from trainer.corpora import CorpusError

pytestmark = pytest.mark.trainer


def test_clips_are_counted_by_emotion_sex_and_speaker(tiny_data: Path) -> None:
    stock = inventory.take(tiny_data)
    (tiny,) = stock.found
    assert tiny.emotions["angry"] == {"male": 6, "female": 6}
    assert tiny.speakers == {"female": [9, 9], "male": [9, 9], "unknown": []}
    missing = ["emo-db", "ravdess", "crema-d", "tess", "savee", "banglaser"]
    assert [corpus.name for corpus in stock.missing] == missing


def test_the_list_shows_counts_and_what_is_missing(tiny_data: Path) -> None:
    out = StringIO()
    inventory.show(inventory.take(tiny_data), Console(width=200, file=out))
    text = out.getvalue()
    assert "tiny: 36 clips, de, no licence stated" in text
    assert "2 speakers female, 9 clips each; 2 speakers male, 9 clips each" in text
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
        (tmp_path / f"emo-db/{name}.wav").touch()
    assert main(["corpora", "--data", str(tmp_path)]) == 0
    (said,) = caplog.messages
    names = ", ".join(f"renamed-{i}.wav" for i in range(5))
    assert said == f"{tmp_path / 'emo-db'}: audio files left out, not named as published: 7 ({names}, ...)"


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
