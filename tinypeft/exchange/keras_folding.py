"""The weights of a Keras model's layers, and what the converter multiplies them by: a file in, FoldedLayers out."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tinypeft.errors import AdapterError
from tinypeft.exchange.keras_rewrite import run_keras
from tinypeft.exchange.layouts import filters_from_kernel
from tinypeft.exchange.peft_files import PeftAdapter

#: relative distance of a filter from its int8 form, far above what rounding gives, far below that of another filter
_SAME_FILTER = 0.05


@dataclass(frozen=True, eq=False)
class FoldedLayer:
    """filter in TFLite's layout; bias (Cout,) or None; factor (Cout,) of a BatchNormalization right behind, or None."""

    filter: np.ndarray
    bias: np.ndarray | None
    factor: np.ndarray | None


def read_layers(path: Path | str) -> dict[str, FoldedLayer]:
    """The layers of the Keras model at `path` that have a kernel, by name. ModelError, ToolError: as `run_keras`."""
    with tempfile.TemporaryDirectory(prefix="tinypeft-") as folder:
        answer = run_keras({"job": "layers", "model": str(Path(path).absolute())}, {}, Path(folder))
        with np.load(Path(folder, "result.npz")) as result:
            arrays = dict(result)
    return {
        name: FoldedLayer(
            filters_from_kernel(arrays[f"kernel:{index}"], keras_class),
            arrays.get(f"bias:{index}"),
            arrays.get(f"factor:{index}"),
        )
        for index, (name, keras_class) in enumerate(answer["layers"])
    }


def fold_adapter(
    adapter: PeftAdapter,
    layers: Mapping[str, FoldedLayer],
    converted: Mapping[str, tuple[np.ndarray, np.ndarray]],
) -> PeftAdapter:
    """An adapter of a Keras model as one of the model that the converter made of it.

    `converted`: layer -> (filter, bias) of the converted model in real units. Where a BatchNormalization was folded
    into a layer, what the adapter adds is multiplied as the layer was. AdapterError: another model.
    """
    tensors = {}
    for name, given in adapter.tensors.items():
        if name not in layers or name not in converted:
            raise AdapterError(f"the converted model has no layer {name}; it has {', '.join(converted)}")
        factor = _factor(name, layers[name], converted[name][0])
        tensors[name] = {tensor: _folded(tensor, array, layers[name], factor, converted[name][1])
                         for tensor, array in given.items()}  # fmt: skip
    return PeftAdapter(adapter.config, tensors)


def _factor(name: str, layer: FoldedLayer, converted: np.ndarray) -> np.ndarray | None:
    """The factor that the converter applied, None for none."""
    if layer.filter.shape != converted.shape:
        raise AdapterError(
            f"layer {name} has a filter {layer.filter.shape} in Keras, {converted.shape} in the converted model",
            "give the Keras model that was converted",
        )
    candidates: list[np.ndarray | None] = [None] if layer.factor is None else [None, layer.factor]
    distances = [_distance(layer.filter if f is None else _rows(f, layer.filter) * layer.filter, converted)
                 for f in candidates]  # fmt: skip
    nearest = int(np.argmin(distances))
    if distances[nearest] > _SAME_FILTER:
        raise AdapterError(
            f"layer {name}: its filter differs from the converted one by {distances[nearest]:.0%}, rounding explains "
            f"{_SAME_FILTER:.0%}",
            "give the Keras model that was converted",
        )
    return candidates[nearest]


def _folded(
    tensor: str, array: np.ndarray, layer: FoldedLayer, factor: np.ndarray | None, converted_bias: np.ndarray
) -> np.ndarray:
    if factor is None:
        return array
    if tensor == "bias":  # what training added to it, in front of the normalisation, on top of what is behind it
        before = np.zeros_like(array) if layer.bias is None else layer.bias
        return (converted_bias + (array.astype(np.float64) - before) * factor).astype(np.float32)
    if tensor in ("lora_B", "weight"):
        return (_rows(factor, array) * array).astype(np.float32)
    return array


def _rows(values: np.ndarray, array: np.ndarray) -> np.ndarray:
    return values.reshape(-1, *[1] * (array.ndim - 1))


def _distance(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.linalg.norm(one - other) / (np.linalg.norm(other) or 1.0))
