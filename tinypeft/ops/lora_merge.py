"""LORA_MERGE: a LoRA's integers into a copy of its layer's int8 weights, whose scales stay."""

from __future__ import annotations

import numpy as np

from tinypeft.arithmetic import round_half_up_shift
from tinypeft.ir import Operation, Tensor
from tinypeft.ops.base import CArray, KernelCall, Op, Value, register


@register
class LoraMerge(Op):
    """merged_filter = clamp(filter + (B A >> hidden_shift + lora_shift)), in the filter's own steps.

    Of a layer that reads its inputs directly, without their zero point, also merged_bias = bias - zero_point * what was
    added. `bias` int32 (Cout,) is an operand where it is trained, else the attribute of that name.
    """

    name = "LORA_MERGE"
    operands = ("filter", "lora_A", "hidden_shift", "lora_B", "lora_shift")
    optional = ("bias",)
    results = ("merged_filter", "merged_bias")
    dispensable = ("merged_bias",)
    source = "tp_lora_merge.c"

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = {"merged_filter": op.inputs["filter"].shape}
        return shapes | ({"merged_bias": op.inputs["filter"].shape[:1]} if "merged_bias" in op.outputs else {})

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        filters = values["filter"].astype(np.int64)
        a, b = values["lora_A"].astype(np.int64), values["lora_B"].astype(np.int64)
        shifts = values["hidden_shift"].astype(np.int64) + values["lora_shift"]
        change = round_half_up_shift(b @ a.reshape(len(a), -1), shifts[:, None]).reshape(filters.shape)
        merged = np.clip(filters + change, -128, 127)
        results: dict[str, Value] = {"merged_filter": merged.astype(np.int8)}
        if "merged_bias" in op.outputs:
            added = (merged - filters).reshape(len(filters), -1).sum(1)
            bias = values["bias"] if "bias" in op.inputs else op.attributes["bias"]
            results["merged_bias"] = (bias - op.attributes["zero_point"] * added).astype(np.int32)
        return results

    def call(self, op: Operation) -> KernelCall:
        filters, merged_bias = op.inputs["filter"], op.outputs.get("merged_bias")
        fields = {
            "rank": op.inputs["lora_A"].shape[0],
            "fan_in": filters.size // filters.shape[0],
            "output_c": filters.shape[0],
            "zero_point": op.attributes["zero_point"],
        }
        bias: Tensor | CArray | None = op.inputs.get("bias")
        if bias is None and merged_bias is not None:
            bias = CArray("int32_t", op.attributes["bias"], "bias")
        arguments = [*(op.inputs[name] for name in self.operands), bias, op.outputs["merged_filter"], merged_bias]
        return KernelCall("tp_lora_merge_s8", "tp_lora_merge_params", fields, arguments)

    def macs(self, op: Operation) -> int:
        return op.inputs["filter"].size * op.inputs["lora_A"].shape[0]
