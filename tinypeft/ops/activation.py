"""Fused activation functions: their names and the range of quantised outputs that they leave. Defines no operator."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinypeft.errors import ModelError
from tinypeft.ir import Operation

INT8_MIN, INT8_MAX = -128, 127

#: TFLite's ActivationFunctionType -> the attribute `activation`
ACTIVATIONS = {0: "NONE", 1: "RELU", 3: "RELU6"}
_UNSUPPORTED = {2: "RELU_N1_TO_1", 4: "TANH", 5: "SIGN_BIT"}


def activation_from_tflite(options: Any) -> str:
    """The attribute `activation` of an options object; ModelError for one that is not supported."""
    code = int(options.fusedActivationFunction) if options is not None else 0
    if code not in ACTIVATIONS:
        raise ModelError(
            f"the fused activation {_UNSUPPORTED.get(code, code)} is not supported",
            "use linear, relu or relu6",
        )
    return ACTIVATIONS[code]


def activation_range(activation: str, scale: float, zero_point: int) -> tuple[int, int]:
    """(min, max) of an int8 output after `activation`, as LiteRT's CalculateActivationRangeQuantized."""
    if activation == "NONE":
        return INT8_MIN, INT8_MAX
    low = max(INT8_MIN, zero_point)
    if activation == "RELU":
        return low, INT8_MAX
    if activation == "RELU6":
        return low, min(INT8_MAX, zero_point + _round_half_away(np.float32(6.0) / np.float32(scale)))
    raise ModelError(f"the activation {activation} is not supported", "use NONE, RELU or RELU6")


def output_range(op: Operation) -> tuple[int, int]:
    """`activation_range` of an operation's own attribute `activation` and first output."""
    output = op.output
    assert output.scale is not None
    return activation_range(op.attributes.get("activation", "NONE"), float(output.scale[0]), output.zero_point)


def saturate(values: np.ndarray) -> np.ndarray:
    """Integers limited to the range of int8."""
    return np.clip(values, INT8_MIN, INT8_MAX).astype(np.int8)


def _round_half_away(x: np.float32) -> int:
    return math.floor(float(x) + 0.5) if x >= 0 else -math.floor(-float(x) + 0.5)
