"""Fused activation functions: their names and the range of quantised outputs that they leave. Defines no operator."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinypeft.errors import ModelError
from tinypeft.ir import Operation

INT8_MIN, INT8_MAX = -128, 127

#: TFLite's ActivationFunctionType -> the attribute `activation`
ACTIVATIONS = {0: "NONE", 1: "RELU", 2: "RELU_N1_TO_1", 3: "RELU6"}
_UNSUPPORTED = {4: "TANH", 5: "SIGN_BIT"}
#: activation -> the real values that it limits its input to; RELU_0_TO_1 is never fused
_LIMITS = {
    "NONE": (None, None),
    "RELU": (0.0, None),
    "RELU6": (0.0, 6.0),
    "RELU_N1_TO_1": (-1.0, 1.0),
    "RELU_0_TO_1": (0.0, 1.0),
}


def activation_from_tflite(options: Any) -> str:
    """The attribute `activation` of an options object; ModelError for one that is not supported."""
    code = int(options.fusedActivationFunction) if options is not None else 0
    if code not in ACTIVATIONS:
        raise ModelError(
            f"the fused activation {_UNSUPPORTED.get(code, code)} is not supported",
            "use linear, relu, relu6 or a clip to [-1, 1]",
        )
    return ACTIVATIONS[code]


def activation_range(activation: str, scale: float, zero_point: int) -> tuple[int, int]:
    """(min, max) of an int8 output after `activation`, as LiteRT's CalculateActivationRangeQuantized."""
    low, high = (None if x is None else zero_point + _quantized(x, scale) for x in _LIMITS[activation])
    return INT8_MIN if low is None else max(INT8_MIN, low), INT8_MAX if high is None else min(INT8_MAX, high)


def output_range(op: Operation) -> tuple[int, int]:
    """`activation_range` of an operation's own attribute `activation` and first output."""
    output = op.output
    assert output.scale is not None
    return activation_range(op.attributes.get("activation", "NONE"), float(output.scale[0]), output.zero_point)


def check_activation(op: Operation) -> str | None:
    """None, or a sentence that a limit of the activation lies beyond int32 in steps of the output."""
    activation, scale = op.attributes.get("activation", "NONE"), op.output.scale
    assert scale is not None
    if any(limit is not None and abs(_quantized(limit, float(scale[0]))) >= 1 << 31 for limit in _LIMITS[activation]):
        return f"{op.output.name} has scale {scale[0]:g}, too small for the activation {activation}"
    return None


def saturate(values: np.ndarray) -> np.ndarray:
    """Integers limited to the range of int8."""
    return np.clip(values, INT8_MIN, INT8_MAX).astype(np.int8)


def _quantized(x: float, scale: float) -> int:
    """x / scale in float32, rounded half away from zero."""
    steps = float(np.float32(x) / np.float32(scale))
    return math.floor(steps + 0.5) if steps >= 0 else -math.floor(-steps + 0.5)
