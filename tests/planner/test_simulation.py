"""Planned graphs run in an arena of bytes give what the interpreter gives: live ranges, in-place decisions, offsets."""

from __future__ import annotations

import numpy as np
import pytest
from arena_simulation import simulate
from small_models import MODELS, learning_rate, load, samples

from tinypeft.adapters import AdapterConfig
from tinypeft.compiler import CompiledModel, compile_model
from tinypeft.interpreter import run_graph, value_bytes
from tinypeft.ir import Graph
from tinypeft.planner import Plan, live_buffers, plan_arena
from tinypeft.stages.autodiff import TrainingConfig

CONFIGURATIONS = {
    "lora": (AdapterConfig(), TrainingConfig()),
    "batches": (AdapterConfig(r=2), TrainingConfig(momentum=0.9, batch_size=2)),
    "no classifier": (AdapterConfig(modules_to_save=()), TrainingConfig()),
}


def compiled(name: str, configuration: str) -> CompiledModel:
    source = load(name)
    return compile_model(name, source.fingerprint, source.graph, *CONFIGURATIONS[configuration])


def assert_same_run(model: CompiledModel, graph: Graph, arguments: dict, plain: dict, planned: dict, seed: int) -> None:
    """Both executions give the same outputs of operations, graph outputs and state."""
    plan = model.arena.plans[graph.name]
    expected = {}
    outputs = run_graph(graph, arguments, plain, lambda op, name, t, v: expected.__setitem__(f"{op.name}.{name}", v))
    actual_outputs, actual = simulate(graph, plan, model.arena.arena_bytes, arguments, planned, seed)
    assert list(actual) == list(expected)
    for name, value in expected.items():
        assert value_bytes(actual[name]) == value_bytes(value), f"{graph.name}: {name}"
    for tensor, value, other in zip(graph.outputs, outputs, actual_outputs, strict=True):
        assert value_bytes(other) == value_bytes(value), f"{graph.name}: {tensor} at the end"
    assert {n: v.tobytes() for n, v in planned.items()} == {n: v.tobytes() for n, v in plain.items()}


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
@pytest.mark.parametrize("name", MODELS)
def test_an_arena_of_bytes_gives_what_the_interpreter_gives(name: str, configuration: str) -> None:
    model, dataset = compiled(name, configuration), samples(load(name), 4)
    plain: dict[str, np.ndarray] = {}
    planned: dict[str, np.ndarray] = {}
    assert model.reset and model.training and model.requantize and model.restore
    assert_same_run(model, model.reset, {"seed": np.int32(3)}, plain, planned, 0)
    rate = np.float32(learning_rate(name))
    for step, (x, y) in enumerate(zip(dataset.x, dataset.y, strict=True)):
        sample = {model.inference.inputs[0].name: x}
        assert_same_run(model, model.inference, sample, plain, planned, step)
        assert_same_run(
            model, model.training, {**sample, "label": np.int32(y), "learning_rate": rate}, plain, planned, step
        )
        if model.update is not None and step % 2:
            assert_same_run(model, model.update, {"learning_rate": rate, "count": np.int32(2)}, plain, planned, step)
    assert_same_run(model, model.restore, {}, plain, planned, 9)
    assert_same_run(model, model.requantize, {}, plain, planned, 9)


def test_the_models_have_every_kind_of_sharing() -> None:
    """What the simulation is there to check does occur: views, results in place, addends, scratch."""
    kinds, shared, scratch = set(), 0, 0
    for name in MODELS:
        model = compiled(name, "lora")
        for graph in model.graphs:
            kinds |= {op.kind for op in graph.operations}
            buffers = model.arena.plans[graph.name].buffers
            shared += sum(len(b.tensors) > 1 for b in buffers)
            scratch += sum(not b.tensors for b in buffers)
            assert (
                graph.name != "training" or any("addend" in op.inputs for op in graph.operations) or name != "residual"
            )
    assert {"RESHAPE", "RESHAPE_BACKWARD", "ADD", "PAD_BACKWARD", "MAX_POOL_2D_BACKWARD", "CLAMP_MASK"} <= kinds
    assert shared > 20 and scratch > 20


@pytest.mark.parametrize("name", MODELS)
def test_what_makes_no_call_is_a_view(name: str) -> None:
    for graph in compiled(name, "lora").graphs:
        for op in graph.operations:
            assert op.op.call(op) is not None or (op.op.view(op) is not None and len(op.outputs) == 1), op


@pytest.mark.parametrize("fault", ["range cut", "moved", "scratch"])
def test_the_simulation_finds_a_faulty_plan(fault: str) -> None:
    """A tensor that dies too early, a buffer in another's place, a scratch inside an operand: each changes values."""
    model = compiled("residual", "lora")
    graph, plan = model.training, model.arena.plans["training"]
    assert graph is not None
    if fault == "range cut":
        buffers = live_buffers(graph)
        longest = max(buffers[1:], key=lambda b: (b.last - b.first) * bool(b.tensors))
        longest.last = longest.first
        plan = plan_arena(buffers, {"input": 0})
    elif fault == "moved":
        inputs = {t.name for t in graph.operations[3].inputs.values() if t.in_arena}
        here = [i for i, b in enumerate(plan.buffers) if b.first <= 3 <= b.last and b.tensors]
        victim = next(i for i in here if inputs & {t.name for t in plan.buffers[i].tensors})
        other = next(i for i in here if i != victim and plan.buffers[i].first < plan.buffers[victim].last)
        offsets = list(plan.offsets)
        offsets[other] = offsets[victim]
        plan = Plan(plan.buffers, offsets, plan.arena_bytes, plan.lower_bound, plan.peak_operation)
    else:
        index = next(i for i, b in enumerate(plan.buffers) if b.name.endswith("backward_input scratch"))
        op = graph.operations[plan.buffers[index].first]
        offsets = list(plan.offsets)
        offsets[index] = plan.offset_of(op.inputs["d_acc"].name)
        plan = Plan(plan.buffers, offsets, plan.arena_bytes, plan.lower_bound, plan.peak_operation)
    model.arena.plans["training"] = plan
    x = samples(load("residual"), 1).x[0]
    arguments = {"input": x, "label": np.int32(1), "learning_rate": np.float32(0.05)}
    with pytest.raises(AssertionError):
        assert_same_run(model, graph, arguments, model.fresh_state(0), model.fresh_state(0), 0)
