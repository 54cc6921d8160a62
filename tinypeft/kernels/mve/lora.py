"""LORA_DOWN for Helium: 16 inputs of four rows of A at a time."""

from __future__ import annotations

from collections.abc import Sequence

from tinypeft.ir import Operation
from tinypeft.kernels.base import Kernel
from tinypeft.kernels.mve.backend import offers
from tinypeft.kernels.mve.requantization import multiple
from tinypeft.ops import KernelCall
from tinypeft.ops.window import Window


@offers("LORA_DOWN")
def lora_down(op: Operation) -> Sequence[Kernel] | str:
    """One kernel."""
    window: Window = op.attributes["window"]
    count, rank = window.kernel_h * window.kernel_w * window.input_c, window.output_c
    row_bytes = multiple(count, 16)
    fields = {
        "window": window.fields(),
        "padding": op.inputs["input"].zero_point,
        "row_bytes": row_bytes,
        "block": 1,
        "direct": 0,
        "rank": rank,
        "output": {"output_offset": 0, "activation_min": 0, "activation_max": 0, "ties": 0},
    }
    arguments = [op.inputs["input"], op.inputs["lora_A"], op.inputs["hidden_shift"], op.output]
    call = KernelCall("tp_lora_down_mve_s8", "tp_conv_mve_params", fields, arguments)
    each = 60 + 10 * window.kernel_h + -(-rank // 4) * (10 * row_bytes // 16 + 40)
    return [
        Kernel(
            "mve",
            "4 rows of A x 16 inputs",
            call,
            ("mve/tp_lora_down_mve.c", "mve/tp_gather_mve.c"),
            scratch_bytes=row_bytes + 16 + 4 * multiple(rank, 4),
            cycles=window.output_h * window.output_w * each,
            code_bytes=500,
        )
    ]
