"""ADD and SUB of tensors of one shape for Helium, four elements at a time."""

from __future__ import annotations

from collections.abc import Sequence

from tinypeft.ir import Operation
from tinypeft.kernels.base import Kernel
from tinypeft.kernels.mve.backend import offers
from tinypeft.ops import KernelCall
from tinypeft.ops.add import LEFT_SHIFT, Sum

#: The multiplier and shift of the operand of the larger scale: exactly 1/2.
_HALF = (1 << 30, 0)


@offers("ADD")
@offers("SUB")
def sums(op: Operation) -> Sequence[Kernel] | str:
    """One kernel."""
    assert isinstance(op.op, Sum)
    if any(tensor.shape != op.output.shape for tensor in op.inputs.values()):
        return "no kernel for operands that are broadcast"
    p = op.op.parameters(op)
    scaled = [i for i in (1, 2) if (p[f"input{i}_multiplier"], p[f"input{i}_shift"]) != _HALF]
    if len(scaled) == 2 or p["left_shift"] != LEFT_SHIFT:
        return "no kernel for operands of which neither has the larger scale"
    at = scaled[0] if scaled else 0
    fields = {
        "size": op.output.size,
        "input1_offset": p["input1_offset"],
        "input2_offset": p["input2_offset"],
        "scaled": at,
        "multiplier": p[f"input{at}_multiplier"] if at else 0,
        "shift": p[f"input{at}_shift"] if at else 0,
        **{name: p[name] for name in ("output_offset", "output_multiplier", "output_shift")},
        **{name: p[name] for name in ("activation_min", "activation_max")},
        "ties": int(p["activation_min"] < op.output.zero_point),
    }
    if (at and fields["shift"] >= 0) or fields["output_shift"] >= 0:
        return "no kernel for a multiplier of 1/2 or more"
    function = "tp_add_mve_s8" if op.op.sign > 0 else "tp_sub_mve_s8"
    call = KernelCall(function, "tp_add_mve_params", fields, [op.inputs["input1"], op.inputs["input2"], op.output])
    cycles = op.output.size * (14 + (4 if at else 0) + 2 * fields["ties"]) // 4 + 40
    return [Kernel("mve", "4 elements", call, ("mve/tp_add_mve.c",), cycles=cycles, code_bytes=500, in_order=True)]
