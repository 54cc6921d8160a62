"""The float64 straight-through gradients, with which integer ones are compared, against central differences.

For every operator with a gradient and every adapter kind: of sum(d_output * output), by every operand that is no
constant and by every master, an element at a time.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from bottleneck_reference import FUNCTIONS
from cases import CASES
from float_forward import Shadow, real_output, unclamped_output
from float_reference import Reference
from small_models import MODELS, load
from whole_gradients import trained_state

from tinypeft.adapters import ADAPTERS, AdapterConfig
from tinypeft.compiler import CompiledModel, compile_model
from tinypeft.interpreter import run_graph
from tinypeft.ir import Operation
from tinypeft.ops import OPS
from tinypeft.ops.constraints import per_tensor
from tinypeft.ops.loss import LossOp
from tinypeft.stages.autodiff import TrainingConfig

TOLERANCE = 1e-4
#: elements of an operand that are moved, and by how many steps
ELEMENTS, STEP = 10, 1e-4
#: operators whose effect is part of the layer behind them
INSIDE = ("LORA_DOWN", "HIDDEN_ACTIVATION")
_OPTIONS: dict[str, tuple[tuple[str, Any], ...]] = {
    "bottleneck": (("reduction_factor", 2),),
    "parallel_bottleneck": (("reduction_factor", 2), ("non_linearity", "hard_swish")),
    "sparse": (("density", 0.4),),
}
KINDS = {
    kind: AdapterConfig(kind, r=2, modules_to_save=(), options=_OPTIONS.get(kind, ()))
    if kind != "modules_to_save"
    else AdapterConfig(kind)
    for kind in ADAPTERS
}
#: (kind, small model): every model with LoRA, every kind on those with all sorts of layers
PAIRS = [(kind, name) for kind in KINDS for name in MODELS if kind == "lora" or name in ("plain", "forms", "mlp")]
#: operators whose function ends at zero
POSITIVE = ("SQRT", "RSQRT", "LOG")
DIFFERENTIABLE = [name for name, op in OPS.items() if op.differentiable]
#: operators that the small models do not contain
ALONE = [name for name in DIFFERENTIABLE if name in CASES]


@functools.cache
def adapted(kind: str, name: str) -> tuple[CompiledModel, dict[str, np.ndarray]]:
    """A small model with a kind, and a state of it whose masters are what the integers stand for."""
    model = compile_model(name, b"\0" * 32, load(name).graph, KINDS[kind], TrainingConfig())
    state = trained_state(model, 5)
    assert model.restore is not None
    run_graph(model.restore, {}, state)
    return model, state


def forward(model: CompiledModel) -> list[Operation]:
    """The operations in front of the loss that a gradient passes."""
    assert model.training is not None
    operations = model.training.operations
    loss = next(i for i, op in enumerate(operations) if isinstance(op.op, LossOp))
    return [op for op in operations[:loss] if op.op.differentiable]


def shadow_of(model: CompiledModel, state: dict[str, np.ndarray]) -> Shadow:
    """The masters and projections of an adapted model."""
    operations = forward(model)
    return Shadow(
        {p.quantized.name: state[p.master.name].astype(np.float64) for p in model.parameters},
        {op.output.name: op for op in operations if op.kind == "LORA_DOWN"},
        {op.output.name: op for op in operations if op.kind == "HIDDEN_ACTIVATION"},
    )


def random_reals(rng: np.random.Generator, op: Operation) -> dict[str, np.ndarray]:
    """Values of the operands that are int8: a fraction of a step off their levels, so that none lies at a kink."""
    reals = {}
    for number, (name, tensor) in enumerate(op.inputs.items()):
        if tensor.dtype != "int8" or (tensor.data is None and tensor.persistent):
            continue
        scale, zero_point = per_tensor(tensor) if tensor.scale is None or len(tensor.scale) == 1 else (0.0, 0)
        if tensor.data is not None:
            if scale:
                reals[name] = scale * (tensor.data.astype(np.float64) - zero_point)
            continue
        low = zero_point + 1 if op.kind in POSITIVE else -100
        levels = rng.integers(low, max(low + 1, 100), tensor.shape)
        reals[name] = np.asarray(
            scale * (levels + 0.2 + 0.25 * number + rng.uniform(0, 0.1, tensor.shape) - zero_point)
        )
    return reals


def reference_gradients(
    op: Operation, reals: dict[str, np.ndarray], shadow: Shadow, state: dict[str, np.ndarray], d: np.ndarray
) -> dict[str, np.ndarray]:
    """By tensor name, as whole models are compared with."""
    values: dict[str, Any] = dict(state)
    for name, real in reals.items():
        scale, zero_point = per_tensor(op.inputs[name])
        values[op.inputs[name].name] = real / scale + zero_point
    y = unclamped_output(op, reals, shadow)
    if op.output.scale is not None:
        values[op.output.name] = (y / op.output.scale[0] + op.output.zero_point).reshape(op.output.shape)
    if "hidden" in op.inputs:
        values |= _hidden(op, reals["input"], shadow, state)
    reference = Reference(values)
    reference.gradients[op.output.name] = d
    reference.backward(op)
    return {name: gradient for name, gradient in reference.gradients.items() if name != op.output.name}


def _hidden(op: Operation, x: np.ndarray, shadow: Shadow, state: dict[str, np.ndarray]) -> dict[str, Any]:
    """What the reference wants to know of an addend: its down-projection, and the values around its function."""
    down, function = shadow.down_of(op)
    last = op.inputs["hidden"].name
    known: dict[str, Any] = {"lora_A of hidden": {last: down.inputs["lora_A"]}, "functions of hidden": {}}
    if function:
        a = shadow.master(down.inputs["lora_A"])
        assert a is not None
        hidden = down.attributes["window"].patches(x).reshape(-1, a.size // len(a)) @ a.reshape(len(a), -1).T
        unit = float(state[op.attributes["lora"].gradient_unit.name][1]) * per_tensor(down.inputs["input"])[0]
        known["functions of hidden"] = {last: (FUNCTIONS[function], down.output)}
        known |= {down.output.name: hidden / unit, last: FUNCTIONS[function][0](hidden) / unit}
    return known


def check(op: Operation, shadow: Shadow, state: dict[str, np.ndarray], rng: np.random.Generator) -> set[str]:
    """Assert that the reference's gradients are the slopes of the operator; the names of what it was compared for."""
    reals = random_reals(rng, op)
    d = rng.normal(0, 1, op.output.shape)
    gradients = reference_gradients(op, reals, shadow, state, d)
    names = {t.name for t in op.inputs.values()}
    if "hidden" in op.inputs:
        names.add(shadow.down_of(op)[0].inputs["lora_A"].name)
    places = {op.inputs[name].name: (reals, name) for name in reals if op.inputs[name].data is None}
    places |= {name: (shadow.masters, name) for name in names if name in shadow.masters}
    if op.kind == "INPUT_OFFSET":  # nothing in front of it learns
        del places[op.inputs["input"].name]
    assert set(places) <= set(gradients), f"{op}: no gradient of {set(places) - set(gradients)}"
    for tensor, (where, name) in places.items():
        start = where[name]
        gradient = gradients[tensor].reshape(-1)
        largest = np.abs(gradient).max()
        unit = per_tensor(op.inputs[name])[0] if where is reals else float(np.abs(start).max()) / 100
        for at in rng.choice(start.size, min(start.size, ELEMENTS), replace=False):
            slope = _slope(op, reals, shadow, d, where, name, int(at), STEP * unit)
            error = abs(slope - gradient[at])
            assert error <= TOLERANCE * largest, f"{op}: {tensor}[{at}]: {gradient[at]}, slope {slope}"
        where[name] = start
    return set(places)


def _slope(
    op: Operation, reals: dict[str, np.ndarray], shadow: Shadow, d: np.ndarray, where: dict[str, np.ndarray],
    name: str, at: int, step: float,
) -> float:  # fmt: skip
    """The central difference of sum(d * output) by one element."""
    start, ends = where[name], []
    for sign in (1, -1):
        moved = np.array(start)
        moved.reshape(-1)[at] += sign * step
        where[name] = moved
        ends.append(real_output(op, reals, shadow).reshape(-1))
    where[name] = start
    return float((d.reshape(-1) * (ends[0] - ends[1])).sum() / (2 * step))


@pytest.mark.parametrize(("kind", "name"), PAIRS)
def test_gradients_of_layers_and_adapters(kind: str, name: str) -> None:
    """Every operation of a model, and every parameter of its adapters."""
    model, state = adapted(kind, name)
    shadow, rng = shadow_of(model, state), np.random.default_rng(11)
    compared: set[str] = set()
    for op in forward(model):
        if op.kind not in INSIDE and any(t.dtype == "int8" for t in op.inputs.values()):
            compared |= check(op, shadow, state, rng)
    assert {p.quantized.name for p in model.parameters} <= compared


@pytest.mark.parametrize("kind", ALONE)
def test_gradients_of_operators_without_weights(kind: str) -> None:
    """Random ones: odd shapes, broadcasting, kernels beyond the image."""
    rng = np.random.default_rng(12)
    compared = 0
    for number in range(60):
        op = CASES[kind](rng, kind=kind).operation(f"op{number}")
        if op.op.check(op) is not None or any(t.dtype != "int8" for t in op.inputs.values()):
            continue
        if any(per_tensor(t)[0] > 0.2 for t in op.inputs.values()):  # differences of a curve need small steps
            continue
        check(op, Shadow(), {}, rng)
        compared += 1
    assert compared >= 10


def missing(operators: list[str], kinds: list[str]) -> list[str]:
    """A sentence for every operator and every kind that no case compares."""
    seen = set(ALONE)
    for kind, name in PAIRS:
        seen |= {op.kind for op in forward(adapted(kind, name)[0])}
    lacking = [name for name in operators if name not in seen]
    return [
        f"{name} has no finite differences"
        for name in [*lacking, *(k for k in kinds if k not in {kind for kind, _ in PAIRS})]
    ]


def test_every_operator_and_kind_is_compared() -> None:
    assert missing(DIFFERENTIABLE, list(ADAPTERS)) == []
    assert missing(["FORGOTTEN", "ADD"], ["unknown"]) == [
        "FORGOTTEN has no finite differences",
        "unknown has no finite differences",
    ]


def test_a_wrong_gradient_is_found() -> None:
    model, state = adapted("lora", "plain")
    op = next(op for op in forward(model) if "hidden" in op.inputs and "filter" in op.inputs)
    shadow = shadow_of(model, state)
    check(op, shadow, state, np.random.default_rng(1))
    shadow.masters[op.inputs["lora_B"].name] *= 1.001
    with pytest.raises(AssertionError, match="slope"):
        check(op, shadow, state, np.random.default_rng(1))
