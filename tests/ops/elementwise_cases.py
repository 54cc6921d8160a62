"""Random TFLite nodes of elementwise operators and activation functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import ai_edge_litert.schema_py_generated as schema
import numpy as np
from random_values import ACTIVATIONS, random_int8, random_scale, random_shape, random_zero_point
from tflite_builder import Node, float_tensor, int8_tensor

from tinypeft.ops.lookup import FloatArithmetic

#: Functions with limits of their own; tanh and the like would mostly saturate at larger scales.
SMALL_INPUTS = ("LOGISTIC", "TANH", "ELU", "GELU", "HARD_SWISH", "EXP")


def broadcast_pair(rng: np.random.Generator, largest: int = 6) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Two shapes: alike, one a channel vector, one a scalar, or with axes of 1 anywhere; either may be the smaller."""
    shape = random_shape(rng, largest)[: rng.integers(2, 5)]
    style = rng.integers(5)
    if style == 0:
        other = shape
    elif style == 1:
        other = shape[-1:] if rng.random() < 0.5 else (*[1] * (len(shape) - 1), shape[-1])
    elif style == 2:
        other = () if rng.random() < 0.5 else (1,) * len(shape)
    else:
        dropped = rng.random(len(shape)) < 0.4
        other = tuple(1 if gone else n for n, gone in zip(shape, dropped, strict=True))
        if style == 4:  # both have axes of 1
            shape = tuple(1 if rng.random() < 0.3 else n for n in shape)
        other = other[rng.integers(len(other)) :] if rng.random() < 0.2 else other
    return (shape, other) if rng.random() < 0.6 else (other, shape)


def binary(rng: np.random.Generator, kind: str) -> Node:
    """ADD, SUB, MUL, SQUARED_DIFFERENCE; one in five with a constant."""
    shapes = broadcast_pair(rng)
    constant = int(rng.integers(2)) if rng.random() < 0.2 else None
    scales = [random_scale(rng), random_scale(rng)]
    inputs = [
        int8_tensor(name, shape, scale, random_zero_point(rng), random_int8(rng, shape) if i == constant else None)
        for i, (name, shape, scale) in enumerate(zip("ab", shapes, scales, strict=True))
    ]
    scale = random_scale(rng)
    if kind == "MUL":
        scale = scales[0] * scales[1] * float(np.exp(rng.uniform(0, 7)))
    if kind == "SQUARED_DIFFERENCE":
        scale = max(scales) ** 2 * float(np.exp(rng.uniform(0, 8)))
    options = None
    if kind != "SQUARED_DIFFERENCE":
        options = getattr(schema, f"{kind.capitalize()}OptionsT")(fusedActivationFunction=int(rng.choice(ACTIVATIONS)))
    output = int8_tensor("y", np.broadcast_shapes(*shapes), scale, random_zero_point(rng))
    return Node(kind, options, inputs, [output])


def extremum(rng: np.random.Generator, kind: str) -> Node:
    """MAXIMUM and MINIMUM; one in five with a constant."""
    shapes, scale, zero_point = broadcast_pair(rng), random_scale(rng), random_zero_point(rng)
    constant = int(rng.integers(2)) if rng.random() < 0.2 else None
    inputs = [
        int8_tensor(name, shape, scale, zero_point, random_int8(rng, shape) if i == constant else None)
        for i, (name, shape) in enumerate(zip("ab", shapes, strict=True))
    ]
    output = int8_tensor("y", np.broadcast_shapes(*shapes), scale, zero_point)
    return Node(kind, schema.MaximumMinimumOptionsT(), inputs, [output])


def prelu(rng: np.random.Generator, kind: str) -> Node:
    """PRELU with slopes a channel, an element, or along some axes."""
    shape = random_shape(rng)
    slopes_shape = [shape[-1:], (1, 1, shape[-1]), shape[1:], (1, shape[1], 1, shape[-1])][rng.integers(4)]
    slopes = int8_tensor("b", slopes_shape, random_scale(rng), random_zero_point(rng), random_int8(rng, slopes_shape))
    scale = random_scale(rng)
    x = int8_tensor("a", shape, scale, random_zero_point(rng))
    y = int8_tensor("y", shape, scale * float(np.exp(rng.uniform(-1, 4))), random_zero_point(rng))
    return Node(kind, None, [x, slopes], [y])


class FloatNode(Node):
    """A function in float32 between DEQUANTIZE and QUANTIZE, as the converter leaves it: one operator here."""

    def parts(self) -> Sequence[Node]:
        """The three operators."""
        (x,), (y,) = self.inputs, self.outputs
        assert x is not None
        before, after = float_tensor(f"{x.name}_float", x.shape), float_tensor(f"{y.name}_float", y.shape)
        return [
            Node("DEQUANTIZE", schema.DequantizeOptionsT(), [x], [before]),
            Node(self.kind, None, [before], [after]),
            Node("QUANTIZE", schema.QuantizeOptionsT(), [after], [y]),
        ]


def unary(rng: np.random.Generator, kind: str) -> Node:
    """Every function of one tensor."""
    shape = random_shape(rng)[: rng.integers(2, 5)]
    scale_in, zero_in = random_scale(rng), random_zero_point(rng)
    scale_out, zero_out, options = random_scale(rng), random_zero_point(rng), None
    if kind in SMALL_INPUTS:
        scale_in = float(np.exp(rng.uniform(-6.5, -2.5)))
    if kind == "LOGISTIC":
        scale_out = 1 / 256
    elif kind == "NEG":
        zero_in = int(rng.integers(-127, 128))
        scale_out, zero_out = scale_in, -zero_in
    elif kind in ("SQRT", "RSQRT"):
        zero_in = -128  # at negative inputs LiteRT stops
        root = scale_in**0.5 if kind == "SQRT" else scale_in**-0.5
        scale_out = root * float(np.exp(rng.uniform(-5, 0)))
    elif kind == "EXP":
        scale_out = float(np.exp(scale_in * (127 - zero_in))) / 256
    elif kind == "LEAKY_RELU":
        options = schema.LeakyReluOptionsT(alpha=float(rng.choice([0.0, 0.01, 0.1, 0.3, 1.0, 1.7])))
        scale_out = scale_in * float(np.exp(rng.uniform(-1, 2)))
    elif kind == "GELU":
        options = schema.GeluOptionsT(approximate=bool(rng.integers(2)))
    elif kind == "SQUARE":
        scale_out = scale_in**2 * float(np.exp(rng.uniform(0, 6)))
    in_float = kind == "SQUARE" or (kind in ("NEG", "ELU") and rng.random() < 0.5)
    if kind == "NEG" and in_float:
        scale_out, zero_out = scale_in * float(np.exp(rng.uniform(-1, 1))), random_zero_point(rng)
    x, y = int8_tensor("x", shape, scale_in, zero_in), int8_tensor("y", shape, scale_out, zero_out)
    return FloatNode(kind, FloatArithmetic(), [x], [y]) if in_float else Node(kind, options, [x], [y])


UNARY = (
    "RELU", "RELU6", "RELU_0_TO_1", "RELU_N1_TO_1", "LEAKY_RELU", "HARD_SWISH", "LOGISTIC", "TANH", "ELU", "GELU",
    "ABS", "NEG", "SQUARE", "SQRT", "RSQRT", "EXP", "LOG",
)  # fmt: skip

ELEMENTWISE_CASES: dict[str, Callable[..., Node]] = {
    "ADD": binary, "SUB": binary, "MUL": binary, "SQUARED_DIFFERENCE": binary,
    "MAXIMUM": extremum, "MINIMUM": extremum, "PRELU": prelu, **dict.fromkeys(UNARY, unary),
}  # fmt: skip
