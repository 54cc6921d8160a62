"""COUNT_RIGHT: how many decisions of a classifier meet what they are compared with."""

from __future__ import annotations

import numpy as np

from tinypeft.ir import Operation
from tinypeft.ops.base import KernelCall, Op, Value, register
from tinypeft.ops.loss import ONE_Q16


@register
class CountRight(Op):
    """right (1,) int32 of `logits` (...,N) int32.

    Against a label it is 1 where the first of the largest logits is the label's, else 0; against a vector (N,) in
    Q16.16 the number of logits that are above 0 where the target is above a half, and not where it is not.
    """

    name = "COUNT_RIGHT"
    operands = ("logits", "target")
    results = ("right",)
    source = "tp_count_right.c"

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        return {"right": (1,)}

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        logits, target = values["logits"].reshape(-1), np.asarray(values["target"])
        if op.inputs["target"].shape:
            right = int(np.sum((logits > 0) == (target.reshape(-1) > ONE_Q16 // 2)))
        else:
            right = int(logits.argmax() == int(target))
        return {"right": np.array([right], np.int32)}

    def call(self, op: Operation) -> KernelCall:
        function = "tp_count_right_vector_s32" if op.inputs["target"].shape else "tp_count_right_label_s32"
        fields = {"size": op.inputs["logits"].size}
        arguments = [op.inputs["logits"], op.inputs["target"], op.output]
        return KernelCall(function, "tp_count_right_params", fields, arguments)
