from __future__ import annotations

import io
import logging
import re
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
import soundfile
from rich.progress import Progress

pytest.importorskip("torch", reason="needs the trainer extra")

from serstream.emotion.features import FeatureSpec
from trainer import corpora
from trainer.augment import SPEECH_DBFS, Augmentation, Sounds, level_dbfs
from trainer.dataset import Preparation, WindowSet, gather
from trainer.windows import load

SPEC = FeatureSpec(n_mels=32, n_mfcc=32, hop_length=320)
UNTOUCHED = Augmentation(variants=1, speed=0.0, gain_db=0.0, noise=0.0, room=0.0, telephone=0.0, low_pass=0.0)
APPENDING = Augmentation(
    variants=1, speed=0.0, gain_db=0.0, noise=0.0, room=0.0, telephone=0.0, low_pass=0.0, neutral=1.0
)

pytestmark = pytest.mark.trainer


def test_a_sample_that_is_not_a_number_is_named(tmp_path: Path) -> None:
    """It would be in every window of its speaker, and in every weight."""
    sound = np.zeros((100, 2), np.float32)
    sound[7, 1] = np.nan
    soundfile.write(tmp_path / "a.wav", sound, 16_000, subtype="FLOAT")
    with pytest.raises(
        corpora.CorpusError, match=r"a\.wav: sample 7 is \[0\.0, nan\], wanted finite numbers"
    ):
        load(tmp_path / "a.wav")


def test_a_recording_whose_end_was_cut_off_is_refused(tmp_path: Path) -> None:
    """It would be learned from as if it were whole."""
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(16_000, np.float32), 16_000)
    path.write_bytes(path.read_bytes()[:-16_000])
    with pytest.raises(corpora.CorpusError, match=r"a\.wav: its last 0\.50 s are missing; copy it again"):
        load(path)
    path.write_bytes(path.read_bytes()[:44])
    load.cache_clear()
    with pytest.raises(corpora.CorpusError, match=r"a\.wav: holds no samples"):
        load(path)


def windows(augmentation: Augmentation, data: Path, cache: Path) -> WindowSet:
    sounds = Sounds(noises=[], test_noises=[], rooms=[])
    preparation = Preparation(SPEC, augmentation, sounds, cache)
    clips = [clip for clip in corpora.read("tiny", data) if clip.speaker == "tiny/s0"]
    return gather(preparation, clips, ["clean", "train-0"])


def test_a_seed_draws_the_lines_and_leaves_clean_speech(tiny_data: Path, tmp_path: Path) -> None:
    sounds = Sounds(noises=[], test_noises=[], rooms=[])
    augmentation = msgspec.structs.replace(UNTOUCHED, gain_db=20.0)
    clips = [clip for clip in corpora.read("tiny", tiny_data) if clip.speaker == "tiny/s0"]
    one, other = (
        gather(Preparation(SPEC, augmentation, sounds, tmp_path, seed), clips, ["clean", "train-0"])
        for seed in (0, 1)
    )
    np.testing.assert_array_equal(one.of_line(0).levels, other.of_line(0).levels)
    assert abs(np.median(one.of_line(1).levels) - np.median(other.of_line(1).levels)) > 0.1
    assert [len(list(tmp_path.glob(f"tiny-{name}-*.npz"))) for name in ("clean", "train-0")] == [1, 2]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_the_clips_done_and_a_log_the_parts(
    tiny_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Within a part too; nothing is shown of what is in the cache."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(Progress, "advance", lambda bar, task: bar.update(task, advance=1, refresh=True))
    first, second = Terminal(), Terminal()
    for terminal in (first, second):
        monkeypatch.setattr("sys.stderr", terminal)
        windows(UNTOUCHED, tiny_data, tmp_path)
    assert [f"{done}/18" in first.getvalue() for done in (1, 5, 9, 14, 18)] == [True] * 5
    assert "features of tiny, train-0" in re.sub(r"\x1b\[[\d;?]*\w", "", first.getvalue())
    assert second.getvalue() == "" and not caplog.messages
    monkeypatch.setattr("sys.stderr", io.StringIO())
    windows(UNTOUCHED, tiny_data, tmp_path)
    assert [said.split(":")[0] for said in caplog.messages] == ["features 1 of 2", "features 2 of 2"]


def seconds(windows: WindowSet, emotion: str, line: int) -> float:
    own = windows.of_line(line)
    chosen = [own.clips[i].emotion == emotion for i in own.clip]
    return float(own.seconds[chosen].sum())


def test_only_training_clips_of_other_emotions_are_joined_to_neutral_speech(
    tiny_data: Path, tmp_path: Path
) -> None:
    plain = windows(UNTOUCHED, tiny_data, tmp_path)
    joined = windows(APPENDING, tiny_data, tmp_path)
    half_a_window = SPEC.window_s / 2
    assert seconds(joined, "angry", 1) - seconds(plain, "angry", 1) == pytest.approx(
        3 * half_a_window, abs=0.3
    )
    assert seconds(joined, "neutral", 1) == seconds(plain, "neutral", 1)
    assert seconds(joined, "angry", 0) == seconds(plain, "angry", 0)


def test_noise_between_two_words_is_taught_as_no_emotion(
    tmp_path: Path, voice_of: Callable[[str, int], np.ndarray]
) -> None:
    """The tests hear what the detector takes for speech there, as the daemon does."""
    folder = tmp_path / "own"
    folder.mkdir()
    word, pause = voice_of("angry", 1), np.zeros(8 * 16_000, np.float32)
    soundfile.write(folder / "a.wav", np.concatenate([word, pause, word]), 16_000)
    (folder / "manifest.csv").write_text("file,speaker,sex,emotion,language\na.wav,s,female,angry,de\n")
    babble = np.tile(voice_of("neutral", 2), 8)
    babble *= np.float32(10 ** ((SPEECH_DBFS - level_dbfs(babble)) / 20))
    sounds = Sounds(noises=[babble], test_noises=[babble], rooms=[])
    noisy = msgspec.structs.replace(UNTOUCHED, noise=1.0, noise_db=(10.0, 10.0))
    heard = gather(
        Preparation(SPEC, noisy, sounds, tmp_path / "cache"),
        corpora.read("own", tmp_path),
        ["clean", "train-0", "noise10"],
    )
    clean, taught, tested = (float(heard.of_line(line).seconds.sum()) for line in range(3))
    assert tested > 11
    assert taught == pytest.approx(clean, abs=1.1)
