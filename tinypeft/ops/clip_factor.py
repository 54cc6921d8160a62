"""CLIP_FACTOR: what the mean gradient is multiplied by so that its norm stays within a limit."""

from __future__ import annotations

import numpy as np

from tinypeft.arithmetic import F32, sqrt_f32
from tinypeft.ir import Operation
from tinypeft.ops.base import CArray, KernelCall, Op, Value, register

#: consecutive elements whose squares are summed before they join the total, which bounds the rounding
PART = 256


@register
class ClipFactor(Op):
    """factor = min(1, clip_norm / norm), where norm = sqrt(sum of the squares of all `sum`s) / count.

    Squares are added one by one to the sum of their part, PART consecutive elements of a tensor; these sums, in order
    of tensors and parts, to the total. Where the norm is not a number, or count is not above 0, the factor is 1.
    """

    name = "CLIP_FACTOR"
    operands = ("count",)
    variadic = "sum"
    results = ("factor",)
    source = "tp_clip.c"

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        return {"factor": (1,)}

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        count, clip_norm = int(values["count"]), F32(op.attributes["clip_norm"])
        total = F32(0.0)
        with np.errstate(all="ignore"):
            for name in self._sums(op):
                flat = values[name].reshape(-1)
                parts = np.pad(flat, (0, -flat.size % PART)).reshape(-1, PART)
                for part in np.cumsum(parts * parts, axis=1, dtype=np.float32)[:, -1]:  # one by one, in order
                    total = total + part
            norm = F32(sqrt_f32(np.array(total)) / F32(count)) if count > 0 else F32(0.0)
            factor = clip_norm / norm if norm > clip_norm else F32(1.0)
        return {"factor": np.array([factor], np.float32)}

    def call(self, op: Operation) -> KernelCall:
        sums = tuple(op.inputs[name] for name in self._sums(op))
        fields = {
            "tensors": len(sums),
            "size": CArray("int32_t", np.array([t.size for t in sums], np.int32), "size"),
            "clip_norm": F32(op.attributes["clip_norm"]),
        }
        return KernelCall("tp_clip_factor_f32", "tp_clip_params", fields, [op.inputs["count"], sums, op.output])

    def _sums(self, op: Operation) -> list[str]:
        return [name for name in op.inputs if name != "count"]
