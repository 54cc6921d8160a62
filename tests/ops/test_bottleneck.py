"""Bottlenecks and the input's offset: functions close to the real ones, gradients, updates by rows, the way back."""

from __future__ import annotations

import numpy as np
import pytest
from bottleneck_cases import BOTTLENECK_CASES
from bottleneck_reference import FUNCTIONS, added, gradients, hidden_of
from kernel_harness import compare_kernel, compile_operations
from layer_cases import tensor
from small_models import load, samples
from whole_gradients import trained_state

from tinypeft.adapters import AdapterConfig
from tinypeft.arithmetic import MASTER_LIMIT
from tinypeft.compiler import CompiledModel, compile_model
from tinypeft.interpreter import run_graph
from tinypeft.ir import Operation, Purpose, Tensor
from tinypeft.ops import OPS
from tinypeft.ops.base import BlockFloat
from tinypeft.stages.autodiff import TrainingConfig

UNITS = [1e-5, 1e-4, 3e-3, 0.1, 2.0, 5.0, 700.0]


def _gate(unit: float) -> np.ndarray:
    inputs = {"a_scale": tensor("a", (1,), "float32"), "hidden_shift": tensor("k", (1,), "int8")}
    attributes = {"input_scale": np.float32(unit / 0.25 / 8)}
    op = Operation(OPS["HIDDEN_GATE"], "gate", inputs, {"gate": tensor("g", (2,), "int16")}, attributes)
    return op.op.evaluate(op, {"a_scale": np.float32([0.25]), "hidden_shift": np.int8([3])})["gate"]


def _hidden(unit: float) -> np.ndarray:
    """Every hidden value that matters: those around 0 and around the ends of the curve, and the extremes."""
    near = np.arange(-3000, 3001)
    around = np.arange(-5, 6)[:, None] + np.rint(np.linspace(-4, 4, 2001) / unit)
    every = np.concatenate([near, around.reshape(-1), [-32767, 32767]])
    return np.unique(np.clip(every, -32767, 32767)).astype(np.int16)


@pytest.mark.parametrize("unit", UNITS)
def test_hard_swish_is_close_to_the_real_one(unit: float) -> None:
    hidden = _hidden(unit)
    inputs = {"hidden": tensor("hidden", hidden.shape, "int16"), "gate": tensor("g", (2,), "int16")}
    op = Operation(OPS["HIDDEN_ACTIVATION"], "a", inputs, {"output": tensor("o", hidden.shape, "int16")})
    actual = op.op.evaluate(op, {"hidden": hidden, "gate": _gate(unit)})["output"]
    expected = FUNCTIONS["hard_swish"][0](hidden * unit) / unit
    # the gate is rounded to 2**-15, its multiplier to 15 bits: half a step each, beside the rounding of the result
    np.testing.assert_array_less(np.abs(actual - expected), 0.51 + np.abs(hidden) * 2.0**-15)
    assert (actual[hidden == 0] == 0).all() and (np.abs(actual) <= np.abs(hidden)).all()


@pytest.mark.parametrize("unit", UNITS)
def test_slope_of_the_hard_swish_is_close_to_the_real_one(unit: float) -> None:
    hidden = _hidden(unit)
    inputs = {"d_output": tensor("d", hidden.shape, "bfp16"), "hidden": tensor("h", hidden.shape, "int16")}
    inputs["gate"] = tensor("g", (2,), "int16")
    op = Operation(OPS["HIDDEN_ACTIVATION_BACKWARD"], "b", inputs, {"d_hidden": tensor("o", hidden.shape, "bfp16")})
    d_output = BlockFloat(np.full(hidden.shape, 20000, np.int16), -7)
    values = {"d_output": d_output, "hidden": hidden, "gate": _gate(unit)}
    actual = op.op.evaluate(op, values)["d_hidden"].to_float() / (20000 * 2.0**-7)
    expected = FUNCTIONS["hard_swish"][1](hidden * unit)
    smooth = np.abs(np.abs(hidden * unit) - 3) > 1e-3  # at its ends the slope jumps
    assert np.abs(actual - expected)[smooth].max() < 3e-4


@pytest.mark.parametrize("function", FUNCTIONS)
def test_reference_follows_finite_differences(function: str) -> None:
    """The float64 gradients that whole models are compared with, against differences of the function itself."""
    rng = np.random.default_rng(3)
    taps = [((slice(None), slice(i, i + 3), slice(None)), ..., (slice(None), i)) for i in range(2)]
    x, a, b = rng.normal(0, 1, (1, 4, 2, 5)), rng.normal(0, 1, (3, 2, 5)), rng.normal(0, 1, (6, 3))
    d, scaling, shape = rng.normal(0, 1, (1, 3, 2, 6)), 0.7, (1, 3, 2)
    hidden = hidden_of(x, a, taps, shape)
    assert np.abs(np.abs(hidden) - (0 if function == "relu" else 3)).min() > 1e-3, "no hidden value at a kink"
    value, slope = (f(hidden) for f in FUNCTIONS[function])
    found = gradients(d, x, a, b, scaling, value, slope, taps)

    def loss(operands: list[np.ndarray]) -> float:
        return float((d * added(*operands, scaling, function, taps, shape)).sum())

    for number, gradient in enumerate(found):
        direction, step = rng.normal(0, 1, gradient.shape), 1e-5
        ends = []
        for sign in (1, -1):
            operands = [x, a, b]
            operands[number] = operands[number] + sign * step * direction
            ends.append(loss(operands))
        expected = (ends[0] - ends[1]) / (2 * step)
        np.testing.assert_allclose((gradient * direction).sum(), expected, rtol=1e-4)


def _updates(rng: np.random.Generator, name: str) -> tuple[Operation, dict]:
    """UPDATE_ROWS of INPUT_OFFSET_BACKWARD and SGD."""
    producer, values = BOTTLENECK_CASES["INPUT_OFFSET_BACKWARD"](rng, name)
    shape = producer.output.shape
    master = tensor("master", shape, "float32", Purpose.MASTER)
    rate = Tensor("rate", (), "float32", Purpose.ARGUMENT)
    gradient = tensor("gradient", shape, "float32")
    inputs = {"gradient": gradient, "learning_rate": rate, "master": master}
    update = Operation(
        OPS["SGD"], f"{name}_sgd", inputs, {"master": master}, {"momentum": 0.0, "nesterov": False, "weight_decay": 0.0}
    )
    attributes = {"gradient": producer, "update": update}
    operands = {**producer.inputs, "learning_rate": rate, "master": master}
    op = Operation(OPS["UPDATE_ROWS"], name, operands, {"master": master}, attributes)
    values |= {"learning_rate": np.float32(0.1), "master": rng.normal(0, 1, shape).astype(np.float32)}
    return op, values


def test_offsets_are_updated_by_rows() -> None:
    rng = np.random.default_rng(5)
    cases = [_updates(rng, f"op{i}") for i in range(60)]
    for compiled, (_, values) in zip(compile_operations([op for op, _ in cases]), cases, strict=True):
        results = compare_kernel(compiled, values)
        step = 0.1 * values["d_output"].to_float().reshape(values["master"].shape)
        expected = np.clip(values["master"] - step, -MASTER_LIMIT, MASTER_LIMIT)
        np.testing.assert_allclose(results["master"], expected, rtol=1e-5, atol=1e-6)


def _compiled(kinds: str, *options: tuple[str, object], saved: tuple[str, ...] | None = None) -> CompiledModel:
    config = AdapterConfig(kinds, options=options, modules_to_save=saved)
    return compile_model("plain", b"", load("plain").graph, config, TrainingConfig())


@pytest.mark.parametrize("function", ["relu", "hard_swish"])
@pytest.mark.parametrize("kinds", ["bottleneck", "parallel_bottleneck", "input_offset+bottleneck+lora"])
def test_restored_masters_give_the_same_integers(kinds: str, function: str) -> None:
    model = _compiled(kinds, ("non_linearity", function), ("reduction_factor", 2))
    state = trained_state(model, 7)
    before = {t.name: state[t.name].copy() for t in model.adapter_weights}
    assert model.restore is not None and model.requantize is not None
    for parameter in model.parameters:
        state[parameter.master.name] = np.full_like(state[parameter.master.name], np.nan)
    run_graph(model.restore, {}, state)
    run_graph(model.requantize, {}, state)
    for name, value in before.items():
        if value.dtype == np.float32:
            np.testing.assert_allclose(state[name], value, rtol=3e-7)
        else:
            np.testing.assert_array_equal(state[name], value, name)


def test_a_black_background_learns_its_offset() -> None:
    """What the sensor gives as -128 is no clamp of the offset; what the offset pushes beyond the limits is."""
    model = _compiled("input_offset")
    state = model.fresh_state(0)
    training = model.training
    assert training is not None
    shape = training.inputs[0].shape
    x = np.full(shape, -128, np.int8)
    arguments = {training.inputs[0].name: x, "label": np.int32(1), "learning_rate": np.float32(1.0)}
    run_graph(training, arguments, state)
    learned = state["input_offset_master"].reshape(shape)
    assert np.count_nonzero(learned) > learned.size // 2
    state["input_offset_master"] = np.full_like(state["input_offset_master"], -1.0)
    assert model.requantize is not None
    run_graph(model.requantize, {}, state)
    assert (state["input_offset"] == -50).all()
    run_graph(training, arguments, state)
    assert (state["input_offset_master"] == -1.0).all(), "all of it is clamped"


@pytest.mark.parametrize(
    ("kinds", "rate", "share"),
    [("bottleneck", 0.05, 0.7), ("parallel_bottleneck", 0.05, 0.7), ("input_offset", 0.5, 0.9)],
)
def test_training_lowers_the_loss(kinds: str, rate: float, share: float) -> None:
    """Of a sample, with the classifier as it is, so that the adapter alone learns."""
    model = _compiled(kinds, ("reduction_factor", 1), saved=())
    assert model.training is not None
    state, x = model.fresh_state(1), samples(load("plain"), 1).x
    arguments = {model.training.inputs[0].name: x, "label": np.int32(0), "learning_rate": np.float32(rate)}
    losses = [float(run_graph(model.training, arguments, state)[0][0]) for _ in range(40)]
    assert min(losses[20:]) < share * losses[0], losses
