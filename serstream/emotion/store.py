"""The model repository: numbered versions that never change, and one pointer that says which is active.

::

    <root>/active.json                   the pointer
    <root>/<name>/<version>/model.onnx   with labels, feature spec, temperature, ... inside
                            golden.npz   clips and the scores they had when the model was published
                            card.md
                            SHA256SUMS   of the files above, as sha256sum(1) writes and checks them

Whatever is written appears as a whole or not at all: made under another name, synced, renamed.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta

from serstream.config import ModelSettings
from serstream.errors import UNDECODABLE, ModelError
from serstream.shipped import models_dir

MODEL_FILE = "model.onnx"
SUMS_FILE = "SHA256SUMS"
POINTER_FILE = "active.json"
MAX_BYTES = 64 * 2**20
"""No file of a small speech model is larger; what claims to be is refused before it is read."""
UNFINISHED = ".unfinished-"
"""Begins the name of what is being written; nobody reads it, the next writer removes it."""

_NAME = "[a-z0-9][a-z0-9-]{0,63}"


class Reference(NamedTuple):
    """One version of one model; written ``name@version``."""

    name: str
    version: int

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"

    @staticmethod
    def parse(text: str) -> Reference:
        """Raises a ModelError unless the text is ``name@version``."""
        match = re.fullmatch(rf"({_NAME})@([1-9][0-9]{{0,8}})", text)
        if not match:
            raise ModelError(f"model {text!r}: wanted NAME@VERSION, e.g. cnn-lstm@1")
        return Reference(match[1], int(match[2]))


_ReferenceText = Annotated[str, Meta(pattern=rf"^{_NAME}@[1-9][0-9]{{0,8}}\Z")]


class Pointer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What ``active.json`` says."""

    active: _ReferenceText
    previous: _ReferenceText | None = None
    """Where 'serstream models rollback' goes."""
    shadow: _ReferenceText | None = None
    """Scores beside the active one and is only compared with it."""
    decided: dict[str, int] = {}
    """Newest version of each model that was tried or decided about: ``auto_activate`` leaves it alone."""


class ModelStore:
    """A model repository on disk; holds no state of its own.

    Args:
        root: its folder.
    """

    def __init__(self, root: Path):
        self.root = root

    def references(self) -> list[Reference]:
        """Every published version, by name and number. Other files and folders are ignored."""
        return [r for r in self._numbered() if os.path.exists(self._folder(r) / MODEL_FILE)]

    def resolve(self, text: str) -> Reference:
        """``name@version``, or ``name`` for its newest version.

        Raises:
            ModelError: not a reference, or no such model.
        """
        if "@" in text:
            return Reference.parse(text)
        versions = [reference for reference in self.references() if reference.name == text]
        if not versions:
            raise ModelError(f"model {text!r}: not in {self.root}; {self._what_there_is()}")
        return versions[-1]

    def newer(self, than: Reference) -> list[Reference]:
        """Versions of a model that are newer than this one, newest first; some may still be copied."""
        return [r for r in reversed(self._numbered()) if r.name == than.name and r > than]

    def lacks(self, reference: Reference) -> str:
        """What of a version is not there, as it may still be copied; empty: it is complete.

        Complete is one whose ``SHA256SUMS`` and all files in it are there.
        """
        try:
            _read_sums(self._folder(reference))
        except ModelError as error:
            return str(error)
        return ""

    def next_version(self, name: str) -> int:
        """The number that the next version of a model gets."""
        return max((r.version for r in self._numbered() if r.name == name), default=0) + 1

    def file(self, reference: Reference) -> Path:
        """The model.onnx of a version.

        Raises:
            ModelError: there is no such version, or it lies outside the repository.
        """
        path = self._folder(reference) / MODEL_FILE
        if not os.path.isdir(path.parent):
            raise ModelError(f"model {reference}: not in {self.root}; {self._what_there_is()}")
        leads_to = os.path.realpath(path)  # unlike resolve(), of a link to itself, too
        if leads_to != os.path.join(os.path.realpath(self.root), path.relative_to(self.root)):
            raise ModelError(
                f"model {reference}: {path} leads to {leads_to}; a version is no link, copy it here"
            )
        return path

    def pointer(self) -> Pointer:
        """Which version is active.

        Raises:
            ModelError: there is no repository, no version was ever activated, or the file is broken.
        """
        path = self.root / POINTER_FILE
        try:
            return msgspec.json.decode(path.read_bytes(), type=Pointer)
        except FileNotFoundError as error:
            if not os.path.isdir(self.root):
                raise ModelError(
                    f"models {self.root}: no such folder; set model.repository to one with published models"
                ) from error
            raise ModelError(
                f"models {self.root}: no {POINTER_FILE}: no version is active; "
                f"choose one with 'serstream models activate NAME@V'; {self._what_there_is()}"
            ) from error
        except (OSError, ValueError, *UNDECODABLE) as error:
            raise ModelError(
                f"models {path}: cannot read it: {error}; mend it with 'serstream models activate NAME@V'"
            ) from error

    def activate(self, reference: Reference, previous: str = "") -> None:
        """Point at a version.

        Args:
            reference: which.
            previous: ``name@version`` that a rollback shall go back to. Where it is empty or not there, what
                was active becomes the previous one; if that is not there either, the previous one stays.
        """
        with self._writing():
            before = self._pointer_or_none()
            if before is None:
                after = Pointer(active=str(reference))
            elif before.active == str(reference):
                return
            else:
                shadow = None if before.shadow == str(reference) else before.shadow
                there = {str(other) for other in self.references() if other != reference}
                known = (text for text in (previous, before.active, before.previous) if text in there)
                after = msgspec.structs.replace(
                    before, active=str(reference), previous=next(known, None), shadow=shadow
                )
            self._point(after)

    def set_shadow(self, reference: Reference | None) -> None:
        """Say which version is compared with the active one."""
        with self._writing():
            shadow = str(reference) if reference else None
            if self.pointer().shadow != shadow:
                self._point(msgspec.structs.replace(self.pointer(), shadow=shadow))

    def decide(self, decided: Mapping[str, int]) -> None:
        """Write down which versions are no news to ``auto_activate``, see `Pointer`."""
        with self._writing():
            if self.pointer().decided != decided:
                self._point(msgspec.structs.replace(self.pointer(), decided=dict(decided)))

    def publish(self, reference: Reference, files: Mapping[str, bytes]) -> Path:
        """Add a version; it appears complete, under its number, or not at all. It does not become active.

        Args:
            reference: its name and a number that is still free.
            files: content of ``model.onnx``, ``golden.npz`` and ``card.md``.

        Returns:
            The folder.

        Raises:
            ModelError: the version exists, or the folder cannot be written.
        """
        folder = self._folder(reference)
        if os.path.exists(folder):
            raise ModelError(
                f"model {reference}: {folder} exists and a version never changes; "
                f"publish it as version {self.next_version(reference.name)}"
            )
        with self._writing():
            unfinished = self.root / f"{UNFINISHED}{reference}"
            _make_folder(unfinished)
            for name, content in {**files, SUMS_FILE: sums(files)}.items():
                _write_synced(unfinished / name, content)
            _sync(unfinished)
            _make_folder(folder.parent)
            unfinished.rename(folder)
            _sync(folder.parent)
            _sync(self.root)
        return folder

    def _folder(self, reference: Reference) -> Path:
        return self.root / reference.name / str(reference.version)

    def _numbered(self) -> list[Reference]:
        """Every folder that is named as a version is, by name and number."""
        found = []
        for folder in self.root.glob("*/*"):
            with suppress(ModelError):
                found.append(Reference.parse(f"{folder.parent.name}@{folder.name}"))
        return sorted(found)

    def _point(self, pointer: Pointer) -> None:
        unfinished = self.root / f"{UNFINISHED}{POINTER_FILE}"
        _write_synced(unfinished, msgspec.json.encode(pointer) + b"\n")
        unfinished.replace(self.root / POINTER_FILE)
        _sync(self.root)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One writer at a time; leftovers of one that was killed are removed first."""
        try:
            _make_folder(self.root)
            descriptor = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                for leftover in self.root.glob(f"{UNFINISHED}*"):
                    shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
                yield
            finally:
                os.close(descriptor)
        except OSError as error:
            raise ModelError(
                f"models {self.root}: cannot write: {error}; check permissions and free space"
            ) from error

    def _pointer_or_none(self) -> Pointer | None:
        try:
            return self.pointer()
        except ModelError:
            return None  # the first activation, or one that mends a broken pointer

    def _what_there_is(self) -> str:
        return f"there is {', '.join(map(str, self.references())) or 'no model yet'}"


def open_store(settings: ModelSettings, base: Path = Path()) -> ModelStore:
    """The repository of the configuration, or the one that ships with serstream.

    Args:
        settings: ``[model]``.
        base: folder that a relative ``repository`` starts from.
    """
    return ModelStore(base / settings.repository if settings.repository else models_dir())


def sums(files: Mapping[str, bytes]) -> bytes:
    """The ``SHA256SUMS`` of files, by name."""
    return "".join(
        f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in files.items()
    ).encode()


def check_sums(folder: Path) -> None:
    """Compare the files of a version with its ``SHA256SUMS``.

    Raises:
        ModelError: the list or a file is missing, cannot be read, or has another content.
    """
    for name, wanted in _read_sums(folder).items():
        seen = hashlib.sha256(read_file(folder / name)).hexdigest()
        if seen != wanted:
            raise ModelError(
                f"model {folder}: {name} has SHA-256 {seen[:12]}..., {SUMS_FILE} wants {wanted[:12]}...; "
                "it was damaged or changed after publishing: copy it again"
            )


def _read_sums(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a version, by name, as its ``SHA256SUMS`` has it.

    Raises:
        ModelError: the list cannot be read, or a file of it is missing or elsewhere.
    """
    advice = "publish the model with 'serstream-train publish'"
    content = read_file(folder / SUMS_FILE, advice)
    try:
        lines = content.decode().splitlines()
        entries = {name: wanted for wanted, name in (line.split("  ", 1) for line in lines)}
    except ValueError as error:
        raise ModelError(f"model {folder}: cannot read {SUMS_FILE}: {error}; {advice}") from error
    if MODEL_FILE not in entries:
        raise ModelError(f"model {folder}: {SUMS_FILE} does not list {MODEL_FILE}; publish the model again")
    for name in entries:
        if "/" in name:
            raise ModelError(f"model {folder}: {SUMS_FILE} lists {name!r}, wanted names of files beside it")
        if not os.path.lexists(folder / name):
            raise ModelError(
                f"model {folder}: {SUMS_FILE} lists {name}, which is not there: copy the version again"
            )
    return entries


def read_file(path: Path, advice: str = "give the path of a model.onnx") -> bytes:
    """Content of a file of a version.

    Args:
        path: of the file.
        advice: to whom it is not there.

    Raises:
        ModelError: it is no regular file, too large, or may not be read.
    """
    try:
        if not path.is_file():
            seen = "a folder" if path.is_dir() else "no regular file" if path.exists() else "no such file"
            raise ModelError(f"model {path}: {seen}; {advice}")
        size = path.stat().st_size
        if not 0 < size <= MAX_BYTES:
            raise ModelError(f"model {path}: has {size} bytes, wanted 1 to {MAX_BYTES}")
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"model {path}: cannot read it: {error.strerror}") from error


def _make_folder(folder: Path) -> None:
    """Unless it is there. Whoever writes, the service reads: what is in a repository is no secret."""
    if not folder.exists():
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)


def _write_synced(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        os.fchmod(file.fileno(), 0o644)  # as _make_folder
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    """Make what was created or renamed in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
