"""Random operations, with values, of bottlenecks and of the input's offset: BOTTLENECK_CASES."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from cases import random_int8, random_zero_point
from layer_cases import MASTER_STYLES, Case, gradient, masters, tensor

from tinypeft.ir import Operation, Purpose, Tensor
from tinypeft.ops import OPS
from tinypeft.ops.base import Value

BOTTLENECK_CASES: dict[str, Callable[[np.random.Generator, str], Case]] = {}


def case(make: Callable[[np.random.Generator, str], Case]) -> Callable[[np.random.Generator, str], Case]:
    """Decorator: put the function into BOTTLENECK_CASES under its name in capitals."""
    BOTTLENECK_CASES[make.__name__.upper()] = make
    return make


def hidden_values(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """int16 hidden values: of every size, small ones, the extremes."""
    reach = int(rng.choice([32767, 32767, 3000, 50, 1]))
    values = rng.integers(-reach, reach + 1, shape)
    return np.where(rng.random(shape) < 0.1, rng.choice([0, 32767, -32767], shape), values).astype(np.int16)


def gate_values(rng: np.random.Generator) -> np.ndarray:
    """int16 (2,): what HIDDEN_GATE gives, and now and then anything."""
    if rng.random() < 0.1:
        return rng.integers(-32768, 32768, 2).astype(np.int16)
    return np.array([rng.integers(16384, 32768), rng.choice([0, 30, *rng.integers(4, 20, 4)])], np.int16)


def _hidden(rng: np.random.Generator) -> tuple[tuple[int, ...], dict[str, Tensor], dict[str, Value]]:
    shape = (1, int(rng.integers(1, 12)), 1, int(rng.integers(1, 9)))
    inputs, values = {"hidden": tensor("hidden", shape, "int16")}, {"hidden": hidden_values(rng, shape)}
    if rng.random() < 0.6:
        inputs["gate"] = tensor("gate", (2,), "int16", Purpose.ADAPTER_WEIGHT)
        values["gate"] = gate_values(rng)
    return shape, inputs, values


@case
def hidden_activation(rng: np.random.Generator, name: str) -> Case:
    """ReLU and hard swish."""
    shape, inputs, values = _hidden(rng)
    return Operation(OPS["HIDDEN_ACTIVATION"], name, inputs, {"output": tensor("out", shape, "int16")}), values


@case
def hidden_activation_backward(rng: np.random.Generator, name: str) -> Case:
    """Both, with peaks from 0 up."""
    shape, inputs, values = _hidden(rng)
    inputs = {"d_output": tensor("d", shape, "bfp16"), **inputs}
    values["d_output"] = gradient(rng, shape)
    outputs = {"d_hidden": tensor("d_hidden", shape, "bfp16")}
    return Operation(OPS["HIDDEN_ACTIVATION_BACKWARD"], name, inputs, outputs), values


@case
def hidden_gate(rng: np.random.Generator, name: str) -> Case:
    """Units from next to nothing to far beyond 3, and those that float32 does not hold."""
    inputs = {"a_scale": tensor("a", (1,), "float32"), "hidden_shift": tensor("k", (1,), "int8")}
    scale = np.exp(rng.uniform(-15, 8)) * 10.0 ** rng.choice([0, 0, 0, -40, -30, 30, 35])
    values: dict[str, Value] = {
        "a_scale": np.array([min(scale, 3e38)], np.float32),
        "hidden_shift": rng.integers(0, 18, 1).astype(np.int8),
    }
    attributes = {"input_scale": np.float32(np.exp(rng.normal(-3, 3)))}
    return Operation(OPS["HIDDEN_GATE"], name, inputs, {"gate": tensor("g", (2,), "int16")}, attributes), values


@case
def residual_up(rng: np.random.Generator, name: str) -> Case:
    """Shifts to the right and, where sums are small, to the left."""
    shape = 1, int(rng.integers(1, 5)), int(rng.integers(1, 5)), int(rng.integers(1, 9))
    rank, channels = int(rng.integers(1, 9)), shape[-1]
    positions = shape[1] * shape[2]
    x = tensor("x", shape, "int8", scale=np.float32([0.05]), zero_point=random_zero_point(rng))
    y = tensor("y", shape, "int8", scale=x.scale, zero_point=x.zero_point)
    left = rng.random() < 0.2
    values: dict[str, Value] = {
        "input": random_int8(rng, shape),
        "hidden": hidden_values(rng, (1, positions, 1, rank)) // (600 if left else 1),
        "lora_B": random_int8(rng, (channels, rank)).clip(-127, 127),
        "lora_shift": rng.integers(-8 if left else 0, 1 if left else 25, channels).astype(np.int8),
    }
    dtypes = {"hidden": "int16", "lora_B": "int8", "lora_shift": "int8"}
    inputs = {"input": x, **{n: tensor(n, np.shape(values[n]), dtype) for n, dtype in dtypes.items()}}
    return Operation(OPS["RESIDUAL_UP"], name, inputs, {"output": y}), values


def _offset(rng: np.random.Generator) -> tuple[dict[str, Tensor], dict[str, Value]]:
    shape = 1, *(int(n) for n in rng.integers(1, 7, 3))
    rows = [n for n in range(1, 300) if int(np.prod(shape)) % n == 0]
    row = int(rng.choice(rows))
    full = rng.random() < 0.6
    size = (int(np.prod(shape)) // row, row) if full else shape[-1:]
    values: dict[str, Value] = {"input": random_int8(rng, shape), "offset": random_int8(rng, size).clip(-127, 127)}
    return {n: tensor(n, value.shape, "int8") for n, value in values.items()}, values


@case
def input_offset(rng: np.random.Generator, name: str) -> Case:
    """One offset an element, or a channel."""
    inputs, values = _offset(rng)
    return Operation(OPS["INPUT_OFFSET"], name, inputs, {"output": tensor("y", inputs["input"].shape, "int8")}), values


@case
def input_offset_mask(rng: np.random.Generator, name: str) -> Case:
    """Sizes that are no multiple of eight, too."""
    inputs, values = _offset(rng)
    mask = tensor("mask", inputs["input"].shape, "bits")
    return Operation(OPS["INPUT_OFFSET_MASK"], name, inputs, {"mask": mask}), values


@case
def input_offset_quantize(rng: np.random.Generator, name: str) -> Case:
    """Masters beyond the limits and not finite."""
    shape = int(rng.integers(1, 6)), int(rng.integers(1, 20))
    inputs, outputs = {"master": tensor("m", shape, "float32")}, {"offset": tensor("o", shape, "int8")}
    attributes = {"scale": np.float32(np.exp(rng.uniform(-9, 2)))}
    values = {"master": masters(rng, shape, str(rng.choice(MASTER_STYLES)), float(np.exp(rng.uniform(-5, 3))))}
    return Operation(OPS["INPUT_OFFSET_QUANTIZE"], name, inputs, outputs, attributes), values


@case
def input_offset_restore(rng: np.random.Generator, name: str) -> Case:
    """Every offset."""
    shape = int(rng.integers(1, 6)), int(rng.integers(1, 20))
    inputs, outputs = {"offset": tensor("o", shape, "int8")}, {"master": tensor("m", shape, "float32")}
    op = Operation(OPS["INPUT_OFFSET_RESTORE"], name, inputs, outputs, {"scale": np.float32(np.exp(rng.normal(-3, 2)))})
    return op, {"offset": random_int8(rng, shape).clip(-127, 127)}


@case
def input_offset_backward(rng: np.random.Generator, name: str) -> Case:
    """A row or several."""
    shape = 1, *(int(n) for n in rng.integers(1, 7, 3))
    row = int(rng.choice([n for n in range(1, 300) if int(np.prod(shape)) % n == 0]))
    outputs = {"gradient": tensor("g", (int(np.prod(shape)) // row, row), "bfp32")}
    op = Operation(OPS["INPUT_OFFSET_BACKWARD"], name, {"d_output": tensor("d", shape, "bfp16")}, outputs)
    return op, {"d_output": gradient(rng, shape)}
