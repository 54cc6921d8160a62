"""LoRA with A and B in 4 bits: quantiser, the way back, and UNPACK_INT4, which gives the int8 that layers read.

A row is a multiple of its 4-bit values: int8 = int4 * multiplier, so that all other arithmetic is that of int8.
"""

from __future__ import annotations

import numpy as np

from tinypeft import arithmetic
from tinypeft.arithmetic import F32
from tinypeft.ir import Operation
from tinypeft.ops.base import KernelCall, Op, Value, register
from tinypeft.ops.lora import LoraQuantize, LoraRestore, quantize_fields, quantize_masters, restore_masters

SOURCE = "tp_int4.c"
LEVELS = 7
#: The largest multiplier: 7 * 18 still is an int8.
MULTIPLIER_MAX = 18
#: (peak below, multiplier): powers of two, with which rounding leaves the peak in its range; above, the nearest.
_SMALL = ((7.5, 1), (15.0, 2), (30.0, 4), (60.0, 8))


def row_multiplier(peak: np.float32) -> int:
    """The multiplier of a row whose largest element is `peak` int8 steps; a row restored gets the same."""
    for below, multiplier in _SMALL:
        if peak < F32(below):
            return multiplier
    return min(int(arithmetic.round_to_int(np.asarray(peak / F32(LEVELS)))), MULTIPLIER_MAX)


def round_row(row: np.ndarray, peak: np.float32) -> tuple[int, np.ndarray]:
    """(multiplier, the row as int8 multiples of it): `row` and its `peak` are in int8 steps."""
    multiplier = row_multiplier(peak)
    scaled = np.clip(row / F32(multiplier), F32(-LEVELS), F32(LEVELS))
    return multiplier, (arithmetic.round_to_int(scaled) * multiplier).astype(np.int8)


def _packed(rows: np.ndarray, multipliers: np.ndarray) -> np.ndarray:
    return arithmetic.pack_int4(rows.reshape(len(rows), -1) // multipliers[:, None])


def _unpacked(packed: np.ndarray, multipliers: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    values = arithmetic.unpack_int4(packed, int(np.prod(shape))).reshape(shape[0], -1)
    return (values * multipliers[:, None]).reshape(shape)


@register
class UnpackInt4(Op):
    """output[r,...] = packed[r,...] * multiplier[r], int8."""

    name = "UNPACK_INT4"
    operands = ("packed", "multiplier")
    source = SOURCE

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        return {"output": op.inputs["packed"].shape}

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        return {"output": _unpacked(values["packed"], values["multiplier"], op.output.shape)}

    def call(self, op: Operation) -> KernelCall:
        rows = op.output.shape[0]
        fields = {"rows": rows, "row_size": op.output.size // rows}
        return KernelCall("tp_unpack_int4_s8", "tp_int4_params", fields, [*op.inputs.values(), op.output])


@register
class LoraQuantizeInt4(LoraQuantize):
    """LORA_QUANTIZE with A and B packed as int4, and what their rows are multiples of."""

    name = "LORA_QUANTIZE_INT4"
    results = (*LoraQuantize.results, "a_multiplier", "b_multiplier")
    source = "tp_lora_int4.c"

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        a, b = op.inputs["master_A"].shape, op.inputs["master_B"].shape
        return super().shapes(op) | {"a_multiplier": a[:1], "b_multiplier": b[:1]}

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        results = quantize_masters(op, values, round_row, LEVELS * MULTIPLIER_MAX)
        for name in ("A", "B"):
            results[f"lora_{name}"] = _packed(results[f"lora_{name}"], results[f"{name.lower()}_multiplier"])
        return results

    def sources(self, op: Operation) -> tuple[str, ...]:
        return self.source, SOURCE, LoraQuantize.source

    def scratch_bytes(self, op: Operation) -> int:
        return op.outputs["lora_A"].size + op.outputs["lora_B"].size

    def call(self, op: Operation) -> KernelCall:
        a, b = op.inputs["master_A"], op.inputs["master_B"]
        arguments = [a, b, *op.outputs.values()]
        return KernelCall("tp_lora_quantize_int4_f32", "tp_lora_quantize_params", quantize_fields(op, a, b), arguments)


@register
class LoraRestoreInt4(LoraRestore):
    """LORA_RESTORE of packed A and B."""

    name = "LORA_RESTORE_INT4"
    operands = (*LoraRestore.operands, "a_multiplier", "b_multiplier")
    source = "tp_lora_int4.c"

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        unpacked = {
            f"lora_{name}": _unpacked(
                values[f"lora_{name}"], values[f"{name.lower()}_multiplier"], op.inputs[f"lora_{name}"].shape
            )
            for name in ("A", "B")
        }
        return restore_masters(op, values | unpacked)

    def sources(self, op: Operation) -> tuple[str, ...]:
        return self.source, SOURCE, LoraQuantize.source

    def scratch_bytes(self, op: Operation) -> int:
        return op.inputs["lora_A"].size + op.inputs["lora_B"].size

    def call(self, op: Operation) -> KernelCall:
        fields = quantize_fields(op, op.inputs["lora_A"], op.inputs["lora_B"])
        arguments = [*op.inputs.values(), *op.outputs.values()]
        return KernelCall("tp_lora_restore_int4_f32", "tp_lora_quantize_params", fields, arguments)
