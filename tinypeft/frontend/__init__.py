"""Front ends: a model file into a Graph, whichever format it has."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from tinypeft.errors import DataError, ModelError
from tinypeft.frontend.float_filters import read_float_filters
from tinypeft.frontend.naming import model_identifier
from tinypeft.frontend.tflite import read_tflite
from tinypeft.ir import Graph

_KERAS_SUFFIXES = (".keras", ".h5")


@dataclass(frozen=True)
class LoadedModel:
    """A model as the compiler takes it.

    `name` is the file's stem as a C identifier; `keras_layers` name -> class name in order, empty for a .tflite;
    `fingerprint` the SHA-256 of `tflite`; `float_filters` operation name -> filter before quantisation, where asked.
    """

    name: str
    tflite: bytes
    graph: Graph
    keras_layers: dict[str, str]
    fingerprint: bytes
    float_filters: dict[str, np.ndarray] = field(default_factory=dict)


def load_model(
    path: str | Path,
    calibration: np.ndarray | None = None,
    progress: Callable[[str], None] | None = None,
    with_float: bool = False,
) -> LoadedModel:
    """Load a .tflite, or convert a .keras or .h5 with `calibration` samples (N, ...).

    `progress` is called with each step of a conversion as it begins; `with_float` asks for the float filters, which a
    .tflite does not have. ModelError: a missing, damaged or unsupported
    file; DataError: no calibration where it is needed, or an unsuitable one; ToolError: no TensorFlow.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"{path} does not exist or is not a file", "check the path")
    suffix = path.suffix.lower()
    layers: dict[str, str] = {}
    float_tflite = None
    if suffix == ".tflite":
        tflite = path.read_bytes()
    elif suffix in _KERAS_SUFFIXES:
        if calibration is None:
            raise DataError(
                f"{path} is quantised with samples of its input, and none are given", "add --calibration F.npz:KEY"
            )
        from tinypeft.frontend.keras import convert

        conversion = convert(path, calibration, progress, with_float)
        tflite, layers, float_tflite = conversion.tflite, conversion.keras_layers, conversion.float_tflite
    else:
        raise ModelError(f"{path} has the suffix {suffix or 'none'}, supported are .keras, .h5, .tflite")
    try:
        loaded = load_tflite(model_identifier(path.stem), tflite, layers)
        if float_tflite is None:
            return loaded
        return replace(loaded, float_filters=read_float_filters(loaded.graph, float_tflite))
    except ModelError as error:
        raise ModelError(f"{path}: {error.message}", error.hint) from error


def load_tflite(name: str, tflite: bytes, keras_layers: dict[str, str]) -> LoadedModel:
    """The model of a .tflite's bytes under `name`; `keras_layers` as in LoadedModel. Raises ModelError."""
    graph = read_tflite(tflite, keras_layers=keras_layers)
    graph.name = name
    return LoadedModel(name, tflite, graph, keras_layers, hashlib.sha256(tflite).digest())


__all__ = ["LoadedModel", "load_model", "load_tflite", "read_tflite"]
