"""What ships with serstream: models, the sample call and the commented configuration."""

from __future__ import annotations

from pathlib import Path

from serstream.errors import ModelError

_HERE = Path(__file__).parent
_CHECKOUT = _HERE.parent.parent

SAMPLE_CALL = _HERE / "sample" / "call.wav"
"""A two-party call: left channel customer, right channel agent, 8 kHz G.711 mu-law."""

DEFAULT_MODEL = "cnn-lstm"


def models_dir() -> Path:
    """The folder ``<name>/<version>/model.onnx``: inside an installed package, or beside it in a checkout."""
    installed = _HERE / "models"
    return installed if installed.is_dir() else _CHECKOUT / "models"


def default_model() -> Path:
    """The newest version of the default model.

    Raises:
        ModelError: the installation is incomplete.
    """
    versions = [
        path for path in (models_dir() / DEFAULT_MODEL).glob("*/model.onnx") if path.parent.name.isdigit()
    ]
    if not versions:
        raise ModelError(
            f"no {DEFAULT_MODEL}/<version>/model.onnx in {models_dir()}; reinstall serstream, "
            "or name a model under [model] path"
        )
    return max(versions, key=lambda path: int(path.parent.name))
