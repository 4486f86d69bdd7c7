"""Trained weights: what they say, and how they are kept on disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from serstream.emotion.features import FeatureSpec, FloatArray
from serstream.errors import ConfigError
from trainer.calls import as_heard
from trainer.dataset import WindowSet
from trainer.history import Epoch
from trainer.networks import Ensemble, build
from trainer.recipe import Recipe
from trainer.whole import BROKEN_WEIGHTS, write_weights


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """A network and the features it learned from."""

    network: Ensemble
    spec: FeatureSpec
    history: list[Epoch]
    data: str = ""
    """`WindowSet.digest` of what it learned from; empty: not known."""


def logits_of(trained: Trained, windows: WindowSet, heard_s: float = 0.0) -> FloatArray:
    """Logits of every window after so much other speech of its speaker, shape (n_windows, n_labels)."""
    trained.network.eval()
    device = next(trained.network.parameters()).device
    inputs = as_heard(windows, trained.spec, heard_s)
    with torch.inference_mode():
        batches = [
            trained.network(
                **{name: torch.from_numpy(part[i : i + 256]).to(device) for name, part in inputs.items()}
            )
            for i in range(0, len(windows.clip), 256)
        ]
    joined: FloatArray = torch.cat(batches).float().cpu().numpy()
    return joined


def save(recipe: Recipe, trained: Trained, path: Path) -> None:
    """Keep trained weights with their feature spec and the recipe they come from."""
    weights = {name: values.cpu() for name, values in trained.network.state_dict().items()}
    spec, data = trained.spec.to_json(), trained.data
    write_weights(path, {"network": weights, "spec": spec, "data": data, "recipe": recipe.sha256})


def load(recipe: Recipe, path: Path) -> Trained:
    """Read trained weights back.

    Raises:
        ConfigError: there are none, they cannot be read, or another recipe or seed trained them.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: no weights of recipe {recipe.name}; run 'serstream-train train' first")
    try:
        stored = torch.load(path, weights_only=True)
    except BROKEN_WEIGHTS as error:
        raise ConfigError(
            f"{path}: cannot read these weights: {error}; run 'serstream-train train' again"
        ) from error
    made_by = stored.get("recipe", "unknown")
    if made_by != recipe.sha256:
        raise ConfigError(
            f"{path}: trained by recipe {made_by[:12]}, wanted {recipe.sha256[:12]}, which is "
            f"{recipe.name} with seed {recipe.training.seed}; run 'serstream-train train' again"
        )
    spec = FeatureSpec.from_json(stored["spec"])
    network = build(recipe.network, spec, len(recipe.labels))
    network.load_state_dict(stored["network"])
    return Trained(network.eval(), spec, [], stored.get("data", ""))
