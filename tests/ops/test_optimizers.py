"""Optimisers: by rows as in one call, as Keras computes them, and with moments of 8 bits as with those of 32."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest
from kernel_harness import assert_equal, compile_library, initialiser
from training_cases import KERNEL_CASES, OPTIMIZER_CASES

from tinypeft.ir import Operation, Purpose, Tensor
from tinypeft.ops import OPS
from tinypeft.ops.adam import step_size
from tinypeft.ops.base import Value
from tinypeft.optimizers import OPTIMIZERS
from tinypeft.stages.autodiff import TrainingConfig

UPDATES = list(OPTIMIZER_CASES)  # gradients by rows, and sums, are cases of UPDATE_ROWS


def _row_count(op: Operation) -> int:
    """A vector is one row."""
    return op.output.shape[0] if len(op.output.shape) > 1 else 1


def _run_by_rows(function: Any, op: Operation, values: dict[str, Value], calls: list[int]) -> dict[str, Value]:
    """The outputs of one call for each number of rows in `calls`."""
    arrays = {n: np.array(v) for n, v in values.items()}
    states = op.op.row_function(op).states
    names = {id(t): n for n, t in op.inputs.items()}
    pointers = (ctypes.c_void_p * max(len(states), 1))(*(arrays[names[id(t)]].ctypes.data for t in states))
    row_size, row = op.output.size // _row_count(op), 0
    gradient, master = arrays["gradient"].reshape(_row_count(op), -1), arrays["master"]
    for rows in calls:
        part = np.ascontiguousarray(gradient[row : row + rows])
        rate = ctypes.c_float(float(values["learning_rate"]))
        at = ctypes.c_void_p(part.ctypes.data), rate, ctypes.c_void_p(master.ctypes.data)
        function(row * row_size, rows * row_size, *at, pointers if states else None)
        row += rows
    assert row == _row_count(op)
    return {n: arrays[n] for n in op.outputs}


@pytest.mark.parametrize("kind", UPDATES)
def test_rows_divided_into_calls_get_the_same_bits(kind: str) -> None:
    """One row a call, all rows in one, and any number of them."""
    rng = np.random.default_rng(5)
    cases = [KERNEL_CASES[kind](rng, f"op{i}") for i in range(60)]
    lines = ['#include "tinypeft/tp_kernels.h"']
    parameters = "int32_t first, int32_t count, const float *gradient, float rate, float *master, void *const *states"
    for i, (op, _) in enumerate(cases):
        rows = op.op.row_function(op)
        body = initialiser(rows.fields, f"p{i}", lines)
        lines += [
            f"static const {rows.params} p{i} = {body};",
            f"void u{i}({parameters});",
            f"void u{i}({parameters}) {{",
            f"  const tp_optimizer_function update = {rows.name};",
            f"  update(&p{i}, first, count, gradient, rate, master, states);",
            "}",
        ]
    library = compile_library("\n".join(lines) + "\n", [OPS[kind].source])
    several = 0
    for i, (op, values) in enumerate(cases):
        expected = op.op.evaluate(op, values)
        count, function = _row_count(op), getattr(library, f"u{i}")
        several += count > 1
        cut = int(rng.integers(0, count + 1))
        for calls in ([1] * count, [count], [cut, count - cut], [0, count]):
            assert_equal(op, _run_by_rows(function, op, values, calls), expected)
    assert several > 20


def train(config: TrainingConfig, gradients: Any, start: np.ndarray, steps: int, rate: float) -> np.ndarray:
    """The masters after `steps` steps; `gradients` gives the gradient at (masters, step)."""
    optimizer, settings = OPTIMIZERS[config.optimizer], vars(config)
    master = Tensor("w", start.shape, "float32", Purpose.MASTER)
    argument = Tensor("rate", (), "float32", Purpose.ARGUMENT)
    gradient = Tensor("g", start.shape, "float32", Purpose.GRADIENT)
    shared = optimizer.shared(settings)
    states = optimizer.states(master, settings) | shared.states
    update = optimizer.update(master, gradient, argument, states, settings)
    values = {n: np.full(t.shape, shared.starts.get(n, 0), t.dtype) for n, t in states.items()}
    values |= {"master": start.astype(np.float32), "learning_rate": np.float32(rate)}
    for step in range(steps):
        for op in shared.operations:
            values |= op.op.evaluate(op, values)
        values["gradient"] = gradients(values["master"], step).astype(np.float32)
        values |= update.op.evaluate(update, values)
    return values["master"]


@pytest.mark.parametrize(
    ("settings", "keras_name", "keras_settings"),
    [
        ({}, "SGD", {}),
        ({"momentum": 0.9}, "SGD", {"momentum": 0.9}),
        ({"momentum": 0.9, "nesterov": True}, "SGD", {"momentum": 0.9, "nesterov": True}),
        ({"optimizer": "adam"}, "Adam", {}),
        ({"optimizer": "adam", "beta_1": 0.5, "epsilon": 1e-3}, "Adam", {"beta_1": 0.5, "epsilon": 1e-3}),
        ({"optimizer": "adam", "weight_decay": 0.1}, "AdamW", {"weight_decay": 0.1}),
        ({"optimizer": "adam", "weight_decay": 0.1, "beta_2": 0.9}, "AdamW", {"weight_decay": 0.1, "beta_2": 0.9}),
    ],
)
def test_50_steps_as_keras_takes_them(settings: dict, keras_name: str, keras_settings: dict) -> None:
    optimizers = pytest.importorskip("keras").optimizers
    import keras

    rng = np.random.default_rng(2)
    start, noise = rng.normal(0, 1, (4, 3)).astype(np.float32), rng.normal(0, 1, (50, 4, 3)).astype(np.float32)
    ours = train(TrainingConfig(**settings), lambda w, step: w + noise[step], start, 50, 0.01)
    optimizer = getattr(optimizers, keras_name)(learning_rate=0.01, **keras_settings)
    variable = keras.Variable(start)
    optimizer.build([variable])
    for step in range(50):
        optimizer.apply([keras.ops.add(variable, noise[step])])
    np.testing.assert_allclose(ours, keras.ops.convert_to_numpy(variable), rtol=2e-5, atol=2e-6)
    assert np.abs(ours - start).max() > 0.1


def test_the_weight_decay_of_sgd_joins_the_gradient() -> None:
    """As an L2 penalty does, momentum included."""
    rng = np.random.default_rng(3)
    start, noise = rng.normal(0, 1, (2, 5)), rng.normal(0, 1, (30, 2, 5))
    by_setting = TrainingConfig(momentum=0.9, weight_decay=0.2)
    found = train(by_setting, lambda w, step: noise[step], start, 30, 0.02)
    by_hand = train(TrainingConfig(momentum=0.9), lambda w, step: noise[step] + 0.2 * w, start, 30, 0.02)
    np.testing.assert_allclose(found, by_hand, rtol=1e-5, atol=1e-6)
    assert np.abs(found - train(TrainingConfig(momentum=0.9), lambda w, step: noise[step], start, 30, 0.02)).max() > 0.1


def _quadratic(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[Any, Any]:
    """(gradient, loss) of sum(curvature * (w - target)**2) / 2, curvatures over four orders of magnitude."""
    curvature, target = 10 ** rng.uniform(-3, 1, shape), rng.normal(0, 1, shape)
    return (lambda w, _: curvature * (w - target)), (lambda w: float((curvature * (w - target) ** 2).sum() / 2))


def _logistic(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[Any, Any]:
    """(gradient of one sample, mean loss) of a softmax regression whose features differ by two orders of magnitude."""
    x = rng.normal(0, 1, (300, shape[1])) * 10 ** rng.uniform(-2, 0, shape[1])
    y = (x @ rng.normal(0, 1, shape).T + rng.gumbel(0, 0.3, (300, shape[0]))).argmax(1)

    def probabilities(w: np.ndarray, samples: Any) -> np.ndarray:
        z = np.exp(x[samples] @ w.T - (x[samples] @ w.T).max(-1, keepdims=True))
        return z / z.sum(-1, keepdims=True)

    def gradient(w: np.ndarray, step: int) -> np.ndarray:
        i = step * 7 % 300
        return np.outer(probabilities(w, [i])[0] - np.eye(shape[0])[y[i]], x[i])

    return gradient, lambda w: float(-np.log(probabilities(w, slice(None))[np.arange(300), y] + 1e-30).mean())


@pytest.mark.parametrize("shape", [(8, 4), (10, 100)])
@pytest.mark.parametrize("problem", [_quadratic, _logistic])
def test_adam8_converges_as_adam_does(problem: Any, shape: tuple[int, int]) -> None:
    gradient, loss = problem(np.random.default_rng(7), shape)
    start = np.zeros(shape)
    after = {
        name: loss(train(TrainingConfig(optimizer=name), gradient, start, 1500, 0.005)) for name in ("adam", "adam8")
    }
    assert after["adam"] < 0.8 * loss(start), after
    assert after["adam8"] < 1.02 * after["adam"] + 0.001 * loss(start), after


def test_a_linear_code_of_the_second_moment_would_not_converge() -> None:
    """Small second moments would become 0, and their steps huge: why it is the root that is kept."""
    gradient, loss = _logistic(np.random.default_rng(7), (10, 100))
    w, first, second = np.zeros((3, 10, 100))
    for step in range(300):
        g = gradient(w, step)
        first, second = first + (g - first) * 0.1, second + (g * g - second) * 0.001
        size = 0.005 * np.sqrt(1 - 0.999 ** (step + 1)) / (1 - 0.9 ** (step + 1))
        w = w - size * first / (np.sqrt(second) + 1e-7)
        unit = second.max(axis=1, keepdims=True) / 255
        second = np.round(second / unit) * unit
    root = train(TrainingConfig(optimizer="adam8"), gradient, np.zeros((10, 100)), 300, 0.005)
    assert loss(w) > 5 * loss(root)


def test_adam8_keeps_a_biass_moments_in_float32() -> None:
    settings = vars(TrainingConfig(optimizer="adam8"))
    optimizer = OPTIMIZERS["adam8"]
    for shape, kind, nbytes in (((10,), "ADAM", 80), ((10, 1), "ADAM", 80), ((10, 100), "ADAM8", 2000 + 2 * 4 * 20)):
        master = Tensor("w", shape, "float32", Purpose.MASTER)
        states = optimizer.states(master, settings)
        assert sum(t.nbytes for t in states.values()) == nbytes
        gradient, rate = Tensor("g", shape, "float32", Purpose.GRADIENT), Tensor("r", (), "float32", Purpose.ARGUMENT)
        every = states | optimizer.shared(settings).states
        assert optimizer.update(master, gradient, rate, every, settings).kind == kind


def test_adam_does_not_wear_out() -> None:
    """The powers of the betas run down to 0; the step size then is the learning rate."""
    op = OPTIMIZERS["adam"].shared(vars(TrainingConfig(optimizer="adam"))).operations[0]
    powers = np.ones(2, np.float32)
    for _ in range(200_000):
        powers = op.op.evaluate(op, {"adam_powers": powers})["adam_powers"]
    assert (powers < 1e-40).all()
    assert step_size(np.float32(0.02), powers) == np.float32(0.02)
