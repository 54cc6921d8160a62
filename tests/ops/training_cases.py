"""KERNEL_CASES: random operations, with values, for each operator that no .tflite file holds, and of adapted layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from cases import random_int8
from layer_cases import (
    Case,
    conv_backward_filter,
    conv_backward_input,
    depthwise_backward_input,
    gradient,
    logits_case,
    lora_backward,
    lora_case,
    retrained_case,
    tensor,
    transpose_conv_backward_input,
)

from tinypeft.ir import Operation, Purpose, Tensor
from tinypeft.ops import OPS
from tinypeft.ops.base import Value
from tinypeft.ops.output_logits import exponent_for, logits_tensor

KERNEL_CASES: dict[str, Callable[[np.random.Generator, str], Case]] = {
    "CONV_2D": lambda rng, name: lora_case(rng, name, "CONV_2D")["layer"],
    "FULLY_CONNECTED": lambda rng, name: (
        retrained_case(rng, name)["layer"] if rng.random() < 0.5 else lora_case(rng, name, "FULLY_CONNECTED")["layer"]
    ),
    "DENSE_LOGITS": logits_case,
    "LORA_BACKWARD_HIDDEN": lambda rng, name: lora_backward(rng, name, "LORA_BACKWARD_HIDDEN"),
    "LORA_BACKWARD_B": lambda rng, name: lora_backward(rng, name, "LORA_BACKWARD_B"),
    "DENSE_QUANTIZE": lambda rng, name: retrained_case(rng, name)["DENSE_QUANTIZE"],
    "DENSE_RESTORE": lambda rng, name: retrained_case(rng, name)["DENSE_RESTORE"],
    "CONV_2D_BACKWARD_INPUT": conv_backward_input,
    "DEPTHWISE_CONV_2D_BACKWARD_INPUT": depthwise_backward_input,
    "CONV_2D_BACKWARD_FILTER": conv_backward_filter,
    "TRANSPOSE_CONV_BACKWARD_INPUT": transpose_conv_backward_input,
}


def case(make: Callable[[np.random.Generator, str], Case]) -> Callable[[np.random.Generator, str], Case]:
    """Decorator: put the function into KERNEL_CASES under its name in capitals."""
    KERNEL_CASES[make.__name__.upper()] = make
    return make


def _lora(kind: str) -> Callable[[np.random.Generator, str], Case]:
    layers = ("CONV_2D", "FULLY_CONNECTED")
    return lambda rng, name: lora_case(rng, name, str(rng.choice(layers)))[kind]


KERNEL_CASES |= {kind: _lora(kind) for kind in ("LORA_DOWN", "LORA_QUANTIZE", "LORA_RESTORE")}


def _shape(rng: np.random.Generator) -> tuple[int, ...]:
    return 1, *(int(n) for n in rng.integers(1, 8, 3))


def _floats(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """float32 of moderate size, or of every size, infinities and not a number."""
    values = rng.normal(0, 1, shape) * 10.0 ** rng.integers(-3, 3)
    if rng.random() < 0.3:
        values = values * 10.0 ** rng.uniform(-40, 38, shape)
        specials = rng.choice([np.nan, np.inf, -np.inf, 0.0, -0.0], shape)
        values = np.where(rng.random(shape) < 0.2, specials, np.clip(values, -3e38, 3e38))
    return values.astype(np.float32)


@case
def bias_backward(rng: np.random.Generator, name: str) -> Case:
    """A sum over positions."""
    shape = _shape(rng)
    inputs, outputs = {"d_output": tensor("d", shape, "bfp16")}, {"d_bias": tensor("b", shape[-1:], "float32")}
    return Operation(OPS["BIAS_BACKWARD"], name, inputs, outputs), {"d_output": gradient(rng, shape)}


@case
def gradient_add(rng: np.random.Generator, name: str) -> Case:
    """Exponents next to each other or far apart."""
    shape = _shape(rng)
    inputs = {n: tensor(n, shape, "bfp16") for n in "ab"}
    values = {n: gradient(rng, shape) for n in "ab"}
    return Operation(OPS["GRADIENT_ADD"], name, inputs, {"sum": tensor("sum", shape, "bfp16")}), values


def _clamp(rng: np.random.Generator) -> tuple[int, int]:
    low, high = sorted(int(n) for n in rng.choice(np.arange(-128, 128), 2, replace=False))
    return (-128, 127) if rng.random() < 0.3 else (low, high)


@case
def requantize_backward(rng: np.random.Generator, name: str) -> Case:
    """Every form: clamp from the output, from a mask, or none; scales constant, computed, or none."""
    shape, clamp = _shape(rng), _clamp(rng)
    inputs, attributes = {"d_output": tensor("d", shape, "bfp16")}, {}
    values: dict[str, Value] = {"d_output": gradient(rng, shape)}
    form = rng.choice(["output", "mask", "none", "computed"])
    if form in ("output", "mask"):
        attributes["clamp"] = clamp
        output = random_int8(rng, shape)
        if form == "output":
            inputs["output"], values["output"] = tensor("y", shape, "int8"), output
        else:
            inputs["mask"] = tensor("m", shape, "bits")
            passed = (output > clamp[0]) & (output < clamp[1])
            values["mask"] = np.packbits(passed.reshape(-1), bitorder="little")
    if form == "computed":
        inputs |= {"multiplier": tensor("mul", shape[-1:], "int16"), "exponent": tensor("e", (1,), "int32")}
        values["multiplier"] = rng.integers(0, 32768, shape[-1:]).astype(np.int16)
        values["exponent"] = np.array([rng.integers(-40, 5)], np.int32)
    elif form == "none" or rng.random() < 0.6:
        attributes["channel_scale"] = np.exp(rng.uniform(-12, 2, shape[-1])).astype(np.float32)
    return Operation(
        OPS["REQUANTIZE_BACKWARD"], name, inputs, {"d_acc": tensor("d_acc", shape, "bfp16")}, attributes
    ), values


@case
def clamp_mask(rng: np.random.Generator, name: str) -> Case:
    """Sizes that are no multiple of eight, too."""
    shape = _shape(rng)
    inputs, outputs = {"output": tensor("y", shape, "int8")}, {"mask": tensor("m", shape, "bits")}
    op = Operation(OPS["CLAMP_MASK"], name, inputs, outputs, {"clamp": _clamp(rng)})
    return op, {"output": random_int8(rng, shape)}


def _int32(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """All equal, of one magnitude or of every one, and the extremes."""
    bits = 0 if rng.random() < 0.1 else int(rng.integers(1, 32))
    values = rng.integers(-(1 << bits), 1 << bits, shape)
    if rng.random() < 0.3:
        values = values >> rng.integers(0, 32, shape)
    if rng.random() < 0.2:
        values = np.where(rng.random(shape) < 0.3, rng.choice([-(1 << 31), (1 << 31) - 1, 0], shape), values)
    return np.clip(values, -(1 << 31), (1 << 31) - 1).astype(np.int32)


def _loss(rng: np.random.Generator, name: str, kind: str, target: Tensor, y: Value, attributes: dict[str, Any]) -> Case:
    """A loss of random logits, the observer there or not."""
    outputs = int(rng.choice([1, 2, 3, 10, 50])) if target.shape == () else target.size
    shape, exponent = (1, outputs), int(rng.integers(-24, 1))
    logits = Tensor("logits", shape, "int32", Purpose.ACTIVATION, np.array([2.0**exponent], np.float32))
    inputs = {"logits": logits, "target": target}
    results = {"loss": tensor("loss", (1,), "int32"), "d_logits": tensor("d", shape, "bfp16")}
    values: dict[str, Value] = {"logits": _int32(rng, shape), "target": y}
    if rng.random() < 0.5:
        observed = tensor("range", (2,), "int32", Purpose.OPTIMIZER_STATE)
        inputs["logit_range"] = results["logit_range"] = observed
        values["logit_range"] = np.sort(_int32(rng, (2,)))
    return Operation(OPS[kind], name, inputs, results, attributes), values


@case
def softmax_cross_entropy(rng: np.random.Generator, name: str) -> Case:
    """Logits close together, far apart, all equal; smoothed labels, weights of classes."""
    label = Tensor("label", (), "int32", Purpose.ARGUMENT)
    attributes = {"label_smoothing": float(rng.choice([0.0, 0.1, 0.9])), "class_weights": ()}
    op, values = _loss(rng, name, "SOFTMAX_CROSS_ENTROPY", label, None, attributes)
    classes = op.inputs["logits"].size
    if rng.random() < 0.5:
        attributes["class_weights"] = tuple(float(w) for w in rng.choice([0.0, 1e-6, 0.3, 1.0, 7.0, 65536.0], classes))
    return op, values | {"target": np.int32(rng.integers(classes))}


@case
def binary_cross_entropy(rng: np.random.Generator, name: str) -> Case:
    """Targets of 0, 1, between, and outside."""
    target = Tensor("target", (int(rng.choice([1, 2, 3, 10, 50])),), "int32", Purpose.ARGUMENT)
    y = rng.choice([0, 1 << 16, 1, 30000, 65535, -5, 1 << 20], target.shape).astype(np.int32)
    return _loss(rng, name, "BINARY_CROSS_ENTROPY", target, y, {})


@case
def mean_squared_error(rng: np.random.Generator, name: str) -> Case:
    """A target vector, or an int8 input of any scale."""
    shape = (int(rng.choice([1, 2, 3, 10, 50, 700])),)
    if rng.random() < 0.5:
        target = Tensor("target", shape, "int32", Purpose.ARGUMENT)
        return _loss(rng, name, "MEAN_SQUARED_ERROR", target, _int32(rng, shape), {})
    scale = np.exp(rng.uniform(-20, 12, 1)).astype(np.float32)
    target = Tensor("x", shape, "int8", Purpose.ACTIVATION, scale, int(rng.integers(-128, 128)))
    return _loss(rng, name, "MEAN_SQUARED_ERROR", target, random_int8(rng, shape), {})


@case
def count_right(rng: np.random.Generator, name: str) -> Case:
    """Against a label or a vector; largest logits that are equal, logits and targets on the edge of a decision."""
    size = int(rng.choice([1, 2, 3, 10, 50]))
    target = Tensor("target", () if rng.random() < 0.5 else (size,), "int32", Purpose.ARGUMENT)
    logits = _int32(rng, (1, size)) if rng.random() < 0.5 else rng.integers(-1, 2, (1, size)).astype(np.int32)
    y: Value = np.int32(rng.integers(size))
    if target.shape:
        y = rng.choice([0, 1 << 15, (1 << 15) + 1, 1 << 16, -5, 1 << 20], size).astype(np.int32)
    inputs = {"logits": tensor("logits", (1, size), "int32"), "target": target}
    op = Operation(OPS["COUNT_RIGHT"], name, inputs, {"right": tensor("right", (1,), "int32")})
    return op, {"logits": logits, "target": y}


@case
def output_logits(rng: np.random.Generator, name: str) -> Case:
    """Scales whose exponent suits them, and others: every shift, left ones too."""
    shape = (1, int(rng.integers(1, 60)))
    scale = np.exp(rng.uniform(-30, 25, 1)).astype(np.float32)
    x = Tensor("x", shape, "int8", Purpose.ACTIVATION, scale, int(rng.integers(-128, 128)))
    exponent = exponent_for(x) if rng.random() < 0.5 else int(rng.integers(-24, 1))
    op = Operation(OPS["OUTPUT_LOGITS"], name, {"input": x}, {"logits": logits_tensor(shape, exponent)})
    return op, {"input": random_int8(rng, shape)}


@case
def sgd(rng: np.random.Generator, name: str) -> Case:
    """With and without momentum; masters, gradients and rates that overflow."""
    shape = (int(rng.integers(1, 60)),)
    master = tensor("master", shape, "float32", Purpose.MASTER)
    rate = Tensor("rate", (), "float32", Purpose.ARGUMENT)
    inputs = {"gradient": tensor("g", shape, "float32"), "learning_rate": rate, "master": master}
    outputs, values = {"master": master}, {"gradient": _floats(rng, shape), "master": _floats(rng, shape)}
    values["learning_rate"] = np.float32(rng.choice([0.0, 1e-4, 0.02, 1e30, np.inf, -0.5]))
    attributes = {"momentum": 0.0}
    if rng.random() < 0.5:
        velocity = tensor("velocity", shape, "float32", Purpose.OPTIMIZER_STATE)
        inputs["velocity"] = outputs["velocity"] = velocity
        values["velocity"], attributes["momentum"] = _floats(rng, shape), float(rng.choice([0.5, 0.9, 0.99]))
    return Operation(OPS["SGD"], name, inputs, outputs, attributes), values


def _finite(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """float32 whose sums are no NaN, of which IEEE 754 leaves the bits open."""
    return np.nan_to_num(_floats(rng, shape), posinf=1e38, neginf=-1e38).clip(-1e38, 1e38)


@case
def accumulate_gradient(rng: np.random.Generator, name: str) -> Case:
    """Sums of any size."""
    shape = _shape(rng)
    total = tensor("sum", shape, "float32", Purpose.OPTIMIZER_STATE)
    inputs = {"gradient": tensor("g", shape, "float32"), "sum": total}
    values = {"gradient": _finite(rng, shape), "sum": _finite(rng, shape)}
    return Operation(OPS["ACCUMULATE_GRADIENT"], name, inputs, {"sum": total}), values


@case
def take_mean(rng: np.random.Generator, name: str) -> Case:
    """A count of zero gives zero."""
    shape = _shape(rng)
    total = tensor("sum", shape, "float32", Purpose.OPTIMIZER_STATE)
    inputs = {"count": Tensor("count", (), "int32", Purpose.ARGUMENT), "sum": total}
    outputs = {"mean": tensor("mean", shape, "float32"), "sum": total}
    return Operation(OPS["TAKE_MEAN"], name, inputs, outputs), {
        "count": np.int32(rng.choice([0, 1, 2, 3, 7, 100000, -1])),
        "sum": _finite(rng, shape),
    }


@case
def initialize_uniform(rng: np.random.Generator, name: str) -> Case:
    """Any seed, negative too."""
    master = tensor("master", _shape(rng), "float32", Purpose.MASTER)
    seed = Tensor("seed", (), "int32", Purpose.ARGUMENT)
    attributes = {"stream": int(rng.integers(0, 50)), "bound": float(np.float32(rng.choice([0.5, 1e-3, 1.7])))}
    op = Operation(OPS["INITIALIZE_UNIFORM"], name, {"seed": seed}, {"master": master}, attributes)
    seeds = [0, 1, -1, (1 << 31) - 1, -(1 << 31), int(rng.integers(1 << 31))]
    return op, {"seed": np.int32(rng.choice(seeds))}


@case
def initialize_constant(rng: np.random.Generator, name: str) -> Case:
    """Zero and others, of both types."""
    state = tensor("state", _shape(rng), str(rng.choice(["float32", "int32"])), Purpose.OPTIMIZER_STATE)
    values = [0.0, 1.0, -0.3] if state.dtype == "float32" else [0.0, 1.0, -7.0]
    op = Operation(OPS["INITIALIZE_CONSTANT"], name, {}, {"state": state}, {"value": float(rng.choice(values))})
    return op, {}


@case
def initialize_from_base(rng: np.random.Generator, name: str) -> Case:
    """int8 filters and int32 biases, beyond 24 bits too."""
    channels = int(rng.integers(1, 9))
    unit = np.exp(rng.uniform(-9, 0, channels)).astype(np.float32)
    if rng.random() < 0.5:
        data: np.ndarray = random_int8(rng, (channels, int(rng.integers(1, 9))))
    else:
        data = rng.integers(-(1 << 31), 1 << 31, channels).astype(np.int32)
    weights = tensor("weights", data.shape, str(data.dtype), Purpose.FROZEN_WEIGHT, data=data)
    master = tensor("master", data.shape, "float32", Purpose.MASTER)
    op = Operation(OPS["INITIALIZE_FROM_BASE"], name, {"weights": weights}, {"master": master}, {"unit": unit})
    return op, {"weights": data}
