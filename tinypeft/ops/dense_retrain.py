"""DENSE_RETRAIN: plain SGD on a retrained dense layer of one position, and its quantisation, row by row."""

from __future__ import annotations

import numpy as np

from tinypeft import arithmetic
from tinypeft.arithmetic import F32
from tinypeft.ir import Operation
from tinypeft.ops.base import BlockFloat, KernelCall, Op, Value, register
from tinypeft.ops.dense_quantize import DenseQuantize, quantize_fields
from tinypeft.ops.update_rows import CHANGED


@register
class DenseRetrain(Op):
    """master[c,k] -= (source[k] - zero point) * (d_output[c] * (learning_rate * unit)), then DENSE_QUANTIZE.

    `unit` is 2**exponent of d_output times the attribute `scale`. Each product is one float32 operation; masters stay
    within +-2**20. Rows without a gradient are left out, and so are weights whose input is 0: their masters stay what
    they are, and a channel's scale grows in steps, so that their integers do too.
    """

    name = "DENSE_RETRAIN"
    operands = ("d_output", "source", "learning_rate", *DenseQuantize.operands)
    optional = DenseQuantize.optional
    results = ("master_filter", *DenseQuantize.results)
    dispensable = DenseQuantize.dispensable
    source = "tp_dense_retrain.c"

    def sources(self, op: Operation) -> tuple[str, ...]:
        return self.source, DenseQuantize.source

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        return {"master_filter": op.inputs["master_filter"].shape, **DenseQuantize.shapes(DenseQuantize(), op)}

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        d_output: BlockFloat = values["d_output"]
        master = values["master_filter"]
        x = values["source"].reshape(-1).astype(np.int32) - op.inputs["source"].zero_point
        mantissas = d_output.mantissa.reshape(-1)
        with np.errstate(over="ignore", invalid="ignore"):
            unit = arithmetic.exp2i(d_output.exponent) * F32(op.attributes["scale"])
            steps = mantissas.astype(np.float32) * (F32(values["learning_rate"]) * unit)
            moved = arithmetic.limit_float(master - x.astype(np.float32) * steps[:, None])
        touched = (mantissas != 0)[:, None] & (x != 0)
        master = np.where(touched, moved, master)
        changed = np.where(touched.any(1), np.maximum(values["row_changed"], CHANGED), values["row_changed"])
        quantized = DenseQuantize.evaluate(
            DenseQuantize(), op, values | {"master_filter": master, "row_changed": changed}
        )
        return {"master_filter": master, **quantized}

    def scratch_bytes(self, op: Operation) -> int:
        return 6 * op.inputs["source"].size

    def call(self, op: Operation) -> KernelCall:
        inputs = op.inputs
        fields = {
            "quantize": quantize_fields(op, inputs["master_filter"]),
            "input_offset": -inputs["source"].zero_point,
            "scale": F32(op.attributes["scale"]),
        }
        given = ("d_output", "source", "learning_rate", "master_filter", "master_bias", "logit_range")
        arguments = [inputs.get(name) for name in given]
        arguments += [op.outputs.get(name) for name in DenseQuantize.results]
        return KernelCall("tp_dense_retrain_f32", "tp_dense_retrain_params", fields, arguments)
