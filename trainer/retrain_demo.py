"""``make retrain-demo``: from recordings to a new model in a running daemon, in one go.

It shows the way, not a good model: it learns from the five clips that the tests ship with, one speaker and
one emotion each, and is judged on them again because there are no others. The call does not stop for it.
"""

from __future__ import annotations

import logging
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path

import soundfile

from serstream.emotion.metadata import ModelMetadata
from serstream.emotion.store import ModelStore
from serstream.errors import SerstreamError
from serstream.feed.messages import CallEnded, ModelChanged, ModelRefused, WindowEmotion
from serstream.rehearsal import DaemonProcess, Leg, free_port_pair
from serstream.rtp.sender import send_in_real_time
from serstream.service.control import Activate, ask
from serstream.shipped import SAMPLE_CALL, models_dir
from trainer import corpora
from trainer.augment import Augmentation
from trainer.calls import as_heard
from trainer.experiment import Workplace
from trainer.export import write_draft
from trainer.history import Epoch
from trainer.publish import publish
from trainer.recipe import Recipe, Training
from trainer.training import train

DATA = Path(__file__).parents[1] / "tests" / "fixtures"
CORPUS = "emo-db"
RECIPE = Recipe(
    name="demo",
    network="cnn_lstm",
    corpora=(CORPUS,),
    labels=("angry", "fear", "happy", "neutral", "sad"),
    augmentation=Augmentation(variants=3, noise=0.0, room=0.0),
    training=Training(epochs=60, batch=16, ema=0.9),
)
CARD = "# demo@1\n\nLearned five clips by heart to show how a model is published. Do not use it.\n"
FLOOR = 0.5
CALL_S = 20
ACTIVATE_AFTER_S = 8.0
END_TIMEOUT_S = 30.0


def run_retrain_demo() -> int:
    """Train, publish, activate.

    Returns:
        0 when a call heard both models and lost no window, else 1.

    Raises:
        SerstreamError: a step failed; says which.
    """
    with tempfile.TemporaryDirectory(prefix="serstream-") as folder:
        draft = Path(folder, "demo", "1")
        _train(draft, Path(folder))
        store = ModelStore(Path(folder, "models"))
        shutil.copytree(models_dir(), store.root)
        clips = [clip for clip in corpora.read_all((CORPUS,), DATA) if clip.emotion in RECIPE.labels]
        published, judgement, _ = publish(draft, clips, store, FLOOR)
        print(
            f"published {published.relative_to(store.root)}: UAR {judgement.uar:.0%} on the "
            f"{judgement.clips} clips it was trained on, which says nothing about others"
        )
        return _change_models_in_a_call(store)


def _train(draft: Path, folder: Path) -> None:
    """Make the draft of a model; caches go below the folder."""
    windows = Workplace(DATA, folder, folder / "runs").windows(RECIPE)
    print(f"training on {len(windows.features)} windows of {len(windows.clips)} clips")

    def tell(epoch: Epoch) -> None:
        if epoch.epoch % 20 == 0:
            print(f"epoch {epoch.epoch}: loss {epoch.loss:.2f}")

    trained = train(RECIPE, windows, None, folder / "checkpoint.pt", tell)
    metadata = ModelMetadata(
        name=RECIPE.name,
        version=1,
        labels=RECIPE.labels,
        feature_spec=trained.spec,
        temperature=1.0,
        licence=RECIPE.licence,
        training_data=("five clips of EMO-DB, CC0-1.0",),
        protocol="none: learned by heart, nothing was held out",
        recipe_sha256=RECIPE.sha256,
    )
    difference = write_draft(
        trained.network, metadata, draft, as_heard(windows, trained.spec, seconds=0), CARD
    )
    print(f"exported: torch and ONNX Runtime differ by at most {difference:.1g}")


def _change_models_in_a_call(store: ModelStore) -> int:
    samples, rate = soundfile.read(SAMPLE_CALL, dtype="int16", always_2d=True)
    leg = Leg(samples[: CALL_S * rate, 0], free_port_pair(), 1, "customer")
    source = f'[[rtp]]\nport = {leg.outgoing.port}\nrole = "customer"'
    models = set()
    with DaemonProcess(f'{source}\n[model]\nrepository = "{store.root}"') as daemon:
        sender = threading.Thread(target=send_in_real_time, args=([leg.outgoing],), daemon=True)
        sender.start()
        began, asked, ended = time.monotonic(), False, False
        while not ended:
            now = time.monotonic()
            if not asked and now - began > ACTIVATE_AFTER_S:
                ask(daemon.control, Activate(RECIPE.name))
                asked = True
            if now - began > CALL_S + END_TIMEOUT_S:
                raise SerstreamError(f"the call did not end; the daemon's log:\n{daemon.log()}")
            for event, arrived in daemon.take(0.1):
                match event:
                    case ModelChanged():
                        print(
                            f"-- {event.model} scores, {len(event.labels)} emotions, on {event.providers[0]}"
                        )
                    case ModelRefused():
                        print(f"-- {event.candidate} refused: {event.reason}")
                    case WindowEmotion():
                        leg.take(event, arrived)
                        models.add(event.model)
                        print(
                            f"{event.end:5.1f} s  {event.emotion:<8} {event.confidence:4.0%}  "
                            f"{event.model}, of {len(event.probabilities)}"
                        )
                    case CallEnded():
                        ended = True
    print(f"{len(leg.received)} windows by {', '.join(sorted(models))}; lost: {leg.lost}")
    return 0 if len(models) == 2 and not leg.lost else 1


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    sys.exit(run_retrain_demo())
