"""Merged layers as deltas of a Keras model's: what merging added to each layer in, a merged .keras out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tinypeft.adapters import MergedLayer, base_layer
from tinypeft.compiler import CompiledModel
from tinypeft.errors import AdapterError
from tinypeft.exchange.keras_rewrite import merge_keras
from tinypeft.exchange.layouts import KERAS_CLASSES, kernel_from_filters
from tinypeft.ir import Operation
from tinypeft.merging.merge import Merged


def merge_into_keras(path: Path | str, model: CompiledModel, keras_layers: Mapping[str, str], merged: Merged) -> bytes:
    """The .keras file of the Keras model at `path`, the one that was converted, with the merged layers' changes.

    AdapterError: other classes, a layer that several operators make, or what `merge_keras` cannot merge; ToolError: no
    TensorFlow.
    """
    operations = {op.name: op for op in model.base.operations}
    deltas: dict[str, dict[str, np.ndarray]] = {}
    for name, layer in merged.weights.items():
        op = operations[name]
        if op.layer in deltas or op.layer not in keras_layers:
            raise AdapterError(
                f"{name} cannot be merged into {path}, which has "
                + (f"one layer {op.layer} for several operators" if op.layer in deltas else f"no layer {op.layer}"),
                "merge into the .tflite alone: leave out --keras",
            )
        deltas[op.layer] = _deltas(op, keras_layers[op.layer], layer)
    return merge_keras(path, deltas)


def _deltas(op: Operation, keras_class: str, layer: MergedLayer) -> dict[str, np.ndarray]:
    base = base_layer(op)
    if base.filter.shape != layer.filter.shape:
        raise AdapterError(
            f"layer {op.layer} has {len(layer.bias)} classes, the Keras model's has {len(base.bias)}",
            "merge into the .tflite alone: leave out --keras",
        )
    if keras_class not in KERAS_CLASSES:
        raise AdapterError(
            f"layer {op.layer} is a {keras_class}, of which no kernel can be merged",
            "merge into the .tflite alone: leave out --keras",
        )
    shape = _kernel_shape(op, keras_class)
    deltas = {
        "kernel_delta": kernel_from_filters(layer.filter - base.filter, keras_class, shape),
        "folded_kernel": kernel_from_filters(base.filter, keras_class, shape),
    }
    if (bias := layer.bias - base.bias).any():
        deltas["bias_delta"] = bias
    return deltas


def _kernel_shape(op: Operation, keras_class: str) -> tuple[int, ...]:
    """The shape of the layer's kernel in Keras."""
    filters, inputs = op.inputs["filter"].shape, op.inputs["input"].shape[-1]
    if keras_class == "Dense":
        return filters[-1], filters[0]
    depthwise = keras_class.startswith("Depthwise")
    single = depthwise and filters[0] != 1  # one input channel, a CONV_2D
    taps = filters[1:3] if "2D" in keras_class else (filters[1] * filters[2],)
    if depthwise:
        return (*taps, 1, filters[0]) if single else (*taps, inputs, filters[3] // inputs)
    if "Transpose" in keras_class:
        return (*taps, filters[0], filters[3])
    return (*taps, filters[3], filters[0])
