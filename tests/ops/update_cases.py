"""ROW_CASES: random UPDATE_ROWS for each gradient of a parameter and each optimiser that it may hold; UPDATE_FROM_SUMS.

GRADIENTS and OPTIMIZERS make the operations that are held; each is found in KERNEL_CASES' form.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from bottleneck_cases import BOTTLENECK_CASES
from cases import random_int8, random_zero_point
from channel_cases import ia3_backward
from layer_cases import Case, gradient, tensor
from training_cases import KERNEL_CASES, OPTIMIZER_CASES
from weighted_cases import WEIGHTED_CASES

from tinypeft.ir import Operation, Purpose, Tensor
from tinypeft.ops import OPS
from tinypeft.ops.base import Value
from tinypeft.ops.window import Window

#: kind of a gradient -> (rng, name) -> its operation and values, units left out
GRADIENTS: dict[str, Callable[[np.random.Generator, str], Case]] = {}
#: kind of an optimiser -> (rng, name, master) -> its operation and the values of its states
OPTIMIZERS: dict[str, Callable[[np.random.Generator, str, Tensor], Case]] = {}


def floats(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """float32 of moderate size, or of every size, infinities and not a number."""
    values = rng.normal(0, 1, shape) * 10.0 ** rng.integers(-3, 3)
    if rng.random() < 0.3:
        values = values * 10.0 ** rng.uniform(-40, 38, shape)
        specials = rng.choice([np.nan, np.inf, -np.inf, 0.0, -0.0], shape)
        values = np.where(rng.random(shape) < 0.2, specials, np.clip(values, -3e38, 3e38))
    return values.astype(np.float32)


def finite(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """float32 whose sums are no NaN, of which IEEE 754 leaves the bits open."""
    return np.nan_to_num(floats(rng, shape), posinf=1e38, neginf=-1e38).clip(-1e37, 1e37)


def _producer(
    kind: str, name: str, inputs: dict[str, Tensor], shape: tuple[int, ...], **attributes: object
) -> Operation:
    result = {"gradient": tensor(f"{name}_gradient", shape, "bfp32", Purpose.GRADIENT)}
    return Operation(OPS[kind], name, inputs, result, attributes)


def _conv_2d_backward_filter(rng: np.random.Generator, name: str) -> Case:
    """Any window; a dense layer; so many positions that sums are wider than int32."""
    style = rng.random()
    if style < 0.6:
        window: Window = WEIGHTED_CASES["CONV_2D"](rng).operation().attributes["window"]
    else:
        rows, extent = (1, 1) if style < 0.8 else (70, 70)
        window = Window(rows, extent, int(rng.integers(1, 7)), rows, extent, int(rng.integers(1, 4)), 1, 1)
    x = tensor(f"{name}_x", window.input_shape, "int8")
    x.zero_point = random_zero_point(rng)
    inputs = {"d_output": tensor(f"{name}_d", window.output_shape, "bfp16"), "source": x}
    values: dict[str, Value] = {"d_output": gradient(rng, window.output_shape), "source": random_int8(rng, x.shape)}
    shape = (window.output_c, window.kernel_h, window.kernel_w, window.input_c)
    return _producer("CONV_2D_BACKWARD_FILTER", name, inputs, shape, window=window), values


def _bias_backward(rng: np.random.Generator, name: str) -> Case:
    """A sum over positions."""
    shape = 1, *(int(n) for n in rng.integers(1, 8, 3))
    producer = _producer("BIAS_BACKWARD", name, {"d_output": tensor(f"{name}_d", shape, "bfp16")}, shape[-1:])
    return producer, {"d_output": gradient(rng, shape)}


def _lora_backward_b(rng: np.random.Generator, name: str) -> Case:
    """Ranks of whole blocks and others."""
    rank, positions, channels = (int(rng.integers(1, n)) for n in (10, 12, 6))
    d, hidden = (1, positions, 1, channels), (1, positions, 1, rank)
    inputs = {"d_output": tensor(f"{name}_d", d, "bfp16"), "source": tensor(f"{name}_hidden", hidden, "int16")}
    values = {"d_output": gradient(rng, d), "source": rng.integers(-32767, 32768, hidden).astype(np.int16)}
    return _producer("LORA_BACKWARD_B", name, inputs, (channels, rank)), values


def _optimizer(kind: str) -> Callable[[np.random.Generator, str, Tensor], Case]:
    """An optimiser's own case, of the master's shape."""

    def make(rng: np.random.Generator, name: str, master: Tensor) -> Case:
        update, values = OPTIMIZER_CASES[kind](rng, name, master.shape)
        update.inputs["master"] = update.outputs["master"] = master
        return update, {n: v for n, v in values.items() if n not in ("gradient", "master")}

    return make


def _accumulate_gradient(rng: np.random.Generator, name: str, master: Tensor) -> Case:
    """The master is the sum."""
    inputs = {"gradient": tensor(f"{name}_g", master.shape, "float32"), "master": master}
    return Operation(OPS["ACCUMULATE_GRADIENT"], name, inputs, {"master": master}), {}


GRADIENTS |= {
    "CONV_2D_BACKWARD_FILTER": _conv_2d_backward_filter,
    "BIAS_BACKWARD": _bias_backward,
    "LORA_BACKWARD_B": _lora_backward_b,
    "IA3_BACKWARD": ia3_backward,
    "INPUT_OFFSET_BACKWARD": BOTTLENECK_CASES["INPUT_OFFSET_BACKWARD"],
}
OPTIMIZERS |= {kind: _optimizer(kind) for kind in OPTIMIZER_CASES} | {"ACCUMULATE_GRADIENT": _accumulate_gradient}


def _held(update: Operation, rng: np.random.Generator, name: str) -> tuple[dict[str, Tensor], dict[str, Value]]:
    """What the optimiser takes beside the gradient, and row_changed now and then."""
    inputs = {operand: t for operand, t in update.inputs.items() if operand != "gradient"}
    master = inputs["master"]
    sums = update.kind == "ACCUMULATE_GRADIENT"
    values: dict[str, Value] = {"master": finite(rng, master.shape)}
    if rng.random() < 0.5 and not sums:
        inputs["row_changed"] = tensor(f"{name}_changed", master.shape[:1], "int8", Purpose.OPTIMIZER_STATE)
        values["row_changed"] = rng.integers(0, 3, master.shape[0]).astype(np.int8)
    return inputs, values


def update_rows(rng: np.random.Generator, name: str, gradient_kind: str = "", optimizer_kind: str = "") -> Case:
    """Both kinds drawn where they are not given."""
    producer, values = GRADIENTS[gradient_kind or str(rng.choice(list(GRADIENTS)))](rng, f"{name}_gradient")
    return update_by(rng, name, producer, values, optimizer_kind)


def update_by(
    rng: np.random.Generator, name: str, producer: Operation, values: dict[str, Value], optimizer_kind: str = ""
) -> Case:
    """UPDATE_ROWS by a gradient, by any optimiser where none is given; every unit or none; rows of zeros."""
    shape = producer.output.shape
    master = tensor(f"{name}_master", shape, "float32", Purpose.MASTER)
    update, states = OPTIMIZERS[optimizer_kind or str(rng.choice(list(OPTIMIZERS)))](rng, f"{name}_update", master)
    inputs, more = _held(update, rng, name)
    values |= states | more
    if rng.random() < 0.3:
        channel = int(rng.integers(values["d_output"].mantissa.shape[-1]))
        values["d_output"].mantissa[..., channel] = 0
    producer.attributes["scale"] = np.exp(rng.normal(-3, 2, 1)).astype(np.float32)
    if rng.random() < 0.5:
        producer.attributes["row_scale"] = np.exp(rng.normal(0, 2, shape[0])).astype(np.float32)
    if rng.random() < 0.5:
        producer.inputs["unit"] = tensor(f"{name}_unit", (2,), "float32")
        producer.attributes["unit_index"] = int(rng.integers(2))
        values["unit"] = np.exp(rng.normal(-6, 4, 2)).astype(np.float32)
    if rng.random() < 0.3:
        producer.inputs["channel_unit"] = tensor(f"{name}_channel_unit", shape[:1], "float32")
        values["channel_unit"] = rng.uniform(0.1, 3, shape[0]).astype(np.float32)
    inputs = {**producer.inputs, **inputs}
    outputs = {operand: inputs[operand] for operand in ("row_changed", *update.outputs) if operand in inputs}
    return Operation(OPS["UPDATE_ROWS"], name, inputs, outputs, {"gradient": producer, "update": update}), values


def _update_from_sums(rng: np.random.Generator, name: str) -> Case:
    """A count of zero gives a gradient of zero; with the factor of clipping and without."""
    shape = tuple(int(n) for n in rng.integers(1, 8, rng.integers(1, 4)))
    master = tensor(f"{name}_master", shape, "float32", Purpose.MASTER)
    kinds = [kind for kind in OPTIMIZERS if kind != "ACCUMULATE_GRADIENT"]
    update, values = OPTIMIZERS[str(rng.choice(kinds))](rng, f"{name}_update", master)
    inputs, more = _held(update, rng, name)
    sums = tensor(f"{name}_sums", shape, "float32", Purpose.OPTIMIZER_STATE)
    inputs |= {"count": Tensor("count", (), "int32", Purpose.ARGUMENT), "sums": sums}
    values |= more | {"count": np.int32(rng.choice([0, 1, 2, 3, 7, 100000, -1])), "sums": finite(rng, shape)}
    if rng.random() < 0.5:
        inputs["factor"] = tensor(f"{name}_factor", (1,), "float32")
        values["factor"] = rng.uniform(0, 1, 1).astype(np.float32)
    outputs = {operand: inputs[operand] for operand in ("sums", "row_changed", *update.outputs) if operand in inputs}
    return Operation(OPS["UPDATE_FROM_SUMS"], name, inputs, outputs, {"update": update}), values


KERNEL_CASES |= {"UPDATE_ROWS": update_rows, "UPDATE_FROM_SUMS": _update_from_sums}

ROW_CASES: dict[str, Callable[[np.random.Generator, str], Case]] = {
    **{kind: lambda rng, name, kind=kind: update_rows(rng, name, gradient_kind=kind) for kind in GRADIENTS},
    "ACCUMULATE_GRADIENT": lambda rng, name: update_rows(rng, name, optimizer_kind="ACCUMULATE_GRADIENT"),
}


def held_by(op: Operation) -> dict[str, Operation]:
    """The operations that an update holds, by kind."""
    return {held.kind: held for held in op.attributes.values() if isinstance(held, Operation)}
