"""FULLY_CONNECTED, DENSE_LOGITS and LORA_DOWN of one position, of the `dsp` backend, over rows that lie as they are.

Rows need not be constant: those of a retrained classifier, of weights merged in RAM, of a LoRA's A.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tinypeft.ir import Operation
from tinypeft.kernels.base import Kernel, Target
from tinypeft.kernels.dsp.rows_routine import ROWS, RowDots
from tinypeft.ops.base import CFunction
from tinypeft.ops.fully_connected import dense_window
from tinypeft.ops.weighted import bias_or_zeros, folds_offset, lora_rank
from tinypeft.ops.window import Window

_SOURCE = "dsp/tp_dense_rows_dsp.c"
_FUNCTIONS = {
    "FULLY_CONNECTED": "tp_fully_connected_rows_dsp_s8",
    "DENSE_LOGITS": "tp_dense_logits_rows_dsp_s8",
}
#: Which argument the bias is
_BIAS = 2
#: Sums that are held at once; cycles of a channel in front of and behind its sum
_HELD = 24
_CHANNEL = {"FULLY_CONNECTED": 25, "DENSE_LOGITS": 44, "LORA_DOWN": 25}
#: Words of four inputs in a loop, and the most without one
_UNROLLS, _STRAIGHT = (4, 8), 16


def offers(op: Operation, target: Target) -> list[Kernel] | str:
    """FULLY_CONNECTED and DENSE_LOGITS of any filter, bias, multipliers and LoRA."""
    del target
    window = dense_window(op)
    offset = 0 if folds_offset(op.inputs["filter"]) else -op.inputs["input"].zero_point
    call = op.op.call(op)
    assert call is not None
    column = 0 if op.op.scratch_bytes(op) else 1
    lora = lora_rank(op) and 20 + 4 * lora_rank(op)
    kernels = []
    for routine in _routines(window.input_c, window.output_c):
        rows = _rows(routine, window.output_c, offset)
        arguments = call.arguments[: len(call.arguments) - column]
        arguments[_BIAS] = arguments[_BIAS] or bias_or_zeros(op)
        kernels.append(
            Kernel(
                backend="dsp",
                form=f"dense, {routine.rows} rows as they lie",
                call=replace(
                    call,
                    function=_FUNCTIONS[op.kind],
                    params="tp_dense_rows_dsp_params",
                    fields={"layer": call.fields, "rows": rows},
                    arguments=arguments,
                ),
                sources=(_SOURCE, "tp_lora_add.c"),
                routines=(routine.routine(),),
                cycles=window.input_h * (_cycles(routine, op.kind, window.output_c) + window.output_c * lora),
                code_bytes=routine.routine().nbytes + 550,
                table_bytes=sum(t.nbytes for t in op.inputs.values() if t.data is not None),
                in_order=True,
            )
        )
    return kernels or f"no kernel for rows of {window.input_c} elements: loads do not reach them"


def lora_down(op: Operation, target: Target) -> list[Kernel] | str:
    """LORA_DOWN of a pointwise window at one position."""
    del target
    window: Window = op.attributes["window"]
    rank = window.output_c
    call = op.op.call(op)
    assert call is not None
    kernels = [
        Kernel(
            backend="dsp",
            form=f"{routine.rows} rows as they lie",
            call=replace(
                call,
                function="tp_lora_down_rows_dsp_s8",
                params="tp_dense_rows_dsp",
                fields=_rows(routine, rank, -op.inputs["input"].zero_point),
            ),
            sources=(_SOURCE, "tp_lora_add.c"),
            routines=(routine.routine(),),
            cycles=_cycles(routine, op.kind, rank),
            code_bytes=routine.routine().nbytes + 330,
        )
        for routine in _routines(window.input_c, rank)
    ]
    return kernels or f"no kernel for rows of {window.input_c} elements: loads do not reach them"


def _routines(size: int, count: int) -> list[RowDots]:
    """Those of rows of `size` elements, `count` of them."""
    words = size // 4
    unrolls = {words} if words <= _UNROLLS[0] else {*_UNROLLS, *((words,) if words <= _STRAIGHT else ())}
    found = [RowDots(size, min(count, ROWS), unroll) for unroll in sorted(unrolls)]
    return [routine for routine in found if routine.fits]


def _rows(routine: RowDots, count: int, offset: int) -> dict[str, Any]:
    """The fields of tp_dense_rows_dsp."""
    return {
        "size": routine.size, "count": count, "together": routine.rows, "input_offset": offset,
        "dots": CFunction(routine.routine().name),
    }  # fmt: skip


def _cycles(routine: RowDots, kind: str, count: int) -> int:
    """Of all rows."""
    calls = -(-count // _HELD) + (1 if count % routine.rows else 0)
    return 60 + routine.cycles(-(-count // routine.rows)) + calls * 50 + count * _CHANNEL[kind]
