"""What a model file says about itself: the ONNX ``metadata_props`` that serstream reads and writes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import msgspec
from msgspec import Meta

from serstream.emotion.features import FeatureSpec
from serstream.errors import UNDECODABLE, ModelError

Label = Annotated[str, Meta(pattern=r"^[a-z][a-z-]{0,31}\Z")]


class ModelMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """One ``metadata_props`` entry per field, each value JSON; unknown entries are ignored."""

    name: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,63}\Z")]
    version: Annotated[int, Meta(ge=1)]
    labels: Annotated[tuple[Label, ...], Meta(min_length=2, max_length=32)]
    """Order of the model's outputs; no label twice."""
    feature_spec: FeatureSpec
    temperature: Annotated[float, Meta(gt=0)]
    """Logits are divided by it before the softmax (Guo et al. 2017)."""
    licence: str
    """Licence of the weights, as an SPDX expression."""
    abstain_below: Annotated[float, Meta(ge=0, le=1)] = 0.0
    """Confidence under which the winner should not be believed."""
    training_data: tuple[str, ...] = ()
    """Corpora the weights come from, with their licences."""
    protocol: str = ""
    """How the metrics were measured."""
    metrics: dict[str, float] = {}
    """Measured on held-out speakers."""
    label_map: dict[str, Label] = {}
    """Other words of the training data, and the label that each counted as."""
    recipe_sha256: str = ""

    def __post_init__(self) -> None:
        if len(set(self.labels)) < len(self.labels):
            raise ValueError(f"labels are {', '.join(self.labels)}, wanted each only once")

    @property
    def reference(self) -> str:
        """``name@version``, the form in which events name their model."""
        return f"{self.name}@{self.version}"

    def to_props(self) -> dict[str, str]:
        """Entries for ``onnx.helper.set_model_props``."""
        return {field: msgspec.json.encode(getattr(self, field)).decode() for field in self.__struct_fields__}

    @staticmethod
    def from_props(props: Mapping[str, str], where: str) -> ModelMetadata:
        """Read the entries of a model file.

        Args:
            props: as ``InferenceSession.get_modelmeta().custom_metadata_map`` gives them.
            where: the file's name, for the error.

        Raises:
            ModelError: an entry is missing or does not have its type.
        """
        required = [f.name for f in msgspec.structs.fields(ModelMetadata) if f.required]
        missing = [name for name in required if name not in props]
        if missing:
            raise ModelError(
                f"{where}: no metadata entry {', '.join(missing)}; a serstream model carries "
                f"{', '.join(required)} (export it with 'serstream-train export')"
            )
        values: dict[str, object] = {}
        for field in ModelMetadata.__struct_fields__:
            if field not in props:
                continue
            if field == "feature_spec":
                try:
                    values[field] = FeatureSpec.from_json(props[field])
                except ModelError as error:
                    raise ModelError(f"{where}: {error}") from error
                continue
            try:
                values[field] = msgspec.json.decode(props[field])
            except UNDECODABLE as error:
                raise ModelError(
                    f"{where}: metadata entry {field} is {props[field]!r}, wanted JSON"
                ) from error
        try:
            return msgspec.convert(values, ModelMetadata)
        except msgspec.ValidationError as error:
            raise ModelError(f"{where}: metadata: {error}") from error
