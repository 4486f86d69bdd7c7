import os
import signal
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import pytest
from published_model import publish, repository

from serstream.config import ModelSettings
from serstream.emotion import store
from serstream.emotion.loading import load_model
from serstream.emotion.store import ModelStore, Reference, check_sums
from serstream.errors import ModelError

ONE, TWO = Reference("tiny", 1), Reference("tiny", 2)
FILES = {"model.onnx": b"a model", "golden.npz": b"clips", "card.md": b"# card\n"}


@pytest.fixture
def models(tmp_path: Path) -> ModelStore:
    models = ModelStore(tmp_path / "models")
    models.publish(ONE, FILES)
    return models


def test_a_version_is_found_with_its_sums(models: ModelStore) -> None:
    assert models.references() == [ONE]
    assert models.resolve("tiny") == models.resolve("tiny@1") == ONE
    assert models.next_version("tiny") == 2
    assert models.next_version("new") == 1
    check_sums(models.file(ONE).parent)


def test_versions_are_numbers_and_sorted_as_such(models: ModelStore) -> None:
    for version in (2, 10, 9):
        models.publish(Reference("tiny", version), FILES)
    for folder in ("tiny/latest", "tiny/01", "tiny/-3", "tiny/0", "Tiny/1", ".git/1"):
        (models.root / folder).mkdir(parents=True)
        (models.root / folder / "model.onnx").write_bytes(b"")
    assert [reference.version for reference in models.references()] == [1, 2, 9, 10]
    assert models.resolve("tiny").version == 10


@pytest.mark.parametrize(
    "text", ["tiny@", "tiny@latest", "tiny@0", "tiny@-1", "../x@1", "tiny@1/..", "@1", "A@1"]
)
def test_what_is_no_reference_is_refused(models: ModelStore, text: str) -> None:
    with pytest.raises(ModelError, match="wanted NAME@VERSION"):
        models.resolve(text)


def test_a_missing_version_is_refused_with_what_there_is(models: ModelStore) -> None:
    with pytest.raises(ModelError, match=r"model tiny@9: not in .*; there is tiny@1"):
        models.file(Reference("tiny", 9))
    with pytest.raises(ModelError, match=r"model 'big': not in .*; there is tiny@1"):
        models.resolve("big")


@pytest.mark.parametrize("linked", ["tiny/2", "evil"])
def test_a_link_out_of_the_repository_is_refused(models: ModelStore, tmp_path: Path, linked: str) -> None:
    outside = ModelStore(tmp_path / "elsewhere")
    outside.publish(TWO, FILES)
    outside.publish(Reference("evil", 1), FILES)
    (models.root / linked).symlink_to(outside.root / linked)
    reference = TWO if linked == "tiny/2" else Reference("evil", 1)
    with pytest.raises(ModelError, match="a version is no link"):
        models.file(reference)


def test_a_model_file_that_is_a_link_to_itself_is_refused(models: ModelStore) -> None:
    folder = models.root / "tiny" / "2"
    folder.mkdir()
    (folder / "model.onnx").symlink_to("model.onnx")
    with pytest.raises(ModelError, match="SHA256SUMS: no such file"):
        check_sums(models.file(TWO).parent)


def test_a_version_never_changes(models: ModelStore) -> None:
    with pytest.raises(ModelError, match="a version never changes; publish it as version 2"):
        models.publish(ONE, FILES | {"model.onnx": b"another"})
    assert models.file(ONE).read_bytes() == b"a model"


def test_a_file_that_the_sums_list_must_be_there(models: ModelStore) -> None:
    folder = models.file(ONE).parent
    (folder / "golden.npz").unlink()
    with pytest.raises(ModelError, match=r"lists golden\.npz, which is not there: copy the version again"):
        check_sums(folder)


def test_activating_remembers_what_was_active(models: ModelStore) -> None:
    models.publish(TWO, FILES)
    models.activate(ONE)
    assert models.pointer().previous is None
    for _ in range(2):
        models.activate(TWO)
        assert models.pointer().previous == "tiny@1"
    models.set_shadow(ONE)
    models.activate(ONE)
    assert models.pointer() == store.Pointer(active="tiny@1", previous="tiny@2")


def test_a_version_that_is_not_there_never_becomes_the_previous_one(models: ModelStore) -> None:
    for version in (2, 3):
        models.publish(Reference("tiny", version), FILES)
    models.activate(ONE)
    models.activate(TWO)
    pointer = models.root / "active.json"
    pointer.write_text('{"active": "tiny@77", "previous": "tiny@1"}')
    models.activate(TWO)
    assert models.pointer().previous == "tiny@1"
    pointer.write_text('{"active": "tiny@77"}')
    models.activate(ONE, previous="tiny@3")
    assert models.pointer().previous == "tiny@3"
    pointer.write_text('{"active": "tiny@77"}')
    models.activate(ONE)
    assert models.pointer().previous is None


def test_what_is_active_already_is_not_written_again(models: ModelStore) -> None:
    """The daemon follows a pointer that another wrote where it may not write itself."""
    models.activate(ONE)
    written = (models.root / store.POINTER_FILE).stat().st_ino
    models.activate(ONE)
    assert (models.root / store.POINTER_FILE).stat().st_ino == written


def test_a_repository_without_a_pointer_says_what_to_do(models: ModelStore) -> None:
    with pytest.raises(
        ModelError, match="choose one with 'serstream models activate NAME@V'; there is tiny@1"
    ):
        models.pointer()


@pytest.mark.parametrize(
    "content", ["", "{", '{"active": 1}', '{"active": "../x"}', '{"active": "a@1", "x": 1}']
)
def test_a_broken_pointer_is_refused_and_can_be_mended(models: ModelStore, content: str) -> None:
    (models.root / "active.json").write_text(content)
    with pytest.raises(ModelError, match="mend it with 'serstream models activate NAME@V'"):
        models.pointer()
    models.activate(ONE)
    assert models.pointer().active == "tiny@1"


def test_a_repository_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match=r"cannot write: .*check permissions and free space"):
        ModelStore(tmp_path / "file").publish(ONE, FILES)


def test_the_service_may_read_what_is_written_whatever_the_umask(tmp_path: Path) -> None:
    models = ModelStore(tmp_path / "models")
    mask = os.umask(0o077)
    try:
        models.publish(ONE, FILES)
        models.activate(ONE)
    finally:
        os.umask(mask)
    for path in (models.root, *models.root.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o755 if path.is_dir() else 0o644), path


def test_a_broken_active_version_starts_the_previous_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    models = repository(tmp_path / "models")
    models.activate(TWO)
    models.file(TWO).write_bytes(b"damaged")
    model = load_model(ModelSettings(repository="models", device="cpu"), tmp_path)
    assert model.reference == "tiny@1"
    assert "it was damaged or changed after publishing" in caplog.text
    assert "going on with tiny@1" in caplog.text


def killed_at(step: int, work: Callable[[], object]) -> bool:
    """Do the work in a child that is killed before the given line of the store's code; whether it was."""
    child = os.fork()
    if child == 0:
        lines = 0

        def trace(frame: FrameType, event: str, _argument: object) -> object:
            nonlocal lines
            if frame.f_code.co_filename != store.__file__:
                return None
            if event == "line":
                lines += 1
                if lines == step:
                    os.kill(os.getpid(), signal.SIGKILL)
            return trace

        sys.settrace(trace)
        try:
            work()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def test_killed_anywhere_the_repository_starts(tmp_path: Path) -> None:
    """Before every single line that publishing and activating execute."""
    made = publish(tmp_path / "source", 2, seed=2)
    files = {name: (made / name).read_bytes() for name in FILES}
    models = repository(tmp_path / "models", versions=1)

    def publish_and_activate() -> None:
        models.publish(TWO, files)
        models.activate(TWO)

    step = 0
    seen = set()
    while True:
        step += 1
        if not killed_at(step, publish_and_activate):
            break
        # Whatever is there is whole ...
        for reference in models.references():
            check_sums(models.file(reference).parent)
        active = models.pointer().active
        assert Reference.parse(active) in models.references()
        if (active, len(models.references())) not in seen:
            seen.add((active, len(models.references())))
            assert load_model(ModelSettings(repository="models", device="cpu"), tmp_path).reference == active
        # ... and the next one who writes is not in the way of what the killed one left behind.
        if TWO in models.references():
            for file in models.file(TWO).parent.iterdir():
                file.unlink()
            models.file(ONE).parent.with_name("2").rmdir()
        models.activate(ONE)
        assert not list(models.root.glob(".unfinished*"))
    assert step > 40
    assert seen == {("tiny@1", 1), ("tiny@1", 2), ("tiny@2", 2)}
