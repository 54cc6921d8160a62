"""The non-linearity of a bottleneck on its int16 hidden values: HIDDEN_ACTIVATION, its gradient, and HIDDEN_GATE."""

from __future__ import annotations

import numpy as np

from tinypeft import arithmetic
from tinypeft.arithmetic import F32
from tinypeft.ir import Operation, Tensor
from tinypeft.ops.base import BlockFloat, Builder, KernelCall, Op, Value, register
from tinypeft.ops.mantissas import narrowed, stored

#: 1 in the fixed point of a gate, and a half.
ONE, HALF = 1 << 15, 1 << 14
#: Largest slope of a hard swish: just below 3/2.
_SLOPE_MAX = 3 * HALF
#: One unit of hidden / 6 in steps of a gate.
_SIXTH = F32(ONE / 6)


def _sixths(hidden: np.ndarray, gate: np.ndarray) -> np.ndarray:
    """hidden / 6 in steps of a gate, int64."""
    return arithmetic.round_half_up_shift(hidden.astype(np.int64) * int(gate[0]), min(max(int(gate[1]), 0), 30))


@register
class HiddenActivation(Op):
    """max(hidden, 0), or with the operand `gate` hidden * min(max(hidden + 3, 0), 6) / 6, in the unit of `hidden`.

    `gate` int16 (2,) is (multiplier, shift), as HIDDEN_GATE gives it.
    """

    name = "HIDDEN_ACTIVATION"
    operands = ("hidden",)
    optional = ("gate",)
    source = "tp_bottleneck.c"

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        return {"output": op.inputs["hidden"].shape}

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        hidden = values["hidden"]
        if "gate" not in op.inputs:
            return {"output": np.maximum(hidden, np.int16(0))}
        gate = np.clip(_sixths(hidden, values["gate"]) + HALF, 0, ONE)
        return {"output": arithmetic.round_half_up_shift(hidden * gate, 15).astype(np.int16)}

    def vjp(self, op: Operation, d_output: Tensor, builder: Builder) -> dict[str, Tensor]:
        if not builder.needs(op.inputs["hidden"]):
            return {}
        d_hidden = builder.gradient(op.inputs["hidden"])
        # a ReLU's output tells as much as its input, which then need not be kept
        operands = {"hidden": op.output} if "gate" not in op.inputs else dict(op.inputs)
        builder.emit("HIDDEN_ACTIVATION_BACKWARD", op, {"d_output": d_output, **operands}, {"d_hidden": d_hidden})
        return {"hidden": d_hidden}

    def in_place(self, op: Operation) -> dict[str, tuple[str, ...]]:
        return {"output": ("hidden",)}

    def call(self, op: Operation) -> KernelCall:
        function = "tp_hidden_hard_swish_s16" if "gate" in op.inputs else "tp_hidden_relu_s16"
        arguments = [*op.inputs.values(), op.output]
        return KernelCall(function, "tp_hidden_activation_params", {"size": op.output.size}, arguments)


@register
class HiddenActivationBackward(Op):
    """d_hidden = d_output * slope at `hidden`; without a gate the slope is 1 where `hidden` is positive, else 0.

    Of the hard swish it is 0 up to -3, 1 from 3 on, else hidden / 3 + 1/2.
    """

    name = "HIDDEN_ACTIVATION_BACKWARD"
    operands = ("d_output", "hidden")
    optional = ("gate",)
    results = ("d_hidden",)
    source = "tp_bottleneck.c"

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        return {"d_hidden": op.inputs["hidden"].shape}

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        d_output: BlockFloat = values["d_output"]
        hidden = values["hidden"]
        mantissa = d_output.mantissa.astype(np.int64).reshape(hidden.shape)
        if "gate" not in op.inputs:
            return {"d_hidden": stored(op.output, mantissa * (hidden > 0), d_output.exponent)}
        sixths = _sixths(hidden, values["gate"])
        slope = np.where(sixths <= -HALF, 0, np.where(sixths >= HALF, ONE, 2 * sixths + HALF))
        return {"d_hidden": narrowed(op.output, mantissa * slope, d_output.exponent - 15, d_output.peak * _SLOPE_MAX)}

    def in_place(self, op: Operation) -> dict[str, tuple[str, ...]]:
        return {"d_hidden": ("d_output",)}

    def call(self, op: Operation) -> KernelCall:
        name = "tp_hidden_hard_swish_backward_s16" if "gate" in op.inputs else "tp_hidden_relu_backward_s16"
        arguments = [*op.inputs.values(), op.output]
        return KernelCall(name, "tp_hidden_activation_params", {"size": op.output.size}, arguments)


@register
class HiddenGate(Op):
    """(multiplier, shift) int16: hidden / 6 in steps of 2**-15 is hidden * multiplier >> shift.

    A step of the hidden value is worth the attribute `input_scale` * a_scale * 2**hidden_shift; where that is 3 or
    more, every value but 0 lies on a straight part, as it does with a shift of 0.
    """

    name = "HIDDEN_GATE"
    operands = ("a_scale", "hidden_shift")
    results = ("gate",)
    source = "tp_bottleneck_quantize.c"

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        return {"gate": (2,)}

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        with np.errstate(over="ignore", under="ignore"):
            unit = F32(op.attributes["input_scale"]) * values["a_scale"][0]
            sixth = unit * arithmetic.exp2i(int(values["hidden_shift"][0])) * _SIXTH
            exponent = arithmetic.float_exponent(sixth)
            multiplier = int(arithmetic.round_to_int(sixth * arithmetic.exp2i(14 - exponent)))
        return {"gate": np.array([min(multiplier, 32767), min(max(14 - exponent, 0), 30)], np.int16)}

    def call(self, op: Operation) -> KernelCall:
        fields = {"input_scale": F32(op.attributes["input_scale"])}
        arguments = [*op.inputs.values(), op.output]
        return KernelCall("tp_hidden_gate_f32", "tp_hidden_gate_params", fields, arguments)
