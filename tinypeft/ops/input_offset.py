"""INPUT_OFFSET: a learned offset of the model's input, its quantiser, and its gradient."""

from __future__ import annotations

import numpy as np

from tinypeft import arithmetic
from tinypeft.arithmetic import F32
from tinypeft.ir import Operation, Purpose, Tensor
from tinypeft.ops.activation import INT8_MAX, INT8_MIN, saturate
from tinypeft.ops.base import Builder, KernelCall, Op, RowFunction, Value, register
from tinypeft.ops.parameter_gradient import ParameterGradient


def _sum(op: Operation, values: dict[str, Value]) -> np.ndarray:
    """input + offset, int64 (positions, size of the offset)."""
    x = values["input"].astype(np.int64).reshape(-1, op.inputs["offset"].size)
    return x + values["offset"].astype(np.int64).reshape(-1)


def _fields(op: Operation) -> dict[str, int]:
    count = op.inputs["offset"].size
    return {"positions": op.inputs["input"].size // count, "count": count}


@register
class InputOffset(Op):
    """output = clamp(input + offset), int8 in steps of the input's scale; an offset of one a channel is broadcast."""

    name = "INPUT_OFFSET"
    operands = ("input", "offset")
    source = "tp_input_offset.c"

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        return {"output": op.inputs["input"].shape}

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        return {"output": saturate(_sum(op, values)).reshape(op.output.shape)}

    def vjp(self, op: Operation, d_output: Tensor, builder: Builder) -> dict[str, Tensor]:
        if not builder.needs(op.inputs["offset"]):
            return {}
        mask = Tensor(f"{op.output.name}_inside", op.output.shape, "bits", Purpose.ACTIVATION)
        builder.emit("INPUT_OFFSET_MASK", op, dict(op.inputs), {"mask": mask})
        d_sum = builder.gradient(op.output)
        builder.emit("REQUANTIZE_BACKWARD", op, {"d_output": d_output, "mask": mask}, {"d_acc": d_sum})
        kind = "INPUT_OFFSET_BACKWARD" if op.inputs["offset"].size == op.output.size else "BIAS_BACKWARD"
        d_offset = builder.parameter_gradient(op.inputs["offset"])
        builder.emit(kind, op, {"d_output": d_sum}, {"gradient": d_offset})
        return {"offset": d_offset}

    def in_place(self, op: Operation) -> dict[str, tuple[str, ...]]:
        return {"output": ("input",)}

    def call(self, op: Operation) -> KernelCall:
        arguments = [op.inputs["input"], op.inputs["offset"], op.output]
        return KernelCall("tp_input_offset_s8", "tp_input_offset_params", _fields(op), arguments)


@register
class InputOffsetMask(Op):
    """One bit an element: 1 where INPUT_OFFSET does not clamp.

    A CLAMP_MASK of its output would also leave out what the sensor itself gives as -128 or 127, such as a black
    background, so that no offset would be learned there.
    """

    name = "INPUT_OFFSET_MASK"
    operands = ("input", "offset")
    results = ("mask",)
    source = "tp_input_offset.c"

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        return {"mask": op.inputs["input"].shape}

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        total = _sum(op, values).reshape(-1)
        return {"mask": np.packbits((total >= INT8_MIN) & (total <= INT8_MAX), bitorder="little")}

    def call(self, op: Operation) -> KernelCall:
        arguments = [op.inputs["input"], op.inputs["offset"], op.output]
        return KernelCall("tp_input_offset_mask_s8", "tp_input_offset_params", _fields(op), arguments)


@register
class InputOffsetBackward(ParameterGradient):
    """The gradient of an offset of every element, (rows,row size): `d_output` as it is."""

    name = "INPUT_OFFSET_BACKWARD"
    operands = ("d_output",)
    source = "tp_input_offset.c"

    def reach(self, op: Operation) -> int:
        return 1

    def total(self, op: Operation, values: dict[str, Value]) -> np.ndarray:
        return values["d_output"].mantissa.astype(np.int64)

    def row_function(self, op: Operation) -> RowFunction:
        fields = {"count": op.output.size // op.output.shape[0]}
        return RowFunction("tp_input_offset_gradient_s32", "tp_input_offset_gradient_params", fields)


@register
class InputOffsetQuantize(Op):
    """offset = the master in steps of the attribute `scale`, limited to [-127, 127]."""

    name = "INPUT_OFFSET_QUANTIZE"
    operands = ("master",)
    results = ("offset",)
    source = "tp_input_offset_quantize.c"

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        return {"offset": op.inputs["master"].shape}

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        with np.errstate(over="ignore"):
            steps = arithmetic.limit_float(values["master"]) / F32(op.attributes["scale"])
        return {"offset": np.clip(arithmetic.round_to_int(steps), -127, 127).astype(np.int8)}

    def call(self, op: Operation) -> KernelCall:
        fields = {"size": op.output.size, "scale": F32(op.attributes["scale"])}
        arguments = [op.inputs["master"], op.output]
        return KernelCall("tp_input_offset_quantize_f32", "tp_input_offset_quantize_params", fields, arguments)


@register
class InputOffsetRestore(Op):
    """The master that an offset stands for."""

    name = "INPUT_OFFSET_RESTORE"
    operands = ("offset",)
    results = ("master",)
    source = "tp_input_offset_quantize.c"

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        return {"master": op.inputs["offset"].shape}

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        return {"master": values["offset"].astype(np.float32) * F32(op.attributes["scale"])}

    def call(self, op: Operation) -> KernelCall:
        fields = {"size": op.output.size, "scale": F32(op.attributes["scale"])}
        arguments = [op.inputs["offset"], op.output]
        return KernelCall("tp_input_offset_restore_f32", "tp_input_offset_quantize_params", fields, arguments)
