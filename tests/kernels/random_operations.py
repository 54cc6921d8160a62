"""Random operations with values: odd shapes and windows, any channel count, extreme scales and zero points.

operation, values = random_operation(rng, "CONV_2D")        values by operand name, constants included
portable_kernel(operation)                                  what its portable kernel is as a Kernel
"""

from __future__ import annotations

from typing import Any

import numpy as np
from cases import CASES, random_int8, random_scale, random_zero_point
from weighted_cases import WEIGHTED_CASES

from tinypeft.ir import Operation, Purpose, Tensor
from tinypeft.kernels import Kernel
from tinypeft.ops import OPS
from tinypeft.ops.base import Value
from tinypeft.ops.window import Padding, Window, make_window

ACTIVATIONS = ("NONE", "RELU", "RELU", "RELU6", "RELU_N1_TO_1")


def random_operation(rng: np.random.Generator, kind: str, **fixed: Any) -> tuple[Operation, dict[str, Value]]:
    """An operation of any operator that the operators' own tests draw; half of those with weights are wider.

    `fixed` are keyword arguments of `conv_2d`, `depthwise` or `dense`; then it is one of those.
    """
    if kind in _WIDE and (fixed or rng.random() < 0.5):
        operation = _WIDE[kind](rng, **fixed)
    else:
        operation = (CASES[kind](rng, kind=kind) if kind in CASES else WEIGHTED_CASES[kind](rng)).operation()
    return operation, random_values(rng, operation)


def random_values(rng: np.random.Generator, operation: Operation) -> dict[str, Value]:
    """Values of all operands: constants as they are, int8 activations of the whole range or of its ends alone."""
    values: dict[str, Value] = {}
    for name, tensor in operation.inputs.items():
        values[name] = tensor.data if tensor.data is not None else random_int8(rng, tensor.shape)
    return values


def portable_kernel(operation: Operation) -> Kernel:
    """The kernel that every operation has."""
    call = operation.op.call(operation)
    assert call is not None
    scratch = operation.op.scratch_bytes(operation)
    return Kernel("portable", "portable C", call, operation.op.sources(operation), scratch_bytes=scratch, in_order=True)


def int8_activation(name: str, shape: tuple[int, ...], rng: np.random.Generator, scale: float | None = None) -> Tensor:
    """An activation of random quantisation."""
    step = np.array([random_scale(rng) if scale is None else scale], np.float32)
    return Tensor(name, shape, "int8", Purpose.ACTIVATION, step, random_zero_point(rng))


def _weights(rng: np.random.Generator, shape: tuple[int, ...], scales: np.ndarray) -> Tensor:
    style = rng.integers(5)
    data = rng.integers(-127, 128, shape).astype(np.int8)
    if style == 0:
        data = rng.choice(np.array([-127, 127], np.int8), shape)
    elif style == 1:
        data = (data * (rng.random(shape) < 0.1)).astype(np.int8)
    elif style == 2:
        data = rng.integers(-128, 128, shape).astype(np.int8)
    return Tensor("w", shape, "int8", Purpose.FROZEN_WEIGHT, scales, 0, data)


def _layer(
    rng: np.random.Generator, kind: str, x: Tensor, shape: tuple[int, ...], output: tuple[int, ...], **attributes: Any
) -> Operation:
    """The operation with random filters of `shape`, a bias three times in four, and a random output quantisation."""
    channels = output[-1]
    fan_in = int(np.prod(shape)) // channels
    spread = rng.uniform(-2, 2, channels if kind != "FULLY_CONNECTED" or rng.random() < 0.5 else 1)
    scales = (random_scale(rng) * np.exp(spread)).astype(np.float32)
    operands = {"input": x, "filter": _weights(rng, shape, scales)}
    if rng.random() < 0.75:
        reach = int(rng.choice([1, 1000, 100000]))
        data = rng.integers(-reach, reach + 1, channels).astype(np.int32)
        operands["bias"] = Tensor("b", (channels,), "int32", Purpose.FROZEN_WEIGHT, None, 0, data)
    assert x.scale is not None
    unit = float(x.scale[0] * scales.mean())
    style = rng.integers(8)
    if style == 0:  # every sum is a tie
        scale = float(2 * np.float32(x.scale[0] * scales[0]))
    elif style == 1:  # outputs saturate by far, shifts are to the left
        scale = unit * 2.0 ** rng.integers(-16, 2)
    else:
        scale = unit * np.sqrt(fan_in) * np.exp(rng.uniform(0, 6))
    y = int8_activation("y", output, rng, max(scale, 1e-8))
    attributes["activation"] = str(rng.choice(ACTIVATIONS))
    return Operation(OPS[kind], kind.lower(), operands, {"output": y}, attributes)


def _channels(rng: np.random.Generator) -> int:
    return int(rng.choice([rng.integers(1, 13), rng.integers(1, 65), rng.integers(60, 261)], p=[0.4, 0.45, 0.15]))


class _Options:
    """What `make_window` reads."""

    def __init__(self, stride: tuple[int, int], dilation: tuple[int, int], padding: int | Padding):
        self.strideH, self.strideW = stride
        self.dilationHFactor, self.dilationWFactor = dilation
        self.padding = padding if isinstance(padding, int) else 0
        if not isinstance(padding, int):
            self.explicit_padding = padding


def random_window(
    rng: np.random.Generator, input_c: int, output_c: int, kernel: tuple[int, int] | None = None
) -> Window:
    """A window over a random image; explicit padding, dilation and strides beyond the kernel among them."""
    h, w = (int(n) for n in rng.integers(1, 14, 2))
    if kernel is None:
        kernel = (1, 1) if rng.random() < 0.2 else (int(rng.integers(1, 6)), int(rng.integers(1, 6)))
    stride = (1, 1) if rng.random() < 0.5 else (int(rng.integers(1, 4)), int(rng.integers(1, 4)))
    dilation = (1, 1) if rng.random() < 0.7 else (int(rng.integers(1, 4)), int(rng.integers(1, 4)))
    padding: int | Padding = int(rng.integers(2))
    if rng.random() < 0.15:
        top, bottom, left, right = (int(n) for n in rng.integers(0, 3, 4))
        padding = ((top, bottom), (left, right))
    front = padding if isinstance(padding, tuple) else ((0, 0), (0, 0))
    if padding != 0:
        h = max(h, (kernel[0] - 1) * dilation[0] + 1 - sum(front[0]))
        w = max(w, (kernel[1] - 1) * dilation[1] + 1 - sum(front[1]))
    return make_window(_Options(stride, dilation, padding), (1, h, w, input_c), output_c, kernel)


def conv_2d(rng: np.random.Generator, window: Window | None = None) -> Operation:
    """CONV_2D without groups, of any number of channels."""
    if window is None:
        kernel = (1, 1) if rng.random() < 0.4 else None
        few = kernel is None and rng.random() < 0.7
        window = random_window(rng, int(rng.integers(1, 20)) if few else _channels(rng), _channels(rng), kernel)
    x = int8_activation("x", window.input_shape, rng)
    shape = (window.output_c, window.kernel_h, window.kernel_w, window.input_c)
    return _layer(rng, "CONV_2D", x, shape, window.output_shape, window=window)


def depthwise(rng: np.random.Generator, window: Window | None = None) -> Operation:
    """DEPTHWISE_CONV_2D of any number of channels, the depth multiplier mostly 1."""
    if window is None:
        multiplier = 1 if rng.random() < 0.8 else int(rng.integers(2, 4))
        channels = _channels(rng)
        kernel = (3, 3) if rng.random() < 0.5 else None
        window = random_window(rng, channels, channels * multiplier, kernel)
    x = int8_activation("x", window.input_shape, rng)
    shape = (1, window.kernel_h, window.kernel_w, window.output_c)
    return _layer(rng, "DEPTHWISE_CONV_2D", x, shape, window.output_shape, window=window)


def dense(rng: np.random.Generator, rows: int | None = None, inputs: int = 0, channels: int = 0) -> Operation:
    """FULLY_CONNECTED of one row or a few."""
    rows = rows or (1 if rng.random() < 0.7 else int(rng.integers(2, 6)))
    inputs, channels = inputs or _channels(rng), channels or _channels(rng)
    x = int8_activation("x", (rows, inputs), rng)
    return _layer(rng, "FULLY_CONNECTED", x, (channels, inputs), (rows, channels), output_shape=(rows, channels))


_WIDE = {"CONV_2D": conv_2d, "DEPTHWISE_CONV_2D": depthwise, "FULLY_CONNECTED": dense}
