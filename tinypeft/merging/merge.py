"""Adapters merged into the base: a compiled model and an adapter in, a plain int8 .tflite and what that lost out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tinypeft.adapter_state import AdapterLike, require_adapters
from tinypeft.adapters import ADAPTERS, MergedLayer, base_layer
from tinypeft.compiler import CompiledModel
from tinypeft.errors import AdapterError
from tinypeft.exchange.tflite_rewrite import Replacement, rewrite_tflite
from tinypeft.frontend import flatfile
from tinypeft.frontend.flatfile import FileModel
from tinypeft.ir import Operation, Tensor
from tinypeft.merging.weights import QuantizedLayer, channel_rows, quantize_layer
from tinypeft.ops.dense_quantize import grown_scale
from tinypeft.ops.weighted import filter_scales, input_scale

#: what passes a classifier's output on, with its scale or its number of classes
_PASSED_ON = ("RESHAPE", "SOFTMAX", "DEQUANTIZE")


@dataclass(frozen=True)
class LayerReport:
    """What quantising a merged layer's filter again lost, in steps of its new scales.

    `mean_change` is how far the adapter moved the weights, in the same steps; far below half a step, rounding takes it
    back. `largest_error` and `mean_error` are against the merged weights before they were rounded.
    """

    layer: str
    operation: str
    kinds: list[str]
    largest_error: float
    mean_error: float
    mean_change: float


@dataclass(frozen=True, eq=False)
class Merged:
    """`tflite` is the merged model; `weights`: operation -> its filter and bias before quantisation, float64."""

    tflite: bytes
    layers: list[LayerReport]
    weights: dict[str, MergedLayer]


def merge_adapter(model: CompiledModel, tflite: bytes, adapter: AdapterLike) -> Merged:
    """The base `tflite` with the adapter in its weights: the same operators, int8 per output channel.

    Layers without an adapter keep their bytes; an output keeps its scale, but for a retrained classifier whose logits
    have outgrown it. AdapterError: a kind that has no merged form.
    """
    require_adapters(model)
    check_mergeable(model)
    file = flatfile.parse(tflite)
    tensors: dict[int, Replacement] = {}
    operands: dict[tuple[int, int], Replacement] = {}
    reports, weights = [], {}
    for op in model.base.operations:
        if op.name not in model.adapted_by:
            continue
        layer = weights[op.name] = merge_layer(model, op, adapter.state)
        quantized = quantize_layer(op, layer, _prescribed_scale(model, op, adapter.state))
        reports.append(_report(model, op, layer, quantized))
        place = _operator(file, op)
        if quantized.filter is not None:
            operands[place, 1] = Replacement(quantized.filter, quantized.scale, 0)
        if quantized.bias is not None:
            scale = (input_scale(op) * quantized.scale).astype(np.float32)
            operands[place, 3 if op.kind == "TRANSPOSE_CONV" else 2] = Replacement(quantized.bias, scale, 0)
        tensors |= _output(model, file, op, adapter.state)
    return Merged(rewrite_tflite(tflite, tensors, operands), reports, weights)


def check_mergeable(model: CompiledModel) -> None:
    """Raise AdapterError where an adapter of the model has no merged form."""
    for operation, kinds in model.adapted_by.items():
        for kind in kinds:
            if reason := ADAPTERS[kind].unmerged:
                where = "the input" if ADAPTERS[kind].on_input else f"layer {operation}"
                raise AdapterError(
                    f"the {kind} on {where} cannot be merged: it {reason}",
                    "deploy the base and the adapter's package as they are",
                )


def merge_layer(model: CompiledModel, op: Operation, state: Mapping[str, np.ndarray]) -> MergedLayer:
    """The layer of the base operation `op` with every adapter on it merged, in real units, float64."""
    layer = base_layer(op)
    kinds = model.adapted_by[op.name]
    if "modules_to_save" in kinds:  # which may have other classes
        count = _adapted(model, op).output.shape[-1]
        layer = MergedLayer(np.zeros((count, *layer.filter.shape[1:])), np.zeros(count))
    for kind in kinds:
        ADAPTERS[kind].merge(op, model.adapter, dict(state), layer)
    return layer


def _adapted(model: CompiledModel, op: Operation) -> Operation:
    """What the base operation `op` has become in the inference graph."""
    return next(other for other in model.inference.operations if other.name == op.name)


def _prescribed_scale(model: CompiledModel, op: Operation, state: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """The scales of a retrained layer, which has its own on the device; None for others."""
    if model.adapted_by[op.name] != ["modules_to_save"]:
        return None
    adapted = _adapted(model, op)
    growth = state[adapted.attributes["growth"].name]
    return grown_scale(filter_scales(adapted), growth)


def _report(model: CompiledModel, op: Operation, layer: MergedLayer, quantized: QuantizedLayer) -> LayerReport:
    kinds = model.adapted_by[op.name]
    if quantized.filter is None:
        return LayerReport(op.layer, op.name, kinds, 0.0, 0.0, 0.0)
    rows, scale = channel_rows(op, layer.filter), quantized.scale.astype(np.float64)[:, None]
    error = np.abs(channel_rows(op, quantized.filter) - rows / scale)
    base = channel_rows(op, base_layer(op).filter)
    moved = np.abs(rows - base) / scale if base.shape == rows.shape else np.abs(rows) / scale
    return LayerReport(op.layer, op.name, kinds, float(error.max()), float(error.mean()), float(moved.mean()))


def _operator(file: FileModel, op: Operation) -> int:
    """The index of the file's operator that `op` was read from."""
    source = op.inputs["filter"].source
    found = [
        operator
        for operator in file.operators
        if len(operator.inputs) > 1 and (tensor := operator.inputs[1]) is not None and tensor.index == source
    ]
    if len(found) > 1:  # one filter for several layers
        found = [operator for operator in found if operator.outputs[0].index == op.output.source]
    if len(found) != 1:
        raise AdapterError(
            f"layer {op.layer} cannot be merged: its filter belongs to {len(found)} operators of the file",
            "train it as an adapter of another layer",
        )
    return found[0].index


def _output(
    model: CompiledModel, file: FileModel, op: Operation, state: Mapping[str, np.ndarray]
) -> dict[int, Replacement]:
    """What becomes of the output of a retrained classifier, and of what passes that on, by index in the file."""
    adapted = _adapted(model, op)
    shift: Tensor | None = adapted.attributes.get("output_shift")
    factor = 1 if shift is None else 1 << int(state[shift.name][0])
    classes = adapted.output.shape[-1]
    if factor == 1 and classes == op.output.shape[-1]:
        return {}
    changed: dict[int, Replacement] = {}

    def change(tensor: Tensor, grows: bool) -> None:
        scale = None if not grows or tensor.scale is None else (tensor.scale * np.float32(factor)).astype(np.float32)
        shape = (*tensor.shape[:-1], classes)
        changed[tensor.source] = Replacement(scale=scale, shape=shape)
        if shape != tensor.shape:
            changed.update(_shape_constant(file, tensor, shape))
        for reader in model.base.consumers(tensor):
            if reader.kind in _PASSED_ON:
                change(reader.output, grows and reader.kind == "RESHAPE")

    change(op.output, True)
    return changed


def _shape_constant(file: FileModel, output: Tensor, shape: tuple[int, ...]) -> dict[int, Replacement]:
    """The constant that tells the operator of `output` to give `shape`, where it is a RESHAPE."""
    reshape = next((o for o in file.operators if o.kind == "RESHAPE" and o.outputs[0].index == output.source), None)
    if reshape is None:
        return {}
    constant = reshape.inputs[1] if len(reshape.inputs) > 1 else None
    sharing = [o for o in file.operators if constant is not None and any(t is constant for t in o.inputs)]
    if constant is None or len(sharing) > 1:
        raise AdapterError(
            f"the reshape behind the classifier, to {output.shape}, cannot be given {shape[-1]} classes: its shape is "
            + ("shared with other operators" if sharing else "no operand"),
            "leave num_labels and head_classes out",
        )
    return {constant.index: Replacement(np.array(shape, np.int32))}
