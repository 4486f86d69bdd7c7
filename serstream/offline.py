"""Many recordings at once: every core scores one, finished ones are kept, broken ones hold up nobody."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import re
import signal
import threading
import traceback
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from serstream.config import Settings
from serstream.emotion.loading import load_model
from serstream.emotion.model import EmotionModel
from serstream.errors import SerstreamError, SourceError
from serstream.feed.coding import encode
from serstream.feed.messages import StreamEnded
from serstream.replay import CAPTURES, recording_events, replay
from serstream.types import Role

_PARTIAL = re.compile(r"\..+\.jsonl\.[0-9]+")
"""Name of the temporary file of a worker; the number is its process's."""

SUFFIXES = CAPTURES | {".aif", ".aiff", ".au", ".flac", ".mp3", ".oga", ".ogg", ".opus", ".w64", ".wav"}
"""What counts as a recording when a folder is searched; a file that is named may be of any kind."""


@dataclass(frozen=True, slots=True)
class Job:
    """One recording and where its events go."""

    recording: Path
    events: Path


@dataclass(frozen=True, slots=True)
class Done:
    """What became of a job."""

    job: Job
    seconds: float
    """Of sound, over all its streams."""
    error: str = ""
    """Why there are no events; empty when there are."""


def find_jobs(paths: Iterable[Path], output: Path) -> list[Job]:
    """A job for every recording, in folders and below them; its events keep the folder's layout.

    Raises:
        SourceError: a path does not exist, nothing was found, two recordings would share their events, or
            ``output`` is no folder.
    """
    if os.path.exists(output) and not os.path.isdir(output):
        raise SourceError(f"output {output}: a file, wanted a folder for the events; give another path")
    jobs: list[Job] = []
    for path in paths:
        if os.path.isdir(path):
            found = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES)
            jobs += [Job(p, output / p.relative_to(path).with_name(f"{p.name}.jsonl")) for p in found]
        elif os.path.exists(path):
            jobs.append(Job(path, output / f"{path.name}.jsonl"))
        else:
            raise SourceError(f"{path}: no such file or folder; give recordings or folders of recordings")
    taken: dict[Path, Path] = {}
    for job in jobs:
        other = taken.setdefault(job.events, job.recording)
        if other != job.recording:
            raise SourceError(f"{other} and {job.recording} would both write {job.events}; score them apart")
    if not jobs:
        wanted = ", ".join(sorted(SUFFIXES))
        raise SourceError(f"{', '.join(map(str, paths))}: no recording found; looked for {wanted}")
    return jobs


def score_all(
    jobs: Sequence[Job], settings: Settings, base: Path, roles: tuple[Role, ...], processes: int
) -> Iterator[Done]:
    """Score recordings in several processes; yields each as it is finished.

    Events are written to a temporary name and renamed when they are complete. A file that exists is whole, so
    an interrupted run goes on where it stopped if only the jobs without events are passed. SIGTERM interrupts
    like SIGINT; of a run that was killed the workers end, too, and the next one removes what they leave.
    """
    _sweep({job.events.parent for job in jobs})
    pool = ProcessPoolExecutor(
        processes,
        # A fork would copy ONNX Runtime's threads in whatever state they are.
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_load,
        initargs=(settings, base),
    )
    terminated = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with _uninterrupted():  # submitting starts the workers
            running: list[Future[Done]] = [pool.submit(_score, job, settings, base, roles) for job in jobs]
        for future in as_completed(running):
            yield future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        signal.signal(signal.SIGTERM, terminated)


def _sweep(folders: Iterable[Path]) -> None:
    """Remove the temporary files of workers that were killed; those of another run are locked."""
    for folder in folders:
        partials: list[Path] = []
        with suppress(OSError):  # why it cannot be listed is told when it cannot be written, either
            partials = [path for path in folder.iterdir() if _PARTIAL.fullmatch(path.name)]
        for partial in partials:
            with suppress(OSError), partial.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                partial.unlink()


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """SIGINT and SIGTERM come when the block is over; processes that are started in it never get SIGINT.

    A terminal interrupts workers, too: what they have been given, a recording or two each, is finished.
    """
    held: list[int] = []
    handlers = {
        number: signal.signal(number, lambda number, _: held.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # which a child inherits
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if held:
            signal.raise_signal(held[0])


_model: EmotionModel
"""The model of this process; loaded once, before its first job."""


def _load(settings: Settings, base: Path) -> None:
    global _model
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _model = load_model(settings.model, base)


def _end_with_parent() -> None:
    """A run that was killed gives no more jobs, which its workers would await for ever."""
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


def _score(job: Job, settings: Settings, base: Path, roles: tuple[Role, ...]) -> Done:
    partial = job.events.with_name(f".{job.events.name}.{os.getpid()}")
    seconds = 0.0
    try:
        events = recording_events(job.recording, roles, settings, base)
        job.events.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            with suppress(OSError):  # a file system without locks, where nothing is swept, either
                fcntl.flock(file, fcntl.LOCK_EX)
            for message in replay(events, settings, _model):
                file.write(encode(message) + b"\n")
                seconds += message.end if isinstance(message, StreamEnded) else 0.0
        partial.replace(job.events)
    except SerstreamError as error:
        return Done(job, seconds, str(error))
    except OSError as error:
        told = f"events {job.events}: cannot write them: {error.strerror}; choose another folder with -o"
        return Done(job, seconds, told)
    except Exception:  # a defect of ours, with a trace; it must not hold up the other recordings
        told = f"{job.recording}: a defect of serstream, please report it\n{traceback.format_exc().rstrip()}"
        return Done(job, seconds, told)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
    return Done(job, seconds)
