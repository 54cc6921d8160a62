"""Random TFLite nodes of the operators with weights: odd shapes and windows, extreme zero points, scales on ties."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from cases import ACTIVATIONS, random_scale, random_shape, random_zero_point
from tflite_builder import (
    Node,
    conv_2d,
    depthwise_conv_2d,
    fully_connected,
    int8_tensor,
    int32_constant,
    transpose_conv,
)

from tinypeft.ir import Tensor


def _weights(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Uniform int8, or only the extremes, so that accumulators get large, or mostly zeros."""
    style = rng.integers(4)
    if style == 0:
        return rng.choice(np.array([-127, 127], np.int8), shape)
    values = rng.integers(-127, 128, shape).astype(np.int8)
    return values * (rng.random(shape) < 0.1) if style == 1 else values


def _scales(rng: np.random.Generator, channels: int, per_channel: bool) -> np.ndarray:
    """Filter scales, apart by up to 2**10 between channels."""
    spread = rng.uniform(-3.5, 3.5, channels if per_channel else 1)
    return (random_scale(rng) * np.exp(spread)).astype(np.float32)


def _output_scale(rng: np.random.Generator, x: Tensor, scales: np.ndarray, fan_in: int) -> float:
    """So that outputs fill int8; or that they saturate by far, shifts being to the left; or that every sum is a tie."""
    assert x.scale is not None
    unit = x.scale[0] * scales.mean()
    style = rng.integers(6)
    if style == 0:
        return float(2 * np.float32(x.scale[0] * scales[0]))
    if style == 1:
        return float(max(unit * 2.0 ** rng.integers(-18, 2), 1e-8))  # LiteRT refuses RELU6 with less
    return float(unit * np.sqrt(fan_in) * np.exp(rng.uniform(0, 6)))


def _bias(rng: np.random.Generator, x: Tensor, scales: np.ndarray, channels: int) -> Tensor:
    assert x.scale is not None
    reach = int(rng.choice([1, 1000, 100000]))
    return int32_constant("bias", rng.integers(-reach, reach + 1, channels), x.scale[0] * scales)


def _perhaps(rng: np.random.Generator, bias: Tensor) -> Tensor | None:
    """The bias, or one time in four none."""
    return bias if rng.random() < 0.75 else None


def _window(rng: np.random.Generator, h: int, w: int) -> tuple[tuple[int, int], dict[str, int], tuple[int, int]]:
    """(kernel, options, output size); kernels larger than the image and strides beyond the kernel among them."""
    most = (5, 4) if rng.random() < 0.8 else (12, 8)
    kernel = (1, 1) if rng.random() < 0.2 else tuple(int(n) for n in rng.integers(1, most[0], 2))
    stride = tuple(int(n) for n in rng.integers(1, most[1], 2))
    dilation = tuple(int(n) for n in rng.integers(1, 4, 2)) if rng.random() < 0.3 else (1, 1)
    padding = int(rng.integers(2))
    extent = tuple((k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True))
    if padding == 1 and (extent[0] > h or extent[1] > w):
        padding = 0
    output = tuple(
        -(-size // s) if padding == 0 else (size - e) // s + 1
        for size, s, e in zip((h, w), stride, extent, strict=True)
    )
    options = {
        "padding": padding, "strideH": stride[0], "strideW": stride[1],
        "dilationHFactor": dilation[0], "dilationWFactor": dilation[1],
        "fusedActivationFunction": int(rng.choice(ACTIVATIONS)),
    }  # fmt: skip
    return kernel, options, output  # type: ignore[return-value]


def _input(rng: np.random.Generator, shape: tuple[int, ...]) -> Tensor:
    return int8_tensor("x", shape, random_scale(rng), random_zero_point(rng))


def conv(rng: np.random.Generator) -> Node:
    """CONV_2D; one in four quantised with a single filter scale, one in four in groups."""
    shape = random_shape(rng)
    kernel, options, size = _window(rng, shape[1], shape[2])
    channels, groups = int(rng.integers(1, 10)), 1
    if rng.random() < 0.25:
        groups = int(rng.integers(2, 5))
        channels, shape = groups * int(rng.integers(1, 7)), (*shape[:3], groups * int(rng.integers(1, 7)))
    x, scales = _input(rng, shape), _scales(rng, channels, rng.random() < 0.75)
    extents = (channels, *kernel, shape[3] // groups)
    filters = int8_tensor("w", extents, scales, 0, _weights(rng, extents))
    scale = _output_scale(rng, x, scales, int(np.prod(extents[1:])))
    y = int8_tensor("y", (1, *size, channels), scale, random_zero_point(rng))
    return conv_2d(x, filters, _bias(rng, x, scales, channels), y, **options)  # LiteRT's has to have a bias


def transposed(rng: np.random.Generator) -> Node:
    """TRANSPOSE_CONV; its output as large as its padding allows, or up to a stride less or more."""
    shape, channels = random_shape(rng, 6), int(rng.integers(1, 10))
    kernel, stride = (tuple(int(n) for n in rng.integers(1, 5, 2)) for _ in range(2))
    padding = int(rng.integers(2))
    size = tuple(
        n * s - int(rng.integers(s)) if padding == 0 else (n - 1) * s + k + int(rng.integers(s))
        for n, k, s in zip(shape[1:3], kernel, stride, strict=True)
    )
    x, scales = _input(rng, shape), _scales(rng, channels, rng.random() < 0.75)
    extents = (channels, *kernel, shape[3])
    filters = int8_tensor("w", extents, scales, 0, _weights(rng, extents))
    y = int8_tensor(
        "y", (1, *size, channels), _output_scale(rng, x, scales, int(np.prod(extents[1:]))), random_zero_point(rng)
    )
    bias = _perhaps(rng, _bias(rng, x, scales, channels))
    options = {"padding": padding, "strideH": stride[0], "strideW": stride[1]}
    return transpose_conv(x, filters, bias, y, **options, fusedActivationFunction=int(rng.choice(ACTIVATIONS)))


def depthwise(rng: np.random.Generator) -> Node:
    """DEPTHWISE_CONV_2D with a depth multiplier of 1 to 3."""
    shape = random_shape(rng)
    kernel, options, size = _window(rng, shape[1], shape[2])
    options["depthMultiplier"] = int(rng.choice([1, 1, 1, 2, 3]))
    channels, x = shape[3] * options["depthMultiplier"], _input(rng, shape)
    scales = _scales(rng, channels, True)
    filters = int8_tensor("w", (1, *kernel, channels), scales, 0, _weights(rng, (1, *kernel, channels)))
    y = int8_tensor(
        "y", (1, *size, channels), _output_scale(rng, x, scales, kernel[0] * kernel[1]), random_zero_point(rng)
    )
    return depthwise_conv_2d(x, filters, _perhaps(rng, _bias(rng, x, scales, channels)), y, **options)


def dense(rng: np.random.Generator) -> Node:
    """FULLY_CONNECTED of one row or several, per tensor or per channel, with or without a bias, of rank 2 to 4."""
    inputs, channels = int(rng.integers(1, 70)), int(rng.integers(1, 12))
    rows: tuple[int, ...] = (int(rng.choice([1, 1, 3])),)
    keep = rng.random() < 0.25
    if keep:
        rows = (1, *(int(n) for n in rng.integers(1, 4, rng.integers(1, 3))))
    x, scales = _input(rng, (*rows, inputs)), _scales(rng, channels, rng.random() < 0.5)
    filters = int8_tensor("w", (channels, inputs), scales, 0, _weights(rng, (channels, inputs)))
    bias = _bias(rng, x, scales, channels) if rng.random() < 0.7 else None
    y = int8_tensor("y", (*rows, channels), _output_scale(rng, x, scales, inputs), random_zero_point(rng))
    activation = int(rng.choice(ACTIVATIONS))
    return fully_connected(x, filters, bias, y, fusedActivationFunction=activation, keepNumDims=keep)


WEIGHTED_CASES: dict[str, Callable[[np.random.Generator], Node]] = {
    "CONV_2D": conv,
    "DEPTHWISE_CONV_2D": depthwise,
    "FULLY_CONNECTED": dense,
    "TRANSPOSE_CONV": transposed,
}


def constants(node: Node) -> dict[str, Any]:
    """The constant operands of a node's operation, by name."""
    return {name: t.data for name, t in node.operation().inputs.items() if t.data is not None}
