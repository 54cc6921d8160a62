"""KERNEL_CASES: random operations, with values, for each operator that no .tflite file holds, and of adapted layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from bottleneck_cases import BOTTLENECK_CASES
from cases import random_int8
from channel_cases import channel_case, quantizer_case, trained_logits_case
from layer_cases import (
    Case,
    conv_backward_input,
    depthwise_backward_input,
    gradient,
    logits_case,
    lora_backward,
    lora_case,
    lora_int4_case,
    lora_merge_case,
    retrain_case,
    retrained_case,
    tensor,
    transpose_conv_backward_input,
)
from sparse_cases import SPARSE_CASES

from tinypeft.arithmetic import limit_float
from tinypeft.ir import Operation, Purpose, Tensor
from tinypeft.ops import OPS
from tinypeft.ops.adam8 import block_shape
from tinypeft.ops.base import Value
from tinypeft.ops.output_logits import exponent_for, logits_tensor
from tinypeft.ops.parameter_gradient import ParameterGradient

KERNEL_CASES: dict[str, Callable[[np.random.Generator, str], Case]] = {
    "CONV_2D": lambda rng, name: _one_of(rng, lora_case, channel_case)(rng, name, "CONV_2D")["layer"],
    "DEPTHWISE_CONV_2D": lambda rng, name: channel_case(rng, name, "DEPTHWISE_CONV_2D")["layer"],
    "TRANSPOSE_CONV": lambda rng, name: channel_case(rng, name, "TRANSPOSE_CONV")["layer"],
    "FULLY_CONNECTED": lambda rng, name: (
        retrained_case(rng, name)["layer"]
        if rng.random() < 0.3
        else _one_of(rng, lora_case, channel_case)(rng, name, "FULLY_CONNECTED")["layer"]
    ),
    "DENSE_LOGITS": lambda rng, name: _one_of(rng, logits_case, logits_case, trained_logits_case)(rng, name),
    "LORA_BACKWARD_HIDDEN": lora_backward,
    "LORA_MERGE": lora_merge_case,
    "DENSE_RETRAIN": retrain_case,
    "DENSE_QUANTIZE": lambda rng, name: retrained_case(rng, name)["DENSE_QUANTIZE"],
    "DENSE_RESTORE": lambda rng, name: retrained_case(rng, name)["DENSE_RESTORE"],
    "CONV_2D_BACKWARD_INPUT": conv_backward_input,
    "DEPTHWISE_CONV_2D_BACKWARD_INPUT": depthwise_backward_input,
    "TRANSPOSE_CONV_BACKWARD_INPUT": transpose_conv_backward_input,
    **SPARSE_CASES,
}


def _one_of(rng: np.random.Generator, *makes: Any) -> Any:
    return makes[int(rng.integers(len(makes)))]


#: kind -> (rng, name, shape) -> the case of an optimiser's operation
OPTIMIZER_CASES: dict[str, Callable[[np.random.Generator, str, tuple[int, ...]], Case]] = {}


def case(make: Callable[[np.random.Generator, str], Case]) -> Callable[[np.random.Generator, str], Case]:
    """Decorator: put the function into KERNEL_CASES under its name in capitals."""
    KERNEL_CASES[make.__name__.upper()] = make
    return make


def _lora(kind: str) -> Callable[[np.random.Generator, str], Case]:
    layers = ("CONV_2D", "FULLY_CONNECTED")
    return lambda rng, name: lora_case(rng, name, str(rng.choice(layers)))[kind]


def _channel(kind: str) -> Callable[[np.random.Generator, str], Case]:
    return lambda rng, name: quantizer_case(rng, name, kind)


KERNEL_CASES |= {kind: _channel(kind) for kind in ("BITFIT_QUANTIZE", "BITFIT_RESTORE", "IA3_QUANTIZE", "IA3_RESTORE")}


def _lora_int4(kind: str) -> Callable[[np.random.Generator, str], Case]:
    return lambda rng, name: lora_int4_case(rng, name, str(rng.choice(("CONV_2D", "FULLY_CONNECTED"))))[kind]


KERNEL_CASES |= {kind: _lora_int4(kind) for kind in ("LORA_QUANTIZE_INT4", "LORA_RESTORE_INT4")}
KERNEL_CASES["UNPACK_INT4"] = _lora_int4("UNPACK_INT4 lora_A")
KERNEL_CASES |= {kind: _lora(kind) for kind in ("LORA_DOWN", "LORA_QUANTIZE", "LORA_RESTORE")}
KERNEL_CASES |= {kind: make for kind, make in BOTTLENECK_CASES.items() if not isinstance(OPS[kind], ParameterGradient)}


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


def optimizer_case(make: Callable[[np.random.Generator, str, tuple[int, ...]], Case]) -> Any:
    """Decorator: an optimiser's case of a given shape into OPTIMIZER_CASES, of any shape into KERNEL_CASES."""
    kind = make.__name__.upper()
    OPTIMIZER_CASES[kind] = make

    def any_shape(rng: np.random.Generator, name: str) -> Case:
        columns = int(rng.choice([1, 2, 4, 7, 63, 64, 65, 128, 150]))
        return make(rng, name, (int(rng.integers(1, 5)), columns)[int(rng.random() < 0.2) :])

    KERNEL_CASES[kind] = any_shape
    return make


def update_case(
    rng: np.random.Generator, name: str, kind: str, shape: tuple[int, ...], states: dict[str, Tensor], attributes: dict
) -> Case:
    """An update by `kind`: masters, gradients and rates of any size; `states` get none of their own values here."""
    master = tensor("master", shape, "float32", Purpose.MASTER)
    rate = Tensor("rate", (), "float32", Purpose.ARGUMENT)
    inputs = {"gradient": tensor("g", shape, "float32"), "learning_rate": rate, "master": master, **states}
    outputs = {n: inputs[n] for n in OPS[kind].results if n in inputs}
    values: dict[str, Value] = {"gradient": _floats(rng, shape), "master": _floats(rng, shape)}
    values["learning_rate"] = np.float32(rng.choice([0.0, 1e-4, 0.02, 1e30, np.inf, -0.5]))
    attributes |= {"weight_decay": float(rng.choice([0.0, 0.01, 1e6]))}
    return Operation(OPS[kind], name, inputs, outputs, attributes), values


def _state(name: str, shape: tuple[int, ...], dtype: str = "float32") -> Tensor:
    return tensor(name, shape, dtype, Purpose.OPTIMIZER_STATE)


@optimizer_case
def sgd(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> Case:
    """With and without momentum, Nesterov's too, and weight decay; masters, gradients and rates that overflow."""
    attributes, states = {"momentum": 0.0, "nesterov": False}, {}
    if rng.random() < 0.6:
        states["velocity"] = _state("velocity", shape)
        attributes = {"momentum": float(rng.choice([0.5, 0.9, 0.99])), "nesterov": bool(rng.random() < 0.5)}
    op, values = update_case(rng, name, "SGD", shape, states, attributes)
    return op, values | {n: _floats(rng, shape) for n in states}


def _betas(rng: np.random.Generator) -> dict[str, float]:
    betas = {"beta_1": float(rng.choice([0.0, 0.9, 0.99])), "beta_2": float(rng.choice([0.0, 0.999, 0.9999]))}
    return {**betas, "epsilon": float(rng.choice([1e-30, 1e-8, 1e-7, 1e-3]))}


def _powers(rng: np.random.Generator, betas: dict[str, float]) -> np.ndarray:
    step = float(rng.choice([1, 2, 10, 1000, 1e6]))
    return np.array([betas["beta_1"], betas["beta_2"]], np.float32) ** np.float32(step)


@case
def adam_step(rng: np.random.Generator, name: str) -> Case:
    """Any power, down to 0."""
    betas, powers = _betas(rng), _state("adam_powers", (2,))
    op = Operation(OPS["ADAM_STEP"], name, {"adam_powers": powers}, {"adam_powers": powers}, betas)
    return op, {"adam_powers": _powers(rng, betas)}


@optimizer_case
def adam(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> Case:
    """Moments within their limits, at any step."""
    attributes = _betas(rng)
    states = {n: _state(n, shape) for n in ("first_moment", "second_moment")}
    op, values = update_case(rng, name, "ADAM", shape, states | {"adam_powers": _state("powers", (2,))}, attributes)
    values |= {n: limit_float(_floats(rng, shape)) for n in states}
    values["second_moment"] = np.abs(values["second_moment"])
    return op, values | {"adam_powers": _powers(rng, attributes)}


@optimizer_case
def adam8(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> Case:
    """Rows shorter than a block, of several, and with a part of one at the end; scales of any size, 0 too."""
    attributes = _betas(rng)
    scales = block_shape(shape)
    states = {"first_moment": _state("first", shape, "int8"), "second_moment": _state("second", shape, "uint8")}
    states |= {n: _state(n, scales) for n in ("first_scale", "second_scale")}
    op, values = update_case(rng, name, "ADAM8", shape, states | {"adam_powers": _state("powers", (2,))}, attributes)
    values["first_moment"] = rng.integers(-127, 128, shape).astype(np.int8)
    values["second_moment"] = rng.integers(0, 256, shape).astype(np.uint8)
    for n, largest in (("first_scale", 2**20 / 127), ("second_scale", 2**10 / 255)):
        values[n] = limit_float(np.abs(_floats(rng, scales)), np.float32(largest))
    return op, values | {"adam_powers": _powers(rng, attributes)}


@case
def clip_factor(rng: np.random.Generator, name: str) -> Case:
    """Norms within the limit and beyond it, sums that overflow, sizes around that of a part."""
    shapes = [(int(n), int(rng.integers(1, 4))) for n in rng.choice([1, 3, 85, 128, 256, 257, 600], rng.integers(1, 4))]
    sums = {f"sum{i}": _state(f"sum{i}", shape) for i, shape in enumerate(shapes)}
    inputs = {"count": Tensor("count", (), "int32", Purpose.ARGUMENT), **sums}
    attributes = {"clip_norm": float(rng.choice([1e-3, 1.0, 30.0, 1e6]))}
    op = Operation(OPS["CLIP_FACTOR"], name, inputs, {"factor": tensor("factor", (1,), "float32")}, attributes)
    counts = np.int32(rng.choice([0, 1, 4, 1000, -1]))
    return op, {"count": counts, **{n: _floats(rng, t.shape) for n, t in sums.items()}}


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
    """Zero and others, of both types."""
    state = tensor("state", _shape(rng), str(rng.choice(["float32", "int32"])), Purpose.OPTIMIZER_STATE)
    values = [0.0, 1.0, -0.3] if state.dtype == "float32" else [0.0, 1.0, -7.0]
    op = Operation(OPS["INITIALIZE_CONSTANT"], name, {}, {"state": state}, {"value": float(rng.choice(values))})
    return op, {}


@case
def initialize_zero(rng: np.random.Generator, name: str) -> Case:
    """Of every dtype that states have."""
    state = _state("state", _shape(rng), str(rng.choice(["float32", "int8", "uint8"])))
    return Operation(OPS["INITIALIZE_ZERO"], name, {}, {"state": state}), {}


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


@case
def mark_rows(rng: np.random.Generator, name: str) -> Case:
    """Every value."""
    changed = tensor("changed", (int(rng.integers(1, 40)),), "int8", Purpose.OPTIMIZER_STATE)
    return Operation(OPS["MARK_ROWS"], name, {}, {"row_changed": changed}, {"value": int(rng.integers(3))}), {}
