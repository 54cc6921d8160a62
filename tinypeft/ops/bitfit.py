"""BITFIT_QUANTIZE: the trained change of a bias to the int32 bias that a layer adds; BITFIT_RESTORE: back."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinypeft import arithmetic
from tinypeft.arithmetic import F32
from tinypeft.ir import Operation
from tinypeft.ops.base import CArray, KernelCall, Op, Value, register

#: Of a change this many bits are kept, so that what is restored from it, in float32, gives the same integer.
_BITS = 22


@register
class BitfitQuantize(Op):
    """bias = base + master / unit (Cout,), the change rounded half up, kept to 22 bits and limited to +-`room`.

    base int32, unit float32 and room, a power of two, are attributes; unit is the real value of an accumulator's step.
    """

    name = "BITFIT_QUANTIZE"
    operands = ("master",)
    results = ("bias",)
    source = "tp_bitfit.c"

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        return {"bias": op.inputs["master"].shape}

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        room = op.attributes["room"]
        with np.errstate(all="ignore"):
            steps = arithmetic.limit_float(arithmetic.limit_float(values["master"]) / op.attributes["unit"], F32(room))
        shifts = [max(arithmetic.float_exponent(step) - (_BITS - 1), 0) for step in np.abs(steps)]
        scales = np.array([arithmetic.exp2i(-shift) for shift in shifts], np.float32)
        change = arithmetic.round_to_int(steps * scales) * (1 << np.array(shifts, np.int64))
        return {"bias": (op.attributes["base"] + change).astype(np.int32)}

    def call(self, op: Operation) -> KernelCall:
        arguments = [op.inputs["master"], op.output]
        return KernelCall("tp_bitfit_quantize_f32", "tp_bitfit_params", _fields(op), arguments)


@register
class BitfitRestore(Op):
    """The change that a trained bias stands for: master = (bias - base) * unit."""

    name = "BITFIT_RESTORE"
    operands = ("bias",)
    results = ("master",)
    source = "tp_bitfit.c"

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        return {"master": op.inputs["bias"].shape}

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        room = op.attributes["room"]
        change = np.clip(values["bias"].astype(np.int64) - op.attributes["base"], -room, room)
        return {"master": change.astype(np.float32) * op.attributes["unit"]}

    def call(self, op: Operation) -> KernelCall:
        arguments = [op.inputs["bias"], op.output]
        return KernelCall("tp_bitfit_restore_f32", "tp_bitfit_params", _fields(op), arguments)


def _fields(op: Operation) -> dict[str, Any]:
    return {
        "channels": op.output.size,
        "room": op.attributes["room"],
        "base": CArray("int32_t", op.attributes["base"], "base"),
        "unit": CArray("float", op.attributes["unit"], "unit"),
    }
