"""A repository with tiny models in it, as 'serstream-train publish' would leave it."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray
from tiny_model import LABELS, SPEC, write_model

from serstream.emotion.golden import FILE_NAME, GoldenClips
from serstream.emotion.model import EmotionModel
from serstream.emotion.store import MODEL_FILE, SUMS_FILE, ModelStore, Reference
from serstream.types import INT16_SCALE

CLIPS = sorted((Path(__file__).parent / "fixtures" / "emo-db").glob("*.flac"))


def publish(
    root: Path,
    version: int = 1,
    name: str = "tiny",
    labels: tuple[str, ...] = LABELS,
    seed: int = 7,
    scale: float = 0.2,
) -> Path:
    """Publish a tiny model; its folder."""
    root.mkdir(parents=True, exist_ok=True)
    draft = write_model(
        root / ".draft.onnx", name=name, version=version, labels=labels, seed=seed, scale=scale
    )
    windows = clips()
    scores = EmotionModel(draft).score_samples(windows.astype(np.float32) / np.float32(INT16_SCALE))
    golden = GoldenClips(windows, scores)
    content = draft.read_bytes()
    draft.unlink()
    files = {MODEL_FILE: content, FILE_NAME: golden.to_bytes(), "card.md": b"# tiny\n"}
    return ModelStore(root).publish(Reference(name, version), files)


def repository(root: Path, versions: int = 2) -> ModelStore:
    """Versions of ``tiny`` that differ in their weights, the first of them active."""
    for version in range(1, versions + 1):
        publish(root, version, seed=version)
    store = ModelStore(root)
    store.activate(Reference("tiny", 1))
    return store


def clips() -> NDArray[np.int16]:
    """Two windows of real speech."""
    return np.stack([np.resize(soundfile.read(path, dtype="int16")[0], SPEC.n_samples) for path in CLIPS[:2]])


def reseal(folder: Path) -> None:
    """Make the sums fit whatever the files hold now."""
    names = [path.name for path in sorted(folder.iterdir()) if path.name != SUMS_FILE]
    (folder / SUMS_FILE).write_text(
        "".join(f"{hashlib.sha256((folder / n).read_bytes()).hexdigest()}  {n}\n" for n in names)
    )


def models_command(*arguments: str, config: Path) -> tuple[int, str]:
    """Exit code and output of `serstream models`."""
    run = subprocess.run(
        [sys.executable, "-m", "serstream", "models", *arguments, "-c", str(config)],
        capture_output=True,
        text=True,
    )
    return run.returncode, run.stdout + run.stderr
