"""The analysis of `serstream.emotion.spectra` in C, where ``spectra.c`` was compiled at installation.

It takes a third of numpy's time, for the same numbers but for their rounding. Where there was no compiler, on
another processor than it was compiled for, or with frames that are no power of two, numpy does it.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serstream.emotion.pitch import Search
from serstream.emotion.spectra import Analysis, FloatArray, Spectra

_FILE = Path(__file__).with_name("libspectra.so")
_FEWEST = 64
"""Samples of a frame; the shortest transform has a quarter of them."""


class _Transform(ctypes.Structure):
    """``struct transform`` of spectra.c."""

    _fields_ = (
        ("size", ctypes.c_int),
        ("twiddles", ctypes.c_void_p),
        ("order", ctypes.c_void_p),
        ("roots", ctypes.c_void_p),
    )


class _Plan(ctypes.Structure):
    """``struct plan`` of spectra.c."""

    _fields_ = (
        ("hop_length", ctypes.c_int),
        ("n_frames", ctypes.c_int),
        ("n_mels", ctypes.c_int),
        ("taper", ctypes.c_void_p),
        ("frame", _Transform),
        ("reach", ctypes.c_void_p),
        ("bins", ctypes.c_void_p),
        ("weights", ctypes.c_void_p),
        ("has_pitch", ctypes.c_int),
        ("correlation", _Transform),
        ("first_bin", ctypes.c_int),
        ("shortest", ctypes.c_int),
        ("longest", ctypes.c_int),
        ("correction", ctypes.c_void_p),
        ("cost", ctypes.c_void_p),
    )


def _load() -> ctypes.PyDLL | None:
    """The library, if it is there, fits this module, and the processor can run it."""
    try:
        # Calls are shorter than handing the interpreter to another thread and back: it is kept.
        library = ctypes.PyDLL(str(_FILE))
    except OSError:
        return None
    return library if library.plan_bytes() == ctypes.sizeof(_Plan) else None


_LIBRARY = _load()


def is_there() -> bool:
    """Whether this installation has it, and this processor can run it."""
    return _LIBRARY is not None


def compiled_analyser(analysis: Analysis) -> CompiledAnalyser | None:
    """What does an analysis in C; None if nothing can."""
    n_fft = len(analysis.taper)
    if _LIBRARY is None or n_fft < _FEWEST or n_fft & (n_fft - 1):
        return None
    return CompiledAnalyser(_LIBRARY, analysis)


class CompiledAnalyser:
    """Does an analysis; made by `compiled_analyser`."""

    def __init__(self, library: ctypes.PyDLL, analysis: Analysis):
        self._analyse = library.analyse
        self._tables: list[NDArray[Any]] = []
        plan = _Plan(analysis.hop_length, analysis.n_frames, analysis.filters.shape[1])
        plan.taper = self._floats(analysis.taper)
        plan.frame = self._transform(len(analysis.taper) // 2)
        mels, bins = analysis.filters.T.nonzero()
        plan.reach = self._integers(np.searchsorted(mels, np.arange(plan.n_mels + 1)))
        plan.bins = self._integers(bins)
        plan.weights = self._floats(analysis.filters.T[mels, bins])
        if analysis.search is not None:
            self._add(plan, analysis.search)
        self._plan = plan

    def __call__(self, windows: FloatArray, gain: FloatArray) -> Spectra:
        """Analyse windows (n_windows, n_samples), each multiplied by its gain (n_windows,).

        Raises:
            MemoryError: there is none for the spectra of some frames.
        """
        n_windows, n_samples = windows.shape
        mel = np.empty((n_windows, self._plan.n_mels, self._plan.n_frames), np.float32)
        found = np.empty((n_windows, 4, self._plan.n_frames), np.float32) if self._plan.has_pitch else None
        failed = self._analyse(
            ctypes.byref(self._plan),
            _address(windows),
            _address(gain),
            ctypes.c_long(n_windows),
            ctypes.c_long(n_samples),
            _address(mel),
            None if found is None else _address(found),
        )
        if failed:
            raise MemoryError(f"no memory to analyse {n_windows} windows")
        return Spectra(mel, found)

    def _add(self, plan: _Plan, search: Search) -> None:
        plan.has_pitch = 1
        plan.correlation = self._transform(search.n_lags // 2)
        plan.first_bin, plan.shortest, plan.longest = search.first_bin, search.shortest, search.longest
        plan.correction = self._floats(1 / search.taper)
        plan.cost = self._floats(search.cost)

    def _transform(self, size: int) -> _Transform:
        """Tables for a transform of ``2 * size`` real numbers; ``size`` is a power of two."""
        passes, index, place, n = [], np.arange(size), np.zeros(size, np.int64), size
        while n >= 4:
            n //= 4
            angles = -np.pi / 2 / n * np.outer(np.arange(n), (1, 2, 3))
            passes.append(np.stack([np.cos(angles), np.sin(angles)], axis=-1).ravel())
            place += index % 4 * n
            index //= 4
        angles = -np.pi / size * np.arange(size // 2 + 1)
        return _Transform(
            size,
            self._floats(np.concatenate(passes)),
            self._integers(np.append(place + index, 0)),
            self._floats(np.stack([np.cos(angles), np.sin(angles)], axis=-1)),
        )

    def _floats(self, table: NDArray[Any]) -> ctypes.c_void_p:
        return self._keep(np.ascontiguousarray(table, np.float32))

    def _integers(self, table: NDArray[Any]) -> ctypes.c_void_p:
        return self._keep(np.ascontiguousarray(table, np.int32))

    def _keep(self, table: NDArray[Any]) -> ctypes.c_void_p:
        """The library uses it as long as this object lives."""
        self._tables.append(table)
        return _address(table)


def _address(values: NDArray[Any]) -> ctypes.c_void_p:
    return ctypes.c_void_p(values.ctypes.data)
