"""Random TFLite nodes of the operators without weights: odd shapes, extreme zero points, awkward scales."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ai_edge_litert.schema_py_generated as schema
import numpy as np
from elementwise_cases import ELEMENTWISE_CASES
from layout_cases import LAYOUT_CASES
from random_values import ACTIVATIONS, random_int8, random_scale, random_shape, random_zero_point
from reduction_cases import REDUCTION_CASES
from tflite_builder import Node, float_tensor, int8_tensor, int32_constant


def pool(rng: np.random.Generator, kind: str) -> Node:
    """AVERAGE_POOL_2D or MAX_POOL_2D; global now and then."""
    _, h, w, c = random_shape(rng, 11)
    padding = int(rng.integers(2))
    kernel = (h, w) if rng.random() < 0.2 else tuple(int(n) for n in rng.integers(1, 5, 2))
    if padding == 1:
        kernel = min(kernel[0], h), min(kernel[1], w)
    stride = tuple(int(n) for n in rng.integers(1, 4, 2))
    options = schema.Pool2DOptionsT(
        padding=padding, strideH=stride[0], strideW=stride[1], filterHeight=kernel[0], filterWidth=kernel[1],
        fusedActivationFunction=int(rng.choice(ACTIVATIONS)),
    )  # fmt: skip
    if padding == 0:
        out = -(-h // stride[0]), -(-w // stride[1])
    else:
        out = (h - kernel[0]) // stride[0] + 1, (w - kernel[1]) // stride[1] + 1
    scale, zero_point = random_scale(rng), random_zero_point(rng)
    x, y = (int8_tensor(n, s, scale, zero_point) for n, s in (("x", (1, h, w, c)), ("y", (1, *out, c))))
    return Node(kind, options, [x], [y])


def pad(rng: np.random.Generator, **_: Any) -> Node:
    """PAD of one to five dimensions, the first among them."""
    shape = tuple(int(n) for n in rng.integers(1, 6, rng.integers(1, 6)))
    paddings = rng.integers(0, 4, (len(shape), 2)) if len(shape) < 4 else rng.integers(0, 2, (len(shape), 2))
    scale, zero_point = random_scale(rng), random_zero_point(rng)
    x = int8_tensor("x", shape, scale, zero_point)
    y = int8_tensor("y", np.array(shape) + paddings.sum(axis=1), scale, zero_point)
    return Node("PAD", schema.PadOptionsT(), [x, int32_constant("paddings", paddings)], [y])


def reshape(rng: np.random.Generator, **_: Any) -> Node:
    """RESHAPE to a vector."""
    shape = random_shape(rng)
    scale, zero_point = random_scale(rng), random_zero_point(rng)
    new = (1, int(np.prod(shape)))
    x, y = int8_tensor("x", shape, scale, zero_point), int8_tensor("y", new, scale, zero_point)
    return Node("RESHAPE", schema.ReshapeOptionsT(newShape=list(new)), [x, int32_constant("shape", new)], [y])


def softmax(rng: np.random.Generator, **_: Any) -> Node:
    """SOFTMAX over 1 to 511 values: LiteRT's reference kernel aborts where the exponentials sum to 512 or more."""
    shape: tuple[int, ...] = (1, int(rng.integers(1, 40)))
    if rng.random() < 0.2:
        shape = (1, int(rng.integers(1, 4)), int(rng.integers(1, 512)))
    beta = 1.0 if rng.random() < 0.7 else float(rng.uniform(0.1, 3))
    x = int8_tensor("x", shape, float(np.exp(rng.uniform(-9, 4))), random_zero_point(rng))
    return Node("SOFTMAX", schema.SoftmaxOptionsT(beta=beta), [x], [int8_tensor("y", shape, 1 / 256, -128)])


def quantize(rng: np.random.Generator, **_: Any) -> Node:
    """QUANTIZE from float32 or from int8."""
    shape = random_shape(rng)
    floating = rng.random() < 0.5
    x = float_tensor("x", shape) if floating else int8_tensor("x", shape, random_scale(rng), random_zero_point(rng))
    y = int8_tensor("y", shape, random_scale(rng), random_zero_point(rng))
    return Node("QUANTIZE", schema.QuantizeOptionsT(), [x], [y])


def dequantize(rng: np.random.Generator, **_: Any) -> Node:
    """DEQUANTIZE."""
    shape = random_shape(rng)
    x = int8_tensor("x", shape, random_scale(rng), random_zero_point(rng))
    return Node("DEQUANTIZE", schema.DequantizeOptionsT(), [x], [float_tensor("y", shape)])


CASES: dict[str, Callable[..., Node]] = {
    "AVERAGE_POOL_2D": pool, "MAX_POOL_2D": pool, "PAD": pad, "RESHAPE": reshape,
    "SOFTMAX": softmax, "QUANTIZE": quantize, "DEQUANTIZE": dequantize,
    **ELEMENTWISE_CASES, **LAYOUT_CASES, **REDUCTION_CASES,
}  # fmt: skip


def random_inputs(rng: np.random.Generator, node: Node) -> list[np.ndarray]:
    """Values of the inputs that are not constant; floats beyond the range of int8, on ties of rounding too."""
    values = []
    for tensor in node.inputs:
        if tensor is None or tensor.data is not None:
            continue
        if tensor.dtype == "int8":
            values.append(random_int8(rng, tensor.shape))
            continue
        scale = node.outputs[0].scale
        assert scale is not None
        steps = rng.uniform(-300, 300, tensor.shape)
        ties = np.floor(steps) + 0.5
        values.append((np.where(rng.random(tensor.shape) < 0.5, ties, steps) * scale[0]).astype(np.float32))
    return values
