"""A system of a study as one TOML file: features, copies, network and training."""

from __future__ import annotations

import hashlib
import tomllib
from itertools import product
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from serstream.emotion.features import FeatureSpec
from serstream.errors import ConfigError
from trainer.comparison.copies import Effect
from trainer.comparison.features import FEATURES, FeatureSet, mfcc_matrix, trimmed
from trainer.networks import NETWORKS, Ensemble, build
from trainer.networks.studies import STUDIES, StudyNetwork
from trainer.recipe import Share

Positive = Annotated[int, Meta(ge=1)]
RECIPES = Path(__file__).resolve().parents[1] / "recipes" / "studies"
FOREST = "forest"
_TALK = ("title", "reported", "unstated", "verdict", "across", "short")
"""Keys of a recipe that do not change what the same amount of work brings."""
MFCC = "mfcc"


class Learning(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``[training]``: as in the study."""

    epochs: Positive = 50
    batch: Positive = 32
    optimiser: Literal["adam", "adamw", "rmsprop"] = "adam"
    learning_rate: Annotated[float, Meta(gt=0)] = 1e-3
    weight_decay: Annotated[float, Meta(ge=0)] = 1e-2
    """Of AdamW."""
    l2: Annotated[float, Meta(ge=0)] = 0.0
    """Keras's kernel regulariser: this times the sum of squared weights is added to the loss."""
    plateau: Annotated[int, Meta(ge=0)] = 0
    """Epochs without a better validation loss after which the learning rate is halved; 0 is off."""
    early_stopping: Annotated[int, Meta(ge=0)] = 0
    """Epochs without a better validation loss after which the best weights are kept; 0 is off."""


class Short(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``[short]``: what of it is done where no more time is to be had; the table says so."""

    heard: Positive
    """Clips over all epochs, at most: a larger corpus has fewer epochs, and at least one."""
    copies: Annotated[int, Meta(ge=0)] = 1
    """Copies of each clip."""
    clips: Positive | None = None
    """Clips that are trained on, at most; None is no limit."""
    splits: Positive = 1
    """How many of a protocol's splits are run."""


class System(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a system is, beside corpora, protocol and seed."""

    title: str
    """Of its row in the table."""
    network: str
    features: str
    spec: FeatureSpec | None = None
    """Of features ``mfcc``."""
    trim: bool = False
    """Silence at both ends is cut off first."""
    copies: tuple[Effect, ...] = ()
    """Effects of the augmented copies of each clip, one each."""
    test_share: Annotated[float, Meta(gt=0, lt=1)] = 0.2
    valid_share: Share = 0.05
    """Of the training part."""
    reported: str = "-"
    """What the study reports, on which corpus and how."""
    unstated: str = ""
    """What the study does not say, and how it is read here."""
    verdict: str = ""
    """What the reported figure can and cannot be explained by, after the comparison was run."""
    across: bool = False
    """Compared across corpora as well."""
    training: Learning = Learning()
    grid: dict[str, tuple[int | float | str, ...]] | None = None
    """``[grid]``: keys of ``[training]``, each with the values that a grid search tries."""
    short: Short

    def __post_init__(self) -> None:
        ours = (name for name, opinions in NETWORKS.items() if not opinions.ridge)  # learned in steps
        known = {*STUDIES, *ours, FOREST}
        if self.network not in known:
            raise ValueError(f"network is {self.network!r}, wanted one of {', '.join(sorted(known))}")
        if self.features not in {*FEATURES, MFCC}:
            raise ValueError(f"features is {self.features!r}, wanted one of {', '.join(FEATURES)} or {MFCC}")
        if (self.features == MFCC) != (self.spec is not None):
            raise ValueError(f"[spec] belongs to features {MFCC!r} and to no other")
        self.points()

    @property
    def sha256(self) -> str:
        """Changes when the results of the same amount of work do."""
        what = {key: value for key, value in msgspec.structs.asdict(self).items() if key not in _TALK}
        return hashlib.sha256(canonical(what)).hexdigest()

    def points(self) -> list[Learning]:
        """``[training]`` at every point of ``[grid]``; as it is if there is none.

        Raises:
            msgspec.ValidationError: a key or value of the grid is not one of ``[training]``.
        """
        settings, grid = msgspec.to_builtins(self.training), self.grid or {}
        return [
            msgspec.convert({**settings, **dict(zip(grid, values, strict=True))}, Learning)
            for values in product(*grid.values())
        ]

    def feature_set(self) -> FeatureSet:
        """From the samples of a clip to the network's input."""
        chosen = FEATURES[self.features] if self.spec is None else mfcc_matrix(self.spec)
        return (lambda samples, clip: chosen(trimmed(samples), clip)) if self.trim else chosen

    def build(self, shape: tuple[int, ...], n_labels: int) -> Ensemble | StudyNetwork:
        """The network with fresh weights, for features (n, *shape)."""
        if self.spec is not None and self.network in NETWORKS:
            return build(self.network, self.spec, n_labels)
        return STUDIES[self.network](shape, n_labels)


def canonical(what: object) -> bytes:
    """JSON with its keys in order and without nulls: an option that is added later changes no digest."""

    def given(value: object) -> object:
        if not isinstance(value, dict):
            return value
        return {key: given(inner) for key, inner in value.items() if inner is not None}

    return msgspec.json.encode(given(msgspec.to_builtins(what)), order="sorted")


def names() -> list[str]:
    """Of the systems that are shipped."""
    return sorted(path.stem for path in RECIPES.glob("*.toml"))


def load(name: str) -> System:
    """Read the recipe of a system.

    Raises:
        ConfigError: there is none of that name, or a key or value is not allowed.
    """
    path = RECIPES / f"{name}.toml"
    try:
        return msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), System)
    except OSError as error:
        raise ConfigError(f"system {name!r}: there is none; wanted one of {', '.join(names())}") from error
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise ConfigError(f"recipe {path}: {error}") from error
