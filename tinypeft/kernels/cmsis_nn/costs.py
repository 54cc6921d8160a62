"""What a call of CMSIS-NN costs: estimates by counts of its functions, fitted to random operations on emulated cores.

With DSP they are cycles of a Cortex-M4, else instructions; of most operations they are within 15 %.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from tinypeft.ir import Operation
from tinypeft.kernels.base import Kernel
from tinypeft.kernels.cmsis_nn.cores import Extension
from tinypeft.ops.base import CArray
from tinypeft.ops.window import Window

_NONE, _DSP, _MVE = Extension.NONE, Extension.DSP, Extension.MVE
#: function -> for each extension what it takes a call, a position, an output, a tap that is read, a multiplication
_COUNTS: dict[str, dict[Extension, tuple[float, ...]]] = {
    "arm_convolve_s8": {
        _NONE: (1420, 352, 42.6, 7.54, 2.46),
        _DSP: (2320, 555, 59, 5.76, 1.91),
        _MVE: (964, 215, 15.5, 0.396, 0.174),
    },
    "arm_convolve_1x1_s8": {
        _NONE: (1490, 0, 35.7, 0, 3.44),
        _DSP: (2040, 78.5, 49.9, 0, 2.97),
        _MVE: (0, 0, 16.4, 0, 0.269),
    },
    "arm_convolve_1x1_s8_fast": {
        _NONE: (979, 19.8, 35.5, 0, 2.59),
        _DSP: (1680, 25.9, 49.4, 0, 1.75),
        _MVE: (299, 8.5, 15.8, 0.05, 0.16),
    },
    "arm_convolve_1_x_n_s8": {_MVE: (964, 8.5, 15.8, 0.05, 0.174)},
    "arm_depthwise_conv_3x3_s8": {_NONE: (19, 120, 0, 8.5, 0), _DSP: (0, 304, 0, 7.38, 0)},
    "arm_depthwise_conv_s8_opt": {
        _NONE: (0, 108, 153, 9.9, 0),
        _DSP: (1570, 431, 30.9, 10.2, 0),
        _MVE: (610, 219, 3.34, 1.63, 0),
    },
    "arm_depthwise_conv_s8": {
        _NONE: (0, 2.1, 67.5, 16.2, 0),
        _DSP: (0, 0, 55.5, 37.3, 0.952),
        _MVE: (382, 31.9, 39.6, 16.1, 0),
    },
    "arm_fully_connected_s8": {
        _NONE: (124, 121, 35.3, 0, 3.47),
        _DSP: (167, 170, 48.8, 0, 2.6),
        _MVE: (139, 144, 16.4, 0, 0.479),
    },
    "arm_fully_connected_per_channel_s8": {
        _NONE: (150, 142, 36.9, 0, 3.47),
        _DSP: (153, 196, 55.1, 0, 2.61),
        _MVE: (58, 237, 21, 0, 0.455),
    },
    "arm_elementwise_add_s8": {_NONE: (97, 0, 84, 0, 0), _DSP: (144, 0, 71.5, 0, 0), _MVE: (127, 0, 13.2, 0, 0)},
    "arm_elementwise_mul_s8": {_NONE: (46, 0, 36, 0, 0), _DSP: (131, 0, 30.2, 0, 0), _MVE: (76, 0, 6.5, 0, 0)},
    "arm_avgpool_s8": {
        _NONE: (177, 21.2, 47.4, 12.3, 0),
        _DSP: (241, 112, 29, 7.74, 0),
        _MVE: (211, 269, 0, 1.18, 0),
    },
    "arm_max_pool_s8": {
        _NONE: (198, 125, 1.7, 7.46, 0),
        _DSP: (275, 182, 0, 9.32, 0),
        _MVE: (229, 72, 0, 3.08, 0),
    },
    # of values that are near to the largest; of others less
    "arm_softmax_s8": {_NONE: (400, 0, 524, 0, 0), _DSP: (566, 11, 599, 0, 0), _MVE: (473, 0, 562, 0, 0)},
}
#: operator -> bytes of code that a call of it brings along, with no extension, DSP, MVE
_CODE_BYTES = {
    "CONV_2D": (5956, 7564, 3928),
    "DEPTHWISE_CONV_2D": (3900, 5532, 9948),
    "FULLY_CONNECTED": (1900, 3900, 1850),
    "ADD": (460, 1416, 500),
    "MUL": (216, 768, 288),
    "AVERAGE_POOL_2D": (684, 736, 1288),
    "MAX_POOL_2D": (1212, 1240, 852),
    "SOFTMAX": (3736, 3740, 4224),
}


def with_costs(kernel: Kernel, op: Operation, extension: Extension) -> Kernel:
    """The kernel with its costs filled in."""
    return dataclasses.replace(
        kernel,
        cycles=round(float(np.dot(_COUNTS[kernel.form][extension], _quantities(op)))),
        code_bytes=_CODE_BYTES[op.kind][list(Extension).index(extension)],
        table_bytes=sum(array.values.nbytes for array in kernel.call.arguments if isinstance(array, CArray)),
    )


def _quantities(op: Operation) -> tuple[int, ...]:
    """Calls, positions, outputs, taps read, multiplications."""
    window: Window | None = op.attributes.get("window")
    if window is None:
        return 1, op.output.size // op.output.shape[-1], op.output.size, 0, op.op.macs(op)
    positions = window.output_h * window.output_w
    taps = positions * window.kernel_h * window.kernel_w * window.input_c
    return 1, positions, op.output.size, taps, op.op.macs(op)
