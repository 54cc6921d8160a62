"""KERNEL_CASES: random operations, with values, for each operator that no .tflite file holds, and of adapted layers."""

from __future__ import annotations

from collections.abc import Callable

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
    lora_int4_case,
    retrained_case,
    tensor,
    transpose_conv_backward_input,
)

from tinypeft.ir import Operation, Purpose, Tensor
from tinypeft.ops import OPS
from tinypeft.ops.base import Value

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


def _lora_int4(kind: str) -> Callable[[np.random.Generator, str], Case]:
    return lambda rng, name: lora_int4_case(rng, name, str(rng.choice(("CONV_2D", "FULLY_CONNECTED"))))[kind]


KERNEL_CASES |= {kind: _lora_int4(kind) for kind in ("LORA_QUANTIZE_INT4", "LORA_RESTORE_INT4")}
KERNEL_CASES["UNPACK_INT4"] = _lora_int4("UNPACK_INT4 lora_A")
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


@case
def softmax_cross_entropy(rng: np.random.Generator, name: str) -> Case:
    """Logits close together, far apart, all equal; with and without the observer."""
    classes = int(rng.choice([1, 2, 3, 10, 50]))
    scale = float(rng.choice([0.0, 1e-3, 1.0, 10.0, 1e4, 1e30, 1.5e38]))
    logits = np.clip(rng.normal(0, 1, (1, classes)), -2, 2).astype(np.float32) * np.float32(scale)
    label = Tensor("label", (), "int32", Purpose.ARGUMENT)
    inputs = {"logits": tensor("logits", (1, classes), "float32"), "label": label}
    outputs = {"loss": tensor("loss", (1,), "float32"), "d_logits": tensor("d", (1, classes), "bfp16")}
    values: dict[str, Value] = {"logits": logits, "label": np.int32(rng.integers(classes))}
    if rng.random() < 0.5:
        observed = tensor("range", (2,), "float32", Purpose.OPTIMIZER_STATE)
        inputs["logit_range"] = outputs["logit_range"] = observed
        values["logit_range"] = np.sort(rng.normal(0, 5, 2)).astype(np.float32)
    return Operation(OPS["SOFTMAX_CROSS_ENTROPY"], name, inputs, outputs), values


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
def initialize_normal(rng: np.random.Generator, name: str) -> Case:
    """Any seed, deviations large and small."""
    op, values = initialize_uniform(rng, name)
    attributes = {"stream": op.attributes["stream"], "deviation": float(np.float32(rng.choice([1.0, 0.25, 1e-3])))}
    return Operation(OPS["INITIALIZE_NORMAL"], name, op.inputs, op.outputs, attributes), values


@case
def initialize_from_table(rng: np.random.Generator, name: str) -> Case:
    """Any table."""
    table = rng.normal(0, 1, _shape(rng)).astype(np.float32)
    master = tensor("master", table.shape, "float32", Purpose.MASTER)
    return Operation(OPS["INITIALIZE_FROM_TABLE"], name, {}, {"master": master}, {"table": table}), {}


@case
def initialize_constant(rng: np.random.Generator, name: str) -> Case:
    """Zero and others."""
    state = tensor("state", _shape(rng), "float32", Purpose.OPTIMIZER_STATE)
    op = Operation(
        OPS["INITIALIZE_CONSTANT"], name, {}, {"state": state}, {"value": float(rng.choice([0.0, 1.0, -0.3]))}
    )
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
