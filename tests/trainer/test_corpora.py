from __future__ import annotations

from pathlib import Path

import pytest

from serstream.emotion.affect import PLACES
from serstream.view.emoji import COLOURS, EMOJI
from trainer import corpora
from trainer.folds import leave_one_corpus_out

NAMES = {
    "emo-db": ("wav/03a01Fa.wav", ("emodb_03", "male", "happy")),
    "ravdess": ("Actor_12/03-01-06-01-02-01-12.wav", ("ravdess_12", "female", "fear")),
    "crema-d": ("AudioWAV/1001_DFA_ANG_XX.wav", ("1001", "male", "angry")),
    "tess": ("OAF_back_ps.wav", ("tess_OAF", "female", "surprise")),
    "savee": ("DC/sa01.wav", ("savee_DC", "male", "sad")),
}


@pytest.mark.parametrize("name", NAMES)
def test_official_names_are_understood(tmp_path: Path, name: str) -> None:
    file, (speaker, sex, emotion) = NAMES[name]
    path = tmp_path / name / file
    path.parent.mkdir(parents=True)
    path.touch()
    (path.parent / "readme.wav").touch()
    if name == "crema-d":
        (tmp_path / name / "VideoDemographics.csv").write_text("ActorID,Age,Sex\n1001,51,Male\n")
    (clip,) = corpora.read(name, tmp_path)
    assert (clip.path, clip.corpus) == (path, name)
    assert (clip.speaker, clip.sex, clip.emotion) == (speaker, sex, emotion)


def test_every_emotion_of_a_known_corpus_has_a_face_a_colour_and_a_place(tmp_path: Path) -> None:
    """A model learns the corpora's words; the monitor must know them."""
    names = [f"03a01{letter}a.wav" for letter in "WLEAFTN"]
    names += [f"03-01-0{emotion}-01-02-01-12.wav" for emotion in range(1, 9)]
    for corpus, own in (("emo-db", names[:7]), ("ravdess", names[7:])):
        (tmp_path / corpus).mkdir()
        for name in own:
            (tmp_path / corpus / name).touch()
    emotions = {clip.emotion for clip in corpora.read_all(("emo-db", "ravdess"), tmp_path)}
    assert len(emotions) == 9
    assert emotions == EMOJI.keys() == COLOURS.keys() == PLACES.keys()


def test_savee_is_also_read_from_a_flat_folder(tmp_path: Path) -> None:
    (tmp_path / "savee").mkdir()
    (tmp_path / "savee/JK_su03.wav").touch()
    (clip,) = corpora.read("savee", tmp_path)
    assert (clip.speaker, clip.emotion) == ("savee_JK", "surprise")


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("Age,Sex\n51,Male\n", "line 1: no column ActorID; copy the file as it is published"),
        ("ActorID,Age\n1001,51\n", "line 1: no column Sex;"),
        ("ActorID,Age,Sex\n1001,51,Männlich\n", "byte 25 is not UTF-8;"),
        ('ActorID,Age,Sex\n1001,51,"Male' + 140_000 * "x", "line 2: field larger than field limit"),
    ],
)
def test_a_bad_table_of_crema_d_is_refused(tmp_path: Path, table: str, said: str) -> None:
    (tmp_path / "crema-d").mkdir()
    (tmp_path / "crema-d/1001_DFA_ANG_XX.wav").touch()
    (tmp_path / "crema-d/VideoDemographics.csv").write_text(table, encoding="latin-1")
    with pytest.raises(corpora.CorpusError, match=rf"VideoDemographics\.csv:? {said}"):
        corpora.read("crema-d", tmp_path)


def test_a_clip_that_is_there_twice_counts_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """SAVEE in both of its layouts."""
    (tmp_path / "savee/DC").mkdir(parents=True)
    for name in ("DC_a01.wav", "DC/a01.wav", "DC/a02.wav"):
        (tmp_path / "savee" / name).touch()
    assert [clip.name for clip in corpora.read("savee", tmp_path)] == ["DC_a01", "a02"]
    said = f"{tmp_path / 'savee'}: audio files left out, copies of other clips: 1 (DC/a01.wav)"
    assert said in caplog.messages


def test_songs_of_ravdess_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "ravdess").mkdir()
    for name in ("03-02-06-01-02-01-12.wav", "03-01-06-01-02-01-12.wav"):
        (tmp_path / "ravdess" / name).touch()
    assert [clip.name for clip in corpora.read("ravdess", tmp_path)] == ["03-01-06-01-02-01-12"]


@pytest.mark.parametrize("empty", [False, True], ids=["no folder", "empty folder"])
@pytest.mark.parametrize("name", NAMES)
def test_a_missing_corpus_says_where_it_is_published(tmp_path: Path, name: str, empty: bool) -> None:
    known = corpora.KNOWN[name]
    if empty:
        (tmp_path / name).mkdir()
    with pytest.raises(corpora.CorpusError) as error:
        corpora.read(name, tmp_path)
    for part in (name, known.published, known.licence, known.layout):
        assert part in str(error.value)


def test_banglaser_is_read_by_its_manifest_and_attributed(tmp_path: Path) -> None:
    with pytest.raises(
        corpora.CorpusError, match=r"published at Mendeley Data .*wanted layout: .*manifest\.csv"
    ):
        corpora.read("banglaser", tmp_path)
    (tmp_path / "banglaser").mkdir()
    (tmp_path / "banglaser/b.wav").touch()
    (tmp_path / "banglaser/manifest.csv").write_text("file,speaker,emotion\nb.wav,banglaser_01,sad\n")
    (clip,) = corpora.read("banglaser", tmp_path)
    assert clip.speaker == "banglaser/banglaser_01"
    known = corpora.about("banglaser", tmp_path)
    assert known.licence.startswith("CC BY 4.0 to our knowledge")
    assert "Das et al., Data in Brief 42:108091, 2022" in known.published


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("licence = CC0", "not TOML: "),
        ('licence = "CC0-1.0"\npublished = "x"\n', "the key 'sellable' is missing"),
        ('license = "CC0-1.0"\n', "unknown key 'license'; did you mean 'licence'?"),
    ],
)
def test_bad_terms_of_a_corpus_are_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own/corpus.toml").write_text(text)
    with pytest.raises(corpora.CorpusError) as error:
        corpora.about("own", tmp_path)
    assert str(error.value).startswith(f"{tmp_path / 'own/corpus.toml'}: ")
    assert said in str(error.value)


def test_a_manifest_is_read(tiny_data: Path) -> None:
    clips = corpora.read("tiny", tiny_data)
    assert len(clips) == 36
    assert {clip.speaker for clip in clips} == {"tiny/s0", "tiny/s1", "tiny/s2", "tiny/s3"}
    assert corpora.found(tiny_data) == ["tiny"]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("file,emotion\na.wav,sad\n", "no column speaker"),
        ("file,speaker,emotion\na.wav,x,sad\n", "a.wav does not exist"),
        ("file,speaker,emotion\n,x,sad\n", "line 2: file is empty"),
        ("file,speaker,emotion,sex\nb.wav,x,sad,Man\n", "sex is 'Man', wanted one of female, male, unknown"),
        ("file,speaker,emotion\nb.wav,x,sad\nb.wav,y,sad\n", "line 3: b.wav is listed twice"),
        (
            "file,speaker,emotion\nb.wav,x,sad\n../own/b.wav,y,sad\n",
            r"line 3: \.\./own/b\.wav is listed twice",
        ),
        (
            "file,speaker,emotion,sex\nb.wav,x,sad,male\nc.wav,x,sad,female\n",
            "line 3: speaker x is female, in an earlier line male",
        ),
        ("file,speaker,emotion\n", "manifest.csv: lists no clip"),
        ("file;speaker;emotion\nb.wav;x;sad\n", "manifest.csv: columns are separated by ';', wanted ','"),
        ("file,speaker,emotion\nb.wav, ,sad\n", "line 2: speaker is empty"),
        (
            "file,speaker,emotion\nb.wav,x,sad\nc.wav,X,sad\n",
            "line 3: speaker is X, in an earlier line x; wanted one spelling",
        ),
        ('file,speaker,emotion\nb.wav,x,"sad' + 140_000 * "x", "line 2: field larger than field limit"),
        (
            f"file,speaker,emotion\n{300 * 'b'}.wav,x,sad\n",
            r"line 2: b{40}\.\.\. is no name of a file: File name",
        ),
        ("file,speaker,emotion\nb.wav,Jörg,sad\n", "manifest.csv: byte 28 is not UTF-8"),
    ],
)
def test_a_bad_manifest_is_refused(tmp_path: Path, table: str, said: str) -> None:
    """It does not stand in the way of the corpora beside it."""
    (tmp_path / "own").mkdir()
    (tmp_path / "own/b.wav").touch()
    (tmp_path / "own/c.wav").touch()
    (tmp_path / "own/manifest.csv").write_text(table, encoding="latin-1")
    with pytest.raises(corpora.CorpusError, match=said):
        corpora.read("own", tmp_path)
    corpora.found(tmp_path)


def test_blanks_and_composition_make_no_other_speaker_or_emotion(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    for file in ("b.wav", "c.wav"):
        (tmp_path / "own" / file).touch()
    (tmp_path / "own/manifest.csv").write_text(
        "file,speaker,emotion,sex\nb.wav,J\u00f6rg,sad,male\nc.wav,Jo\u0308rg , sad,male \n", encoding="utf-8"
    )
    said = {(clip.speaker, clip.emotion, clip.sex) for clip in corpora.read("own", tmp_path)}
    assert said == {("own/J\u00f6rg", "sad", "male")}


def test_a_sex_and_an_emotion_may_be_written_in_any_case(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    for file in ("b.wav", "c.wav"):
        (tmp_path / "own" / file).touch()
    (tmp_path / "own/manifest.csv").write_text(
        "file,speaker,emotion,sex\nb.wav,Anna,Angry,Female\nc.wav,Anna,angry,FEMALE\n", encoding="utf-8"
    )
    said = {(clip.speaker, clip.emotion, clip.sex) for clip in corpora.read("own", tmp_path)}
    assert said == {("own/Anna", "angry", "female")}


def test_blanks_around_a_file_and_a_language_do_not_count(tmp_path: Path) -> None:
    """The letters of a file's name stay as they are: two names on a disk may differ by their composition."""
    (tmp_path / "own").mkdir()
    (tmp_path / "own/o\u0308.wav").touch()
    (tmp_path / "own/manifest.csv").write_text(
        "file,speaker,emotion,language\n o\u0308.wav ,x,sad, de\n", encoding="utf-8"
    )
    (clip,) = corpora.read("own", tmp_path)
    assert (clip.path, clip.language) == (tmp_path / "own/o\u0308.wav", "de")


def test_rows_of_empty_cells_are_skipped(tmp_path: Path) -> None:
    """As spreadsheets write them below a table."""
    (tmp_path / "own").mkdir()
    (tmp_path / "own/b.wav").touch()
    (tmp_path / "own/manifest.csv").write_text("file,speaker,sex,emotion\nb.wav,x,,sad\n,,,\n , ,,,\n")
    assert [clip.name for clip in corpora.read("own", tmp_path)] == ["b"]


@pytest.mark.parametrize(
    ("table", "encoding"),
    [
        ("file;speaker;emotion\n", "utf-8"),
        ("file\tspeaker\temotion\n", "utf-8"),
        ("file, speaker, emotion\n", "utf-8"),
        ("File,Speaker,Emotion\n", "utf-8"),
        ("file,speaker,emotion\n", "utf-16"),
        ('"file,speaker,emotion' + 140_000 * "x", "utf-8"),
        ("", "utf-8"),
    ],
)
def test_a_table_that_makes_no_sense_is_found_and_refused(tmp_path: Path, table: str, encoding: str) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own/manifest.csv").write_text(table, encoding=encoding)
    assert corpora.found(tmp_path) == ["own"]
    with pytest.raises(corpora.CorpusError, match=r"manifest\.csv"):
        corpora.read("own", tmp_path)


def test_a_table_with_quotes_is_read_and_one_of_noises_is_none_of_a_corpus(tmp_path: Path) -> None:
    """R writes quotes."""
    for folder in ("own", "noise"):
        (tmp_path / folder).mkdir()
    (tmp_path / "own/b.wav").touch()
    (tmp_path / "own/manifest.csv").write_text('"file","speaker","emotion"\n"b.wav","x","sad"\n')
    (tmp_path / "noise/manifest.csv").write_text("file,dataset,category\nrain.flac,esc10-noise,rain\n")
    assert corpora.found(tmp_path) == ["own"]
    assert [clip.emotion for clip in corpora.read("own", tmp_path)] == ["sad"]


def test_a_manifest_that_excel_saved_is_read(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own/b.wav").touch()
    (tmp_path / "own/manifest.csv").write_text(
        "emotion,file,speaker\r\nsad,b.wav,Jörg\r\n", encoding="utf-8-sig", newline=""
    )
    assert corpora.found(tmp_path) == ["own"]
    (clip,) = corpora.read("own", tmp_path)
    assert (clip.speaker, clip.emotion) == ("own/Jörg", "sad")


@pytest.mark.parametrize(
    "name", ["tiny/", "./tiny", "../data/tiny", ".", "..", "", "calls,2025", "calls:1", "a b"]
)
def test_a_corpus_has_one_spelling_and_no_comma(name: str, tiny_data: Path) -> None:
    with pytest.raises(corpora.CorpusError, match="wanted the name of a folder below") as error:
        corpora.read(name, tiny_data)
    assert str(error.value).startswith(f"corpus {name!r}: ")


@pytest.mark.parametrize("name", ["female", "male", "unknown"])
def test_a_corpus_is_not_called_as_a_sex(name: str, tiny_data: Path, tmp_path: Path) -> None:
    """Its figures would stand where those of the sex do."""
    (tmp_path / name).symlink_to(tiny_data / "tiny")
    assert corpora.found(tmp_path) == [name]
    with pytest.raises(corpora.CorpusError, match=f"corpus {name}: reports call .* so; rename the folder"):
        corpora.read(name, tmp_path)


def test_speakers_of_two_corpora_are_never_the_same(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        for file in ("a.wav", "b.wav"):
            (tmp_path / name / file).touch()
        (tmp_path / name / "manifest.csv").write_text("file,speaker,emotion\na.wav,1,sad\nb.wav,2,sad\n")
    clips = corpora.read_all(("one", "two"), tmp_path)
    with pytest.raises(corpora.CorpusError, match="corpus one is named twice"):
        corpora.read_all(("one", "two", "one"), tmp_path)
    folds = leave_one_corpus_out(clips)
    assert [(fold.train, fold.valid, fold.test) for fold in folds] == [([3], [2], [0, 1]), ([1], [0], [2, 3])]
