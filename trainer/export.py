"""From trained weights to a draft: one ONNX file that carries its recipe, and what it takes to judge it.

A draft is a folder as the daemon loads it: ``model.onnx``, ``golden.npz``, ``card.md``, ``SHA256SUMS``. The
scores of its golden clips are torch's: whoever loads the model compares ONNX Runtime with torch again.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import soundfile
import soxr
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from serstream.emotion.features import mfcc
from serstream.emotion.golden import FILE_NAME, MAX_CLIPS, GoldenClips
from serstream.emotion.inputs import Inputs, alone
from serstream.emotion.metadata import ModelMetadata
from serstream.emotion.store import MODEL_FILE, SUMS_FILE, read_file, sums
from serstream.errors import ConfigError, ModelError
from serstream.shipped import SAMPLE_CALL
from serstream.types import INT16_SCALE, SAMPLE_RATE
from trainer import corpora
from trainer.calibration import calibrate
from trainer.calls import as_heard
from trainer.card import augmented_with, learned_of, training_data, write_card
from trainer.corpora.clip import audio_files
from trainer.dataset import CLEAN_CONDITION
from trainer.evaluation import LOG_TEMPERATURE
from trainer.experiment import HEARD_S, Workplace
from trainer.folds import PROTOCOLS
from trainer.metrics import figures
from trainer.networks import Ensemble
from trainer.predictions import Predictions
from trainer.recipe import Recipe
from trainer.trained import Trained
from trainer.whole import whole

OPSET = 17
CARD_FILE = "card.md"
N_GOLDEN = 8
PROTOCOL = (
    "{folds}-fold cross-validation by speakers; the weights here were trained by the same recipe on all "
    "speakers. No fold trained on its test part, was calibrated with it or chose an epoch by it. The design "
    "of serstream's own recipes (functionals, baseline, weights of opinions, absent labels) was settled by "
    "such figures of emo-db, banglaser and ravdess, which flatter a little there, as figures do wherever "
    "recipes are chosen by them."
)
TOLERANCE = 1e-4
"""Largest difference of a logit between torch and ONNX Runtime."""


def export(network: nn.Module, metadata: ModelMetadata | None, path: Path, examples: Inputs) -> float:
    """Write ``model.onnx``: one file, any batch size, weights and metadata inside.

    Args:
        network: trained.
        metadata: written into the file; None for a network whose features the daemon does not compute.
        path: replaced as a whole, or not at all.
        examples: inputs (n, ...) on which both runtimes must agree.

    Returns:
        The largest difference of a logit.

    Raises:
        ModelError: torch and ONNX Runtime disagree.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    network.eval()
    with whole(path) as unfinished:
        with warnings.catch_warnings():
            # The graph-tracing exporter writes one self-contained file and needs no further package; torch
            # warns that it will go one day, and that an LSTM may freeze the batch size: checked below.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                network,
                (_tensors(examples, slice(2)),),
                unfinished,
                input_names=list(examples),
                output_names=["logits"],
                dynamic_axes={name: {0: "batch"} for name in (*examples, "logits")},
                opset_version=OPSET,
                dynamo=False,
            )
        model = onnx.load(unfinished)
        if metadata is not None:
            onnx.helper.set_model_props(model, metadata.to_props())
        onnx.checker.check_model(model)
        unfinished.write_bytes(model.SerializeToString())
        difference = _difference(network, unfinished, examples)
        if difference > TOLERANCE:
            raise ModelError(
                f"{path}: torch and ONNX Runtime differ by {difference:.2g}, allowed is {TOLERANCE:.2g}"
            )
    return difference


def write_draft(
    network: Ensemble, metadata: ModelMetadata, folder: Path, examples: Inputs, card: str
) -> float:
    """Write a draft.

    Args:
        network: trained.
        metadata: written into the model file.
        folder: ``NAME/VERSION``; made if it is not there.
        examples: see `export`.
        card: Markdown.

    Returns:
        The largest difference of a logit between the runtimes.

    Raises:
        ModelError: torch and ONNX Runtime disagree.
    """
    difference = export(network, metadata, folder / MODEL_FILE, examples)
    files = {
        MODEL_FILE: read_file(folder / MODEL_FILE),
        FILE_NAME: golden_clips(network, metadata).to_bytes(),
        CARD_FILE: card.encode(),
    }
    for name in (FILE_NAME, CARD_FILE):
        (folder / name).write_bytes(files[name])
    (folder / SUMS_FILE).write_bytes(sums(files))
    return difference


def write_model(
    recipe: Recipe,
    trained: Trained,
    measured: Mapping[str, Predictions],
    workplace: Workplace,
    folder: Path,
    version: int,
) -> float:
    """Write the draft of a trained and measured recipe.

    Args:
        recipe: that was trained.
        trained: its weights.
        measured: what it scored under each protocol, by name; temperature and threshold come from
            ``speakers``.
        workplace: where the corpora are; both runtimes are compared on all of their clean windows, as
            the first of a stream and after a minute.
        folder: of the draft.
        version: its number.

    Returns:
        The largest difference of a logit between the runtimes.

    Raises:
        ConfigError: it was trained or measured on other clips than are there now, or no temperature fits.
    """
    clean = workplace.windows(recipe, [CLEAN_CONDITION])
    made = {"train": trained.data} | {
        f"evaluate --protocol {protocol}": predictions.data for protocol, predictions in measured.items()
    }
    now = clean.digest + workplace.learned_before(recipe)
    if stale := [command for command, data in made.items() if data not in ("", now)]:
        raise ConfigError(
            f"recipe {recipe.name}: the recordings below {workplace.data} or their labels have changed since "
            f"'serstream-train {stale[0]}'; run it again"
        )
    metrics = {
        protocol: figures(recipe, PROTOCOLS[protocol], predictions, calibrate(predictions))
        for protocol, predictions in measured.items()
    }
    held_out = metrics["speakers"]
    if abs(np.log(held_out["temperature"])) > 0.99 * LOG_TEMPERATURE:
        raise ConfigError(
            f"recipe {recipe.name}: its temperature {held_out['temperature']:.3g} is the end of what is "
            f"sought, wanted one between {np.exp(-LOG_TEMPERATURE):.2g} and {np.exp(LOG_TEMPERATURE):.2g}; "
            "the held-out speakers are too few, or their labels wrong"
        )
    metadata = ModelMetadata(
        name=recipe.name,
        version=version,
        labels=recipe.labels,
        feature_spec=trained.spec,
        temperature=held_out["temperature"],
        licence=recipe.licence,
        abstain_below=held_out["abstain_below"],
        training_data=training_data(recipe, workplace.data),
        protocol=PROTOCOL.format(folds=len({part.fold for part in measured["speakers"].parts})),
        metrics={
            f"{protocol}, {row['condition']}, after {row['heard_s']:.0f} s: {name}": row[name]
            for protocol, found in metrics.items()
            for row in found["modes"]
            for name in row
            if name in ("ua", "ua_unmasked") or name.startswith("ua ")
        },
        label_map=recipe.label_map or {},
        recipe_sha256=recipe.sha256,
    )
    learned = learned_of(recipe, corpora.read_all(recipe.heard, workplace.data), clean.clips)
    n_parameters = sum(weights.numel() for weights in trained.network.parameters())
    noises = [path.stem for path in audio_files(workplace.noises)]
    augmented = augmented_with(recipe, noises=noises, rooms=any(audio_files(workplace.rooms)))
    found = [(figures, measured[protocol]) for protocol, figures in metrics.items()]
    card = write_card(metadata, recipe, learned, augmented, n_parameters, found)
    amounts = (HEARD_S[0], HEARD_S[-1]) if trained.spec.baseline else HEARD_S[:1]
    heard = [as_heard(clean, trained.spec, seconds) for seconds in amounts]
    examples = {name: np.concatenate([part[name] for part in heard]) for name in heard[0]}
    return write_draft(trained.network, metadata, folder, examples, card)


def golden_clips(network: Ensemble, metadata: ModelMetadata) -> GoldenClips:
    """What torch says about `golden_windows`, each as the first of its stream."""
    samples = golden_windows(metadata.feature_spec.n_samples)
    spec = metadata.feature_spec
    inputs = alone(mfcc(samples.astype(np.float32) / np.float32(INT16_SCALE), spec), spec)
    with torch.inference_mode():
        logits = network.eval()(**_tensors(inputs)) / metadata.temperature
    return GoldenClips(samples, torch.softmax(logits, dim=1).numpy())


def golden_windows(n_samples: int) -> NDArray[np.int16]:
    """Windows of the sample call, whose licence lets them travel with every model; (N_GOLDEN, n_samples)."""
    samples, rate = soundfile.read(SAMPLE_CALL, dtype="float32", always_2d=True)
    speech = np.concatenate([soxr.resample(channel, rate, SAMPLE_RATE) for channel in samples.T])
    starts = np.linspace(0, len(speech) - n_samples, min(4 * N_GOLDEN, MAX_CLIPS)).astype(int)
    windows = np.stack([speech[start : start + n_samples] for start in starts])
    loudest = np.sort(np.argsort(-np.square(windows).mean(axis=1), kind="stable")[:N_GOLDEN])
    # As the daemon's segmenter makes 16 bits of sound.
    scaled = np.clip(np.rint(windows[loudest] * INT16_SCALE), -INT16_SCALE, INT16_SCALE - 1)
    golden: NDArray[np.int16] = scaled.astype(np.int16)
    return golden


def _tensors(inputs: Inputs, rows: slice = slice(None)) -> dict[str, Tensor]:
    return {name: torch.from_numpy(values[rows]) for name, values in inputs.items()}


def _difference(network: nn.Module, path: Path, examples: Inputs) -> float:
    """Over batches of several sizes, so that a frozen batch size is noticed."""
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    taken = [node.name for node in session.get_inputs()]
    n_examples = min(map(len, examples.values()))
    largest = 0.0
    for begin, end in ((0, 1), (1, 8), (8, n_examples)):
        if begin >= n_examples:
            continue
        batch = slice(begin, end)
        with torch.inference_mode():
            expected = network(**_tensors(examples, batch)).numpy()
        actual = session.run(["logits"], {name: examples[name][batch] for name in taken})[0]
        largest = max(largest, float(np.abs(actual - expected).max()))
    return largest
