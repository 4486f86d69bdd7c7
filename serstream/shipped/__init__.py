"""What ships with serstream: models and the sample call."""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).parent
_CHECKOUT = _HERE.parent.parent

SAMPLE_CALL = _HERE / "sample" / "call.wav"
"""A two-party call: left channel customer, right channel agent, 8 kHz G.711 mu-law."""


def models_dir() -> Path:
    """The folder ``<name>/<version>/model.onnx``: inside an installed package, or beside it in a checkout."""
    installed = _HERE / "models"
    return installed if installed.is_dir() else _CHECKOUT / "models"
