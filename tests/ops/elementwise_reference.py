"""The elementwise operators on real numbers, and their gradients by central differences, in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tinypeft.ir import Operation
from tinypeft.ops.constraints import per_tensor

Array = np.ndarray


def gelu(op: Operation, x: Array) -> Array:
    """By the error function, or by tanh."""
    if op.attributes["approximate"]:
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return 0.5 * x * (1 + np.vectorize(math.erf, otypes=[np.float64])(x / math.sqrt(2)))


#: The output from the real operands, before the output's rounding and clamp.
FORMULAS: dict[str, Callable[..., Array]] = {
    "ADD": lambda op, a, b: a + b,
    "SUB": lambda op, a, b: a - b,
    "MUL": lambda op, a, b: a * b,
    "SQUARED_DIFFERENCE": lambda op, a, b: (a - b) ** 2,
    "MAXIMUM": lambda op, a, b: np.maximum(a, b),
    "MINIMUM": lambda op, a, b: np.minimum(a, b),
    "PRELU": lambda op, a, b: np.where(a > 0, a, a * b),
    "RELU": lambda op, x: x,
    "RELU6": lambda op, x: x,
    "RELU_0_TO_1": lambda op, x: x,
    "RELU_N1_TO_1": lambda op, x: x,
    "LEAKY_RELU": lambda op, x: np.where(x > 0, x, op.attributes["alpha"] * x),
    "HARD_SWISH": lambda op, x: x * np.clip(x + 3, 0, 6) / 6,
    "LOGISTIC": lambda op, x: 1 / (1 + np.exp(-x)),
    "TANH": lambda op, x: np.tanh(x),
    "ELU": lambda op, x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "GELU": gelu,
    "ABS": lambda op, x: np.abs(x),
    "NEG": lambda op, x: -x,
    "SQUARE": lambda op, x: x * x,
    "SQRT": lambda op, x: np.sqrt(np.maximum(x, 0)),
    "RSQRT": lambda op, x: np.maximum(x, 1e-12) ** -0.5,
    "EXP": lambda op, x: np.exp(x),
    "LOG": lambda op, x: np.log(np.maximum(x, 1e-12)),
}
#: Operators whose output is never clamped: each value is one of an operand, or a probability.
UNCLAMPED = ("MAXIMUM", "MINIMUM", "SOFTMAX")
#: Where a function has a kink at 0, in steps: the side whose slope it is to have.
SIDE = {"PRELU": {"input1": -1}, "LEAKY_RELU": {"input": -1}, "MAXIMUM": {"input1": 1}, "MINIMUM": {"input1": -1}}


def gradients(op: Operation, reals: dict[str, Array], d_output: Array) -> dict[str, Array]:
    """operand -> the gradient of sum(d_output * output), summed where the operand was broadcast."""
    at = {}
    for name, real in reals.items():
        side = SIDE.get(op.kind, {}).get(name, 0)
        at[name] = real + 1e-3 * side * per_tensor(op.inputs[name])[0]
    if op.kind == "SQRT":  # at 0 its slope is infinite: as half a step above it
        at["input"] = np.maximum(at["input"], 0.5 * per_tensor(op.inputs["input"])[0])
    result = {}
    for name, real in at.items():
        step = 1e-4 * per_tensor(op.inputs[name])[0]
        up, down = (FORMULAS[op.kind](op, *(at | {name: real + sign * step}).values()) for sign in (1, -1))
        products = d_output * (up - down) / (2 * step)
        missing = products.ndim - real.ndim
        axes = tuple(i for i, n in enumerate(products.shape) if i < missing or real.shape[i - missing] != n)
        result[name] = products.sum(axis=axes, keepdims=True).reshape(real.shape)
    return result


def real_operands(op: Operation, values: dict[str, Any]) -> dict[str, Array]:
    """The real values that the int8 operands stand for."""
    reals = {}
    for name, tensor in op.inputs.items():
        scale, zero_point = per_tensor(tensor)
        reals[name] = scale * (values[name].astype(np.float64) - zero_point)
    return reals
