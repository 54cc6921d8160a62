"""Merge: an inference graph into one whose layers read copies of weights with the LoRA in, and what fills those."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tinypeft.ir import Graph, Operation, Purpose, Tensor
from tinypeft.ops import OPS
from tinypeft.ops.base import CArray
from tinypeft.ops.fully_connected import dense_window
from tinypeft.ops.weighted import (
    ACCUMULATOR_LIMIT,
    LORA_OPERANDS,
    folded_bias,
    input_range,
    layer_bias,
    lora_rank,
)
from tinypeft.ops.window import Window


@dataclass(frozen=True, eq=False)
class MergedGraphs:
    """fill: `weights`, of the layers called `layers`, from adapter weights; inference: the model with them."""

    fill: Graph
    inference: Graph
    weights: list[Tensor]
    layers: list[str]

    @property
    def nbytes(self) -> int:
        """The RAM that the copies take."""
        return sum(tensor.nbytes for tensor in self.weights)


def merge_layers(inference: Graph, room: int) -> MergedGraphs | None:
    """The layers whose copies save most multiply-accumulates a byte, as many as `room` bytes hold; None for none."""
    chosen: list[Operation] = []
    for op in sorted(filter(_mergeable, inference.operations), key=lambda op: -_saved(inference, op) / _copy_bytes(op)):
        if _copy_bytes(op) <= room:
            room -= _copy_bytes(op)
            chosen.append(op)
    if not chosen:
        return None
    layers = {id(op): op for op in chosen}
    fill, merged, weights = [], [], []
    for op in inference.operations:
        if id(op) in layers:
            filled = _fill(op, _down(inference, op))
            copies = list(filled.outputs.values())
            weights += copies
            fill += [*_unpacking(inference, filled), filled]
            merged.append(_with_copies(op, copies))
        else:
            merged.append(op)
    graph = Graph("merged", inference.inputs, inference.outputs, merged)
    weights.sort(key=lambda tensor: tensor.dtype != "int32")  # widest first: no padding inside a struct
    return MergedGraphs(Graph("merge", [], [], fill), graph.pruned(), weights, [op.layer for op in chosen])


def _window(op: Operation) -> Window:
    return op.attributes.get("window") or dense_window(op)


def _mergeable(op: Operation) -> bool:
    """Whether a LoRA alone adds to a layer without groups whose accumulators hold whatever int8 weights."""
    if op.attributes.get("addend") != "lora" or op.kind not in ("CONV_2D", "FULLY_CONNECTED"):
        return False
    filters, trained = op.inputs["filter"], op.attributes.get("trained_bias")
    if filters.data is None or filters.shape[-1] != _window(op).input_c:
        return False
    fan_in, bias = filters.size // filters.shape[0], int(np.abs(layer_bias(op)).max())
    room = 0 if trained is None else trained.room
    return 128 * fan_in * input_range(op.inputs["input"]) + bias + room <= ACCUMULATOR_LIMIT


def _saved(inference: Graph, op: Operation) -> int:
    """MACs of the LoRA."""
    down, window = _down(inference, op), _window(op)
    return down.op.macs(down) + window.output_h * window.output_w * window.output_c * lora_rank(op)


def _copy_bytes(op: Operation) -> int:
    filters = op.inputs["filter"]
    return filters.size + 4 * filters.shape[0]


def _down(inference: Graph, op: Operation) -> Operation:
    producer = inference.producer(op.inputs["hidden"])
    assert producer is not None
    return producer


def _fill(op: Operation, down: Operation) -> Operation:
    filters = op.inputs["filter"]
    inputs = {"filter": filters, "lora_A": down.inputs["lora_A"], "hidden_shift": down.inputs["hidden_shift"]}
    inputs |= {name: op.inputs[name] for name in ("lora_B", "lora_shift")}
    attributes: dict[str, Any] = {"zero_point": op.inputs["input"].zero_point}
    merged = Tensor(f"{op.name}_merged_filter", filters.shape, "int8", Purpose.MERGED_WEIGHT, filters.scale)
    bias = folded_bias(op)
    if isinstance(bias, CArray):
        attributes["bias"] = bias.values
    else:
        inputs["bias"] = bias
    merged_bias = Tensor(f"{op.name}_merged_bias", filters.shape[:1], "int32", Purpose.MERGED_WEIGHT)
    outputs = {"merged_filter": merged, "merged_bias": merged_bias}
    return Operation(OPS["LORA_MERGE"], f"{op.name}_lora_merge", inputs, outputs, attributes, op.layer)


def _with_copies(op: Operation, copies: list[Tensor]) -> Operation:
    """The layer, reading its copies instead of filter, folded bias and LoRA."""
    inputs = {name: tensor for name, tensor in op.inputs.items() if name not in LORA_OPERANDS}
    inputs |= dict(zip(("filter", "bias"), copies, strict=True))
    left_out = {"lora", "addend", "trained_bias"}
    attributes = {name: value for name, value in op.attributes.items() if name not in left_out}
    return replace(op, name=f"{op.name}_merged", inputs=inputs, outputs=dict(op.outputs), attributes=attributes)


def _unpacking(inference: Graph, filled: Operation) -> list[Operation]:
    """What makes the operands of `filled` in the arena."""
    producers = (inference.producer(tensor) for tensor in filled.inputs.values() if tensor.in_arena)
    return [op for op in producers if op is not None]
