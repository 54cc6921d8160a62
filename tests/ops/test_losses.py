"""Losses in integers against float64: the loss, its gradient by finite differences, and gradients near convergence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tinypeft.ir import Operation, Purpose, Tensor
from tinypeft.losses import LOSSES, target_argument
from tinypeft.ops.base import Value
from tinypeft.ops.output_logits import MAX_EXPONENT, MIN_EXPONENT, exponent_for, logits_tensor

EXPONENT = -17


def _softmax(z: np.ndarray, y: Any, settings: dict[str, Any]) -> float:
    smoothing = settings["label_smoothing"]
    t = np.full(z.size, smoothing / z.size)
    t[y] += 1 - smoothing
    weight = settings["class_weights"][y] if settings["class_weights"] else 1.0
    return float(weight * (np.logaddexp.reduce(z) - t @ z))


def _binary(z: np.ndarray, y: Any, settings: dict[str, Any]) -> float:
    return float(np.mean(np.logaddexp(0, z) - y * z))


def _squares(z: np.ndarray, y: Any, settings: dict[str, Any]) -> float:
    return float(np.mean((z - y) ** 2))


PLAIN: dict[str, Any] = {"label_smoothing": 0.0, "class_weights": ()}
WEIGHTED = (0.2, 3.0, 1.0, 0.7, 11.0, 0.03, 1.5)
#: name -> (loss, its formula in float64, settings)
FORMULAS: dict[str, tuple[str, Callable[[np.ndarray, Any, dict[str, Any]], float], dict[str, Any]]] = {
    "softmax": ("softmax_cross_entropy", _softmax, PLAIN),
    "smoothed": ("softmax_cross_entropy", _softmax, PLAIN | {"label_smoothing": 0.1}),
    "weighted": ("softmax_cross_entropy", _softmax, {"label_smoothing": 0.3, "class_weights": WEIGHTED}),
    "binary": ("binary_cross_entropy", _binary, PLAIN),
    "squares": ("mean_squared_error", _squares, PLAIN),
}


def _operation(loss: str, outputs: int, settings: dict[str, Any], exponent: int = EXPONENT) -> Operation:
    logits, entry = logits_tensor((1, outputs), exponent), LOSSES[loss]
    target = Tensor("target", (outputs,), "int32", Purpose.ARGUMENT)
    if entry.targets[0] == "label":
        target = Tensor("target", (), "int32", Purpose.ARGUMENT)
    d_logits = Tensor("d_logits", logits.shape, "bfp16", Purpose.GRADIENT)
    return entry.operation("loss", logits, target, d_logits, {}, settings)


def _evaluate(op: Operation, z: np.ndarray, y: Any) -> tuple[float, np.ndarray, np.ndarray]:
    """(loss, gradient, the logits as they were rounded)."""
    scale = float(op.inputs["logits"].scale[0])  # type: ignore[index]
    q = np.round(z / scale).astype(np.int32).reshape(1, -1)
    values: dict[str, Value] = {"logits": q, **target_argument(op.inputs["target"], y)}
    results = op.op.evaluate(op, values)
    return results["loss"][0] / 65536, results["d_logits"].to_float().reshape(-1), q.reshape(-1) * scale


def _target(rng: np.random.Generator, loss: str, outputs: int) -> Any:
    if loss == "softmax_cross_entropy":
        return int(rng.integers(outputs))
    y = rng.uniform(0, 1, outputs) if loss == "binary_cross_entropy" else rng.normal(0, 3, outputs)
    return np.round(y * 65536) / 65536


@pytest.mark.parametrize("name", FORMULAS)
def test_gradients_are_the_slopes_of_the_loss(name: str) -> None:
    loss, formula, settings = FORMULAS[name]
    rng = np.random.default_rng(3)
    for _ in range(300):
        outputs = 7 if settings["class_weights"] else int(rng.integers(1, 40))
        op, y = _operation(loss, outputs, settings), _target(rng, loss, outputs)
        found, gradient, z = _evaluate(op, rng.normal(0, rng.choice([0.1, 1.0, 5.0]), outputs), y)
        expected = formula(z, y, settings)
        weight = settings["class_weights"][y] if settings["class_weights"] else 1.0  # of a loss that is rounded before
        assert abs(found - expected) <= max(weight, 1) / 65536 + 1e-6 * expected, f"{name}: {found}, {expected}"
        step = np.eye(outputs) * 1e-5
        slopes = np.array([(formula(z + s, y, settings) - formula(z - s, y, settings)) / 2e-5 for s in step])
        assert np.abs(gradient - slopes).max() <= 1e-4 * np.abs(slopes).max() + 1e-8


def test_small_gradients_keep_their_precision() -> None:
    """Where the label or the output is nearly certain, the gradient still has 15 bits or those of 2**-31."""
    for margin in np.linspace(1, 14, 40):
        p = 1 / (1 + np.exp(-margin))
        op = _operation("softmax_cross_entropy", 2, PLAIN, -20)
        _, gradient, z = _evaluate(op, np.array([margin, 0.0]), 0)
        expected = 1 / (1 + np.exp(z[0] - z[1]))
        np.testing.assert_allclose(gradient, [-expected, expected], rtol=2.0**-15 + 3e-7, atol=2.0**-31)
        for sign in (1, -1):
            op = _operation("binary_cross_entropy", 1, PLAIN, -20)
            _, gradient, z = _evaluate(op, np.array([sign * margin]), np.array([max(sign, 0)]))
            np.testing.assert_allclose(gradient, [-sign / (1 + np.exp(abs(z[0])))], rtol=2.0**-15 + 3e-7, atol=2.0**-31)
        assert 0.5 < p < 1
    op = _operation("mean_squared_error", 3, PLAIN, -20)
    _, gradient, z = _evaluate(op, np.array([1 + 2.0**-19, 1.0, 1.0]), np.ones(3))
    np.testing.assert_allclose(gradient, 2 / 3 * (z - 1), rtol=1e-4)


def test_losses_saturate() -> None:
    """A loss beyond Q16.16 is its largest value; gradients are those of a certain, wrong answer."""
    for loss, y in (("softmax_cross_entropy", 1), ("mean_squared_error", np.zeros(2))):
        found, gradient, _ = _evaluate(_operation(loss, 2, PLAIN, 0), np.array([2e9, -2e9]), y)
        assert found == (2**31 - 1) / 65536 and np.isfinite(gradient).all() and gradient[0] > 0 > gradient[1]
    found, gradient, _ = _evaluate(_operation("binary_cross_entropy", 2, PLAIN, 0), np.array([2e9, 2e9]), np.zeros(2))
    assert found == (2**31 - 1) / 65536 and np.allclose(gradient, 0.5, rtol=1e-4)


def test_the_exponent_leaves_room() -> None:
    for scale in np.exp(np.linspace(-16, 9, 50)):
        output = Tensor("y", (1, 3), "int8", Purpose.ACTIVATION, np.array([scale], np.float32))
        exponent = exponent_for(output)
        reach = 2.0 ** (31 + exponent) / (255 * scale)
        assert MIN_EXPONENT <= exponent <= MAX_EXPONENT
        assert exponent == MAX_EXPONENT or reach >= 512
        assert exponent == MIN_EXPONENT or reach < 1024
