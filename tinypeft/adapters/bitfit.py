"""BitFit: the bias of a layer is trained; a layer without one gets one. Inference costs what it did."""

from __future__ import annotations

import numpy as np

from tinypeft.adapters.base import AdapterConfig, AdapterKind, Insertion, MergedLayer, Parameter, register
from tinypeft.ir import Operation, Purpose
from tinypeft.ops.weighted import (
    ACCUMULATOR_LIMIT,
    BiasState,
    accumulator_bound,
    filter_scales,
    folds_offset,
    input_scale,
    layer_bias,
    zero_point_bias,
)

LAYERS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")
#: The fewest steps of the accumulator by which a bias must be able to change.
MIN_ROOM = 1 << 16


@register
class Bitfit(AdapterKind):
    """The master is the change of the bias, in real units, so that a fresh adapter and a restored one are exact.

    PEFT has it as `bias="all"` beside a LoRA, and no type for it alone.
    """

    name = "bitfit"
    summary = "the bias of convolutions, depthwise ones too, and dense layers; inference costs what it did"
    order = 0
    peft_type = "BITFIT"
    method = 0x0008

    def refuses(self, operation: Operation) -> str | None:
        if operation.kind not in LAYERS:
            return f"is a {operation.kind}, which has no bias"
        if _room(operation) < MIN_ROOM:
            bound = accumulator_bound(operation)
            return f"has accumulators that reach {bound} of {ACCUMULATOR_LIMIT}: they have no room for another bias"
        return None

    def insert(self, operation: Operation, config: AdapterConfig, insertion: Insertion) -> None:
        name, state, unit = operation.name, _state(operation), _unit(operation)
        master = insertion.state(f"{name}_bias_master", unit.shape, "float32", Purpose.MASTER)
        bias = insertion.weight(f"{name}_trained_bias", unit.shape, "int32")
        insertion.constant(master)
        attributes = {"base": (state.base + state.folded).astype(np.int32), "unit": unit, "room": state.room}
        kinds = ("BITFIT_QUANTIZE", "BITFIT_RESTORE")
        insertion.quantize(operation, kinds, {"master": master}, {"bias": bias}, attributes)
        operation.inputs["bias"] = bias
        operation.attributes["trained_bias"] = state

        start = state.base.astype(np.float32) * unit
        parameter = Parameter(
            f"{name}_bias",
            operation.layer,
            master,
            bias,
            f"{operation.layer}.bias",
            lambda change: start + change,
            lambda whole: whole - start,
        )
        insertion.adapted.parameters.append(parameter)

    def merge(
        self, operation: Operation, config: AdapterConfig, state: dict[str, np.ndarray], layer: MergedLayer
    ) -> None:
        reach = _state(operation).room * _unit(operation).astype(np.float64)
        layer.bias += np.clip(state[f"{operation.name}_bias_master"], -reach, reach)


def _state(operation: Operation) -> BiasState:
    """That of the layer, adapted or not."""
    existing: BiasState | None = operation.attributes.get("trained_bias")
    return existing or BiasState(layer_bias(operation), _folded(operation), _room(operation))


def _unit(operation: Operation) -> np.ndarray:
    """float32 (Cout,): the real value of a step of the accumulator."""
    return input_scale(operation) * filter_scales(operation)


def _room(operation: Operation) -> int:
    """By how much a bias may change: half of what the accumulators leave, so that a LoRA may add as much."""
    rest = ACCUMULATOR_LIMIT - accumulator_bound(operation)
    return 1 << (rest // 2).bit_length() - 1 if rest >= 2 else 0


def _folded(operation: Operation) -> np.ndarray:
    """int64 (Cout,): what the operand holds beside the bias."""
    if operation.kind in ("CONV_2D", "FULLY_CONNECTED") and folds_offset(operation.inputs["filter"]):
        return zero_point_bias(operation)
    return np.zeros(operation.output.shape[-1], np.int64)
