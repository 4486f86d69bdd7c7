from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from serstream.errors import ConfigError
from trainer.corpora import Clip
from trainer.folds import (
    Fold,
    by_speakers,
    check_apart,
    from_file,
    leave_one_corpus_out,
    leave_one_speaker_out,
    with_validation,
)


def clip(corpus: str, speaker: int, emotion: str) -> Clip:
    name = Path(f"{corpus}-{speaker}-{emotion}.wav")
    return Clip(name, corpus, f"{corpus}_{speaker}", "female" if speaker % 2 else "male", emotion, "de")


CLIPS = [clip("a", s, e) for s in range(6) for e in ("sad", "happy")]
CLIPS += [clip("b", s, e) for s in range(7) for e in ("sad", "fear")]


def speakers(part: list[int]) -> set[str]:
    return {CLIPS[i].speaker for i in part}


def check(folds: list[Fold], tested: set[int]) -> None:
    """No speaker is in two parts, and every clip tests exactly once."""
    for fold in folds:
        parts = [speakers(part) for part in (fold.train, fold.valid, fold.test)]
        assert sum(map(len, parts)) == len(set.union(*parts))
    assert sorted(i for fold in folds for i in fold.test) == sorted(tested)


def test_speakers_are_dealt_so_that_each_tests_once() -> None:
    folds = by_speakers(CLIPS, 5)
    check(folds, set(range(len(CLIPS))))
    for fold in folds:
        assert {CLIPS[i].corpus for i in fold.test} == {"a", "b"}


def test_leave_one_speaker_out_tests_one_corpus_and_trains_on_all() -> None:
    folds = leave_one_speaker_out(CLIPS, "a")
    check(folds, {i for i, c in enumerate(CLIPS) if c.corpus == "a"})
    assert all({CLIPS[i].corpus for i in fold.train} == {"a", "b"} for fold in folds)


def test_leave_one_corpus_out_tests_shared_emotions() -> None:
    for fold in leave_one_corpus_out(CLIPS):
        assert {CLIPS[i].emotion for i in fold.test} == {"sad"}
        assert not {CLIPS[i].corpus for i in fold.test} & {CLIPS[i].corpus for i in fold.train}


def test_leave_one_corpus_out_wants_two_that_share_a_label() -> None:
    with pytest.raises(ConfigError, match="the only corpus is a, wanted two or more to leave one out"):
        leave_one_corpus_out([c for c in CLIPS if c.corpus == "a"])
    with pytest.raises(ConfigError, match="corpus a has no label of the others"):
        leave_one_corpus_out([c for c in CLIPS if c.emotion != "sad"])


def test_fold_files_by_speaker_and_by_clip(tmp_path: Path) -> None:
    by_name = tmp_path / "speakers.json"
    by_name.write_text(json.dumps({"folds": [{"test_speakers": [f"a_{s}"]} for s in range(6)]}))
    check(from_file(CLIPS, "a", by_name), {i for i, c in enumerate(CLIPS) if c.corpus == "a"})
    by_clip = tmp_path / "clips.json"
    by_clip.write_text(json.dumps({"folds": [{"test": ["a-0-sad"]}]}))
    (fold,) = from_file(CLIPS, "a", by_clip)
    assert fold.test == [0]
    assert len(fold.train) == len(CLIPS) - 1


def test_where_nobody_validates_whole_speakers_are_taken_from_the_training() -> None:
    """A woman and a man of six of the corpus that is tested, who may be tested on other clips."""
    sad = [i for i, clip in enumerate(CLIPS) if clip.emotion == "sad"]
    fold = with_validation(CLIPS, Fold("fold 1", [i for i in range(len(CLIPS)) if i not in sad], [], sad[:6]))
    assert speakers(fold.valid) == {"a_0", "a_1"}
    assert len(speakers(fold.train)) == 4 + 7 and not speakers(fold.train) & speakers(fold.valid)
    assert with_validation(CLIPS, fold) == fold


def test_what_a_fold_file_lists_and_nobody_has_is_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "folds.json"
    path.write_text(json.dumps({"folds": [{"test": ["a-0-sad", "a-0-fear"]}, {"test": ["b-0-sad"]}]}))
    from_file(CLIPS, "a", path)
    (said,) = caplog.messages
    assert "2 of the 3 they list are not among the clips" in said and said.endswith(": a-0-fear, b-0-sad")
    path.write_text(json.dumps({"folds": [{"test_speakers": ["a_0", "a_9"]}]}))
    from_file(CLIPS, "a", path)
    assert "1 of the 2 they list" in caplog.messages[1]


def test_a_missing_fold_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.json.*--folds"):
        from_file(CLIPS, "a", tmp_path / "none.json")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "Expected `object`, got `array`"),
        ("{}", "missing required field `folds`"),
        ('{"folds": []}', "length >= 1"),
        ('{"folds": [{}]}', "wanted either test_speakers or test"),
        (
            '{"folds": [{"test": ["a-0-sad"], "test_speakers": ["a_0"]}]}',
            "wanted either test_speakers or test",
        ),
        ('{"folds": [{"test_speakers": "a_0"}]}', "Expected `array"),
        ('{"folds": [{"test": [1]}]}', "Expected `str`, got `int`"),
        ('{"folds": [', "truncated"),
    ],
)
def test_what_is_wrong_with_a_fold_file_is_said(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "folds.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=rf"folds\.json: cannot read them: .*{re.escape(said)}.*--folds"):
        from_file(CLIPS, "a", path)


def test_a_fold_file_may_mix_speakers_and_clips(tmp_path: Path) -> None:
    path = tmp_path / "folds.json"
    path.write_text('{"note": "", "folds": [{"test_speakers": ["a_0"]}, {"test": ["a-1-sad"]}]}')
    by_speaker, by_clip = from_file(CLIPS, "a", path)
    assert speakers(by_speaker.test) == {"a_0"} and not by_speaker.valid
    assert speakers(by_clip.test) == {"a_1"}


def test_who_is_trained_on_is_not_tested(tmp_path: Path) -> None:
    """A report would call that voice new, and a copy of a recording is heard by its first."""
    clips = []
    for speaker, sound in (("a", b"1"), ("a", b"2"), ("b", b"3"), ("copy", b"1")):
        path = tmp_path / f"{len(clips)}.wav"
        path.write_bytes(sound)
        clips.append(Clip(path, "tiny", speaker, "male", "sad", "de"))
    check_apart(clips, [0, 1], Fold("fold 1", [0, 1], [], [2]))
    with pytest.raises(ConfigError, match=r"fold 1 tests 1 clips of a speaker .*: \S+1.wav of a beside \S+0"):
        check_apart(clips, [0, 2], Fold("fold 1", [0, 2], [], [1]))
    with pytest.raises(ConfigError, match=r"tests 1 clips of a recording .*: \S+3.wav of copy beside \S+0"):
        check_apart(clips, [0, 1], Fold("fold 1", [0, 1], [], [2, 3]))


def test_few_speakers_make_fewer_folds_and_too_few_are_refused() -> None:
    few = [c for c in CLIPS if c.speaker in {"a_0", "a_1", "a_2"}]
    assert len(by_speakers(few, 5)) == 3
    with pytest.raises(ConfigError, match="1 speakers, wanted at least 3"):
        by_speakers(few[:2], 5)
