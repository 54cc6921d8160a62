"""FULLY_CONNECTED of the `dsp` backend with a LoRA that is not merged: sums start from what it adds.

As with convolutions it is limited to so many bits that whatever lies beyond clamps the output.
"""

from __future__ import annotations

from tinypeft.ir import Operation
from tinypeft.kernels.base import Kernel, Target
from tinypeft.kernels.dsp.conv import refusal
from tinypeft.kernels.dsp.dense import dense_routine
from tinypeft.kernels.dsp.limited import Limited, limited_layer
from tinypeft.kernels.dsp.lora import over_rows
from tinypeft.kernels.dsp.lora_start import MOST
from tinypeft.kernels.dsp.packing import BLOCK, split_starts, stream, widened_order
from tinypeft.ops.base import CArray, CFunction, KernelCall
from tinypeft.ops.fully_connected import dense_window
from tinypeft.ops.weighted import LORA_OPERANDS, lora_rank
from tinypeft.ops.window import Window

#: Groups of four inputs in a loop, and the most without one
_UNROLL, _STRAIGHT = 8, 32
#: Cycles of the addends of four channels, and what each four ranks add to that
_BLOCK, _FOUR_RANKS = 80, 50


def offers(op: Operation, target: Target) -> list[Kernel] | str:
    """One that reads inputs as they lie; over several rows also that of pointwise convolutions."""
    del target
    reason = refusal(op, lora=True)
    if reason is not None:
        return reason
    if lora_rank(op) > MOST:
        return f"no kernel for a rank above {MOST}"
    limited = limited_layer(op)
    if isinstance(limited, str):
        return limited
    window = dense_window(op)
    several = [over_rows(op, limited, window)] if window.input_h > 1 else []
    groups = window.input_c // 4
    unrolls = {min(_UNROLL, groups), groups if groups <= _STRAIGHT else _UNROLL}
    return [*several, *(_dense(op, limited, window, unroll) for unroll in sorted(unrolls))]


def _dense(op: Operation, limited: Limited, window: Window, unroll: int) -> Kernel:
    words = stream(limited.layer, widened_order(limited.layer.filters.reshape(window.output_c, -1)))
    routine, call_cycles, block_cycles = dense_routine(op, limited.layer, window, unroll, started=True)
    base, rest = split_starts(words, window.output_c)
    rank, blocks = lora_rank(op), -(-window.output_c // BLOCK)
    fields = {
        "layer": {
            "positions": window.input_h, "input_c": window.input_c, "output_c": window.output_c,
            "word_count": len(rest), "words": CArray("int32_t", rest, "words"), "dense": CFunction(routine.name),
        },
        "rank": rank, "limit": 1 << (limited.bits - 1), "base": CArray("int32_t", base, "base"),
    }  # fmt: skip
    arguments = [op.inputs["input"], *(op.inputs[name] for name in LORA_OPERANDS), op.output]
    each = call_cycles + 60 + blocks * (block_cycles + _BLOCK + _FOUR_RANKS * -(-rank // 4))
    return Kernel(
        backend="dsp",
        form=f"dense with a LoRA, {'looped' if window.input_c // 4 >= 2 * unroll > 0 else 'straight'}, 4 channels",
        call=KernelCall("tp_dense_lora_dsp_s8", "tp_dense_lora_dsp_params", fields, arguments),
        sources=("dsp/tp_dense_lora_dsp.c",),
        routines=(routine,),
        scratch_bytes=4 * BLOCK * blocks,
        cycles=20 + window.input_h * each,
        code_bytes=routine.nbytes + 1000,
        table_bytes=words.nbytes,
        in_order=True,
    )
