"""A training run as one TOML file."""

from __future__ import annotations

import hashlib
import tomllib
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from serstream.emotion.features import FeatureSpec
from serstream.emotion.metadata import Label
from serstream.errors import ConfigError
from serstream.explain import explain
from serstream.types import SAMPLE_RATE
from trainer.augment import Augmentation
from trainer.calls import BaselineTraining

Share = Annotated[float, Meta(ge=0, le=1)]
MIN_BANDS = 13
"""Mel bands of which the convolutions, which halve them four times, leave one."""


class Training(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``[training]``: the loop."""

    epochs: Annotated[int, Meta(ge=1, le=10_000)] = 40
    """Passes over the clips."""
    batch: Annotated[int, Meta(ge=1, le=10_000)] = 64
    learning_rate: Annotated[float, Meta(gt=0, le=1)] = 2e-3
    """Peak of the one-cycle schedule (Smith and Topin 2018)."""
    weight_decay: Annotated[float, Meta(ge=0, le=10)] = 1e-2
    label_smoothing: Share = 0.1
    mixup: Annotated[float, Meta(ge=0, le=10)] = 0.0
    """Parameter of the beta distribution (Zhang et al. 2018); 0 is off."""
    shift: Annotated[float, Meta(ge=0, le=0.5)] = 0.0
    """Windows are rolled in time by at most this share of their length; 0 is off."""
    ema: Share = 0.99
    """Decay of the averaged weights, per step, less in the first steps; the average is what is kept."""
    choose_epoch: bool = False
    """Keep the epoch with the best UAR on validation speakers; otherwise they are trained on, to the end."""
    patience: Annotated[int, Meta(ge=0, le=10_000)] = 0
    """With ``choose_epoch``: stop when the UAR has not risen for so many epochs; 0 never stops early."""
    seed: Annotated[int, Meta(ge=0, le=2**32 - 1)] = 0


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a run depends on, beside the recordings."""

    name: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,63}\Z")]
    """Name of the model."""
    network: Literal["cnn_lstm", "cnn_2d", "cnn_lstm_ridge", "ridge"]
    corpora: Annotated[tuple[str, ...], Meta(min_length=1)]
    labels: Annotated[tuple[Label, ...], Meta(min_length=2, max_length=32)]
    """Clips with another emotion are mapped or left out; labels a corpus lacks count as absent in its loss,
    but less than those it has."""
    label_map: dict[str, Label] | UnsetType = UNSET
    """Emotion as the corpora say it, and the label it counts as; not for ``pretraining``, which learns the
    words of its own corpora. Left out of the hash where it is not set."""
    licence: str = "Apache-2.0"
    """Of the weights, as an SPDX expression."""
    features: FeatureSpec = FeatureSpec()
    augmentation: Augmentation = Augmentation()
    training: Training = Training()
    baseline: BaselineTraining | None = None
    """The speaker baseline; None: every window stands for itself."""
    pretraining: Annotated[tuple[str, ...], Meta(min_length=1)] | UnsetType = UNSET
    """Other corpora: the convolution learns all of their labels first, for as many epochs, and begins with
    that. Left out of the hash where it is not set."""

    def __post_init__(self) -> None:
        if len(set(self.labels)) < len(self.labels):
            raise ValueError(f"labels are {', '.join(self.labels)}, wanted each only once")
        for emotion, label in (self.label_map or {}).items():
            if emotion in self.labels:
                raise ValueError(f"label_map.{emotion} is {label}, wanted no such key: {emotion} is a label")
            if label not in self.labels:
                raise ValueError(f"label_map.{emotion} is {label}, wanted one of {', '.join(self.labels)}")
        if twice := {name.casefold() for name in self.corpora} & {
            name.casefold() for name in self.pretraining or ()
        }:
            raise ValueError(
                f"pretraining has {min(twice)}, wanted none of corpora: it would be tested on what it heard"
            )
        if self.features.sample_rate != SAMPLE_RATE:
            raise ValueError(
                f"features.sample_rate is {self.features.sample_rate}, wanted {SAMPLE_RATE}: clips are "
                "resampled to it, as the daemon resamples its calls"
            )
        if self.network != "ridge" and self.features.n_mels < MIN_BANDS:
            raise ValueError(
                f"features.n_mels is {self.features.n_mels}, wanted {MIN_BANDS} or more: "
                f"network {self.network} has a convolution"
            )
        if self.network in ("cnn_lstm_ridge", "ridge") and self.features.functionals is None:
            raise ValueError(f"network {self.network} hears functionals, wanted [features.functionals]")
        if self.network == "ridge":
            if self.pretraining:
                raise ValueError(
                    "network is ridge, wanted one with a convolution: nothing else is pretrained"
                )
            used = Training(seed=self.training.seed)
            idle = [
                name for name in used.__struct_fields__ if getattr(used, name) != getattr(self.training, name)
            ]
            if idle:
                raise ValueError(
                    f"training.{idle[0]} is {getattr(self.training, idle[0])}, wanted no such key: network "
                    "ridge is solved for, and only the seed matters to it"
                )

    def with_seed(self, seed: int) -> Recipe:
        """The same recipe with another seed."""
        return msgspec.structs.replace(self, training=msgspec.structs.replace(self.training, seed=seed))

    @property
    def heard(self) -> tuple[str, ...]:
        """All corpora that the weights owe something to."""
        return (*self.corpora, *(self.pretraining or ()))

    @property
    def sha256(self) -> str:
        """Changes when anything in the recipe does."""
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()


def load(path: Path) -> Recipe:
    """Read a recipe.

    Raises:
        ConfigError: the file is missing, is not TOML, or a key or value is not allowed.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"recipe {path}: cannot read it: {error.strerror}; give the path of a TOML file like those in "
            "trainer/recipes"
        ) from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"recipe {path}: not TOML: {error}") from error
    try:
        return msgspec.convert(tables, Recipe)
    except msgspec.ValidationError as error:
        raise ConfigError(f"recipe {path}: {explain(error, tables, Recipe)}") from error
