"""schedule() changes the order of operations and the peak of memory, never a result."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import MODELS, VALID, Net, load

from tinypeft.adapters import AdapterConfig
from tinypeft.frontend import load_tflite
from tinypeft.interpreter import run_graph
from tinypeft.ir import Graph, Operation, Purpose, Tensor, verify
from tinypeft.ops.base import KernelCall, Op
from tinypeft.planner import live_buffers, lower_bound
from tinypeft.stages.autodiff import TrainingConfig, differentiate
from tinypeft.stages.insert import insert_adapters
from tinypeft.stages.logits import attach_logits
from tinypeft.stages.schedule import schedule


def training_graph(base: Graph, training: TrainingConfig) -> tuple[Graph, Graph | None, Graph]:
    """(unscheduled training graph, update graph, reset graph)."""
    adapted = insert_adapters(base, AdapterConfig(r=2))
    forward, logits = attach_logits(adapted.graph)
    graph, update = differentiate(forward, logits, adapted, training)
    reset = Graph("reset", [adapted.seed], [], [*adapted.initializers, *adapted.quantizers])
    return graph, update, reset


def assert_schedule_changes_nothing(base: Graph, training: TrainingConfig, seed: int) -> None:
    graph, update, reset = training_graph(base, training)
    scheduled = verify(schedule(graph), "schedule")
    assert sorted(op.name for op in scheduled.operations) == sorted(op.name for op in graph.operations)
    assert lower_bound(live_buffers(scheduled))[0] <= lower_bound(live_buffers(graph))[0]
    assert [op.name for op in schedule(graph).operations] == [op.name for op in scheduled.operations]
    rng, states, losses = np.random.default_rng(seed), [], []
    sample = graph.inputs[0]
    steps = [(rng.integers(-128, 128, sample.shape, np.int8), int(rng.integers(0, 3))) for _ in range(3)]
    for candidate in (graph, scheduled):
        state: dict[str, np.ndarray] = {}
        run_graph(reset, {"seed": np.int32(seed)}, state)
        for x, label in steps:
            arguments = {sample.name: x, "label": np.int32(label), "learning_rate": np.float32(0.05)}
            losses.append(run_graph(candidate, arguments, state)[0].tobytes())
            if update is not None:
                run_graph(update, {"learning_rate": np.float32(0.05), "count": np.int32(1)}, state)
        states.append({name: value.tobytes() for name, value in state.items()})
    assert states[0] == states[1]
    assert losses[:3] == losses[3:]


@pytest.mark.parametrize(
    "training", [TrainingConfig(), TrainingConfig(momentum=0.9, batch_size=4)], ids=["sgd", "batch"]
)
@pytest.mark.parametrize("name", [name for name in MODELS if name != "float_edges"])
def test_small_models(name: str, training: TrainingConfig) -> None:
    assert_schedule_changes_nothing(load(name).graph, training, 1)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6))
def test_random_models(seed: int) -> None:
    rng = np.random.default_rng(seed)
    net = Net((1, *(int(n) for n in rng.integers(3, 8, 2)), int(rng.integers(1, 4))), seed)
    for number in range(int(rng.integers(1, 6))):
        kind = rng.choice(["conv", "conv", "residual", "depthwise", "pool", "pad"])
        _, h, w, c = net.last.shape
        if kind == "conv":
            net.conv(f"conv{number}", int(rng.integers(2, 7)), int(rng.integers(1, 4)), int(rng.integers(1, 3)))
        elif kind == "residual":
            entry = net.last
            net.conv(f"res{number}", c, relu=bool(rng.integers(2)))
            if rng.integers(2):
                net.conv(f"res{number}b", c, relu=False)
            net.add(f"join{number}", entry)
        elif kind == "depthwise":
            net.depthwise(f"depthwise{number}")
        elif kind == "pool" and min(h, w) >= 2:
            net.pool(f"pool{number}", str(rng.choice(["MAX_POOL_2D", "AVERAGE_POOL_2D"])))
        elif kind == "pad":
            net.pad(f"pad{number}")
    if rng.integers(2):
        net.conv("last", 3, 1, padding=VALID)
        net.mean("mean")
    else:
        net.reshape("flat")
    net.dense("head", 3)
    base = load_tflite("random", net.build(), {}).graph
    assert_schedule_changes_nothing(base, TrainingConfig(), seed)


class Fake(Op):
    """An operator of any operands and one result."""

    name = "FAKE"

    def call(self, op: Operation) -> KernelCall | None:
        return KernelCall("f", "", {})


def test_state_is_written_behind_its_readers_even_where_that_costs_memory() -> None:
    """Writing w needs no arena and would be run first, but d reads the old one; `late` is read behind its write."""

    def tensor(name: str, size: int, purpose: Purpose = Purpose.ACTIVATION) -> Tensor:
        return Tensor(name, (size,), "int8", purpose)

    x, wide_a, wide_b, c, d, out = (tensor(n, s) for n, s in zip("xabcdo", (4, 100, 100, 4, 4, 4), strict=True))
    w, late = tensor("w", 4, Purpose.ADAPTER_WEIGHT), tensor("late", 4, Purpose.MASTER)
    steps: list[tuple[str, dict[str, Tensor], Tensor]] = [
        ("op_a", {"x": x}, wide_a),
        ("op_b", {"x": x}, wide_b),
        ("op_c", {"x": wide_a}, c),
        ("op_d", {"x": wide_b, "w": w}, d),
        ("op_w", {"l": late}, w),
        ("op_late", {"x": c}, late),
        ("op_out", {"x": c, "y": d, "l": late}, out),
    ]
    graph = Graph("g", [x], [out], [Operation(Fake(), name, inputs, {"y": y}) for name, inputs, y in steps])
    found = schedule(graph)
    order = [op.name for op in found.operations]
    assert lower_bound(live_buffers(found))[0] < lower_bound(live_buffers(graph))[0]
    assert order.index("op_d") < order.index("op_w") < order.index("op_late") < order.index("op_out")


def test_some_schedule_is_better_than_the_given_order() -> None:
    """The scheduler is not the identity: a branch that shrinks early is run early."""
    net = Net((1, 8, 8, 2), 11)
    entry = net.conv("entry", 8)
    net.conv("wide", 16)
    net.conv("narrow", 1)
    narrow = net.pool("narrow_pool", kernel=8)
    net.last = entry
    net.conv("wide_2", 16)
    net.conv("narrow_2", 1)
    net.pool("narrow_pool_2", kernel=8)
    net.add("join", narrow)
    net.reshape("flat")
    base = load_tflite("branches", net.build(), {}).graph
    backwards = Graph("g", base.inputs, base.outputs, _late_pools(base))
    peak = {g: lower_bound(live_buffers(g))[0] for g in (backwards, schedule(backwards))}
    assert min(peak.values()) < max(peak.values())


def _late_pools(base: Graph) -> list:
    """The operations with both branches advanced in turn, so that two wide tensors are alive together."""
    by_layer = {op.layer: op for op in base.operations}
    first = ["entry", "wide", "wide_2", "narrow", "narrow_2", "narrow_pool", "narrow_pool_2"]
    return [*(by_layer[name] for name in first), *(op for op in base.operations if op.layer not in first)]
