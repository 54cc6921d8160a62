"""Recomputing changes what is kept, never a bit; it stays within budgets and repeats no writer of state."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from small_models import MODELS, learning_rate, load, samples

from tinypeft.adapters import AdapterConfig
from tinypeft.boards import load_board
from tinypeft.compiler import CompiledModel, compile_model
from tinypeft.data import quantize
from tinypeft.errors import FitError
from tinypeft.frontend import load_tflite
from tinypeft.generate import compile_for
from tinypeft.interpreter import run_graph
from tinypeft.ir import Graph, Operation, Purpose, Tensor, verify
from tinypeft.kernels import DEFAULT_KERNELS, PORTABLE_KERNELS, KernelConfig, Target
from tinypeft.memory import MemoryConfig
from tinypeft.ops.base import KernelCall, Op, Value
from tinypeft.planner import live_buffers, lower_bound
from tinypeft.stages.autodiff import TrainingConfig
from tinypeft.stages.recompute import RamBudget, Recomputed, recompute
from tinypeft.stages.schedule import schedule_quickly
from tinypeft.state import pack_adapter

TRAININGS = {"sgd": TrainingConfig(), "batches": TrainingConfig(momentum=0.9, batch_size=2)}


def compiled(name: str, training: TrainingConfig, budget: RamBudget | None = None) -> CompiledModel:
    source = load(name)
    return compile_model(name, source.fingerprint, source.graph, AdapterConfig(), training, budget=budget)


def trained(model: CompiledModel, graph: Graph, name: str, steps: int = 4) -> tuple[dict[str, bytes], list[bytes]]:
    """(all state, every loss) after some steps of `graph`."""
    state, losses, rate = model.fresh_state(5), [], np.float32(learning_rate(name))
    dataset = samples(load(name), steps, 2)
    assert dataset.y is not None
    for step, (x, y) in enumerate(zip(dataset.x, dataset.y, strict=True)):
        arguments = {model.inference.inputs[0].name: x, "label": np.int32(y), "learning_rate": rate}
        losses.append(run_graph(graph, arguments, state)[0].tobytes())
        if model.update is not None and step % 2:
            run_graph(model.update, {"learning_rate": rate, "count": np.int32(2)}, state)
    return {key: value.tobytes() for key, value in state.items()}, losses


def assert_sound(graph: Graph, found: Recomputed) -> None:
    """Beside the operations of `graph` there are those run again, which write no state; the peak is what it says."""
    verify(found.graph, "recompute")
    names = [op.name for op in graph.operations] + [op.name for op in found.again]
    assert sorted(op.name for op in found.graph.operations) == sorted(names)
    assert all("_again" in op.name and not any(t.persistent for t in op.outputs.values()) for op in found.again)
    assert found.peak == lower_bound(live_buffers(found.graph))[0] <= lower_bound(live_buffers(graph))[0]
    assert found.macs == sum(op.op.macs(op) for op in found.again)


@pytest.mark.parametrize("training", TRAININGS)
@pytest.mark.parametrize("name", MODELS)
def test_as_little_as_can_be_gives_the_same_bits(name: str, training: str) -> None:
    model = compiled(name, TRAININGS[training])
    assert model.training is not None
    found = recompute(model.training, 0, schedule_quickly)
    assert_sound(model.training, found)
    assert trained(model, found.graph, name) == trained(model, model.training, name)


def test_some_models_need_much_less() -> None:
    saved = {}
    for name in MODELS:
        graph = compiled(name, TrainingConfig()).training
        assert graph is not None
        saved[name] = 1 - recompute(graph, 0, schedule_quickly).peak / lower_bound(live_buffers(graph))[0]
    assert max(saved.values()) > 0.2, saved


def test_a_budget_that_is_met_costs_nothing() -> None:
    graph = compiled("residual", TrainingConfig()).training
    assert graph is not None
    found = recompute(graph, lower_bound(live_buffers(graph))[0], schedule_quickly)
    assert found.graph is graph and not found.again and found.macs == 0


def test_smaller_budgets_cost_more_and_every_one_is_kept(shared_data: Path) -> None:
    path = shared_data / "models" / "kws_ref_model.tflite"
    source = load_tflite("kws", path.read_bytes(), {})
    full = compile_model("kws", source.fingerprint, source.graph, AdapterConfig(), TrainingConfig())
    assert full.training is not None
    costs = [0]
    for budget in (52_000, 44_000, 38_000, 30_000):
        found = recompute(full.training, budget, schedule_quickly)
        assert_sound(full.training, found)
        assert found.peak <= budget
        costs.append(found.macs)
    assert costs == sorted(costs) and len(set(costs)) == 5
    forward = sum(op.op.macs(op) for op in full.inference.operations)
    assert costs[2] < forward / 2, "a quarter less memory for less than half a forward pass"


def test_the_same_budget_gives_the_same_graph() -> None:
    graph = compiled("residual", TrainingConfig()).training
    assert graph is not None
    once, twice = (recompute(graph, 2_500, schedule_quickly) for _ in range(2))
    assert [op.name for op in once.graph.operations] == [op.name for op in twice.graph.operations]
    assert once.again


class Step(Op):
    """y = the sum of its operands + 1, of any size; a state that it reads counts too."""

    name = "STEP"
    results = ("y",)

    def takes(self, operand: str) -> bool:
        return True

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        return {name: t.shape for name, t in op.outputs.items()}

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        total = np.int8(sum(int(v.reshape(-1)[0]) for v in values.values()) + 1)
        return {name: np.full(t.shape, total, np.int8) for name, t in op.outputs.items()}

    def call(self, op: Operation) -> KernelCall | None:
        return KernelCall("f", "", {})

    def macs(self, op: Operation) -> int:
        return 1


def tensor(name: str, size: int, purpose: Purpose = Purpose.ACTIVATION) -> Tensor:
    return Tensor(name, (size,), "int8", purpose)


def idle(state_reader: str, writes: bool) -> tuple[Graph, Tensor]:
    """`stored` lies idle while `wide` is live; it reads `weight`, which is written in between if `writes`."""
    x, stored, early, wide, narrow, y = (
        tensor(n, s)
        for n, s in zip(("x", "stored", "early", "wide", "narrow", "y"), (4, 100, 4, 200, 4, 4), strict=True)
    )
    weight = tensor("weight", 4, Purpose.ADAPTER_WEIGHT)
    steps: list[tuple[str, dict[str, Tensor], Tensor]] = [
        ("store", {"x": x, "w": weight}, stored),
        ("read", {"x": stored}, early),
        ("widen", {"x": early}, wide),
        ("narrow", {"x": wide}, narrow),
        *([("write", {"x": narrow}, weight)] if writes else []),
        ("end", {"x": narrow, "s": stored, "x0": x}, y),
    ]
    return Graph("g", [x], [y], [Operation(Step(), name, inputs, {"y": t}) for name, inputs, t in steps]), weight


def test_what_lies_idle_is_computed_again() -> None:
    graph, weight = idle("store", False)
    found = recompute(graph, 250, lambda g: g)
    assert [op.name for op in found.graph.operations] == ["store", "read", "widen", "narrow", "store_again", "end"]
    assert (found.peak, found.macs) == (208, 1)
    results = []
    for candidate in (graph, found.graph):
        state = {weight.name: np.full(4, 7, np.int8)}
        results.append(run_graph(candidate, {"x": np.arange(4, dtype=np.int8)}, state)[0].tobytes())
    assert results[0] == results[1]


def test_nothing_is_computed_again_from_state_that_has_changed() -> None:
    graph, _ = idle("store", True)
    found = recompute(graph, 250, lambda g: g)
    assert found.graph is graph and found.peak > 250


def test_no_writer_of_state_runs_twice() -> None:
    x, stored, wide, y = tensor("x", 4), tensor("stored", 100), tensor("wide", 200), tensor("y", 4)
    seen = tensor("seen", 4, Purpose.OPTIMIZER_STATE)
    operations = [
        Operation(Step(), "observe", {"x": x, "seen": seen}, {"y": stored, "seen": seen}),
        Operation(Step(), "widen", {"x": x}, {"y": wide}),
        Operation(Step(), "end", {"w": wide, "s": stored, "x": x}, {"y": y}),
    ]
    graph = Graph("g", [x], [y], operations)
    assert recompute(graph, 0, lambda g: g).graph is graph


def test_compiling_keeps_to_a_budget_and_trains_the_same() -> None:
    full = compiled("residual", TrainingConfig())
    assert full.training is not None and full.recomputed is None
    state = full.adapter_bytes + full.training_bytes
    least = recompute(full.training, 0, schedule_quickly).peak
    budget = RamBudget((least + full.arena.arena_bytes) // 2 + state + 500, 500)
    model = compiled("residual", TrainingConfig(), budget)
    assert model.recomputed is not None and model.recomputed.again and model.training is not None
    assert model.arena.arena_bytes + state + 500 <= budget.total
    assert trained(model, model.training, "residual") == trained(full, full.training, "residual")
    generous = compiled("residual", TrainingConfig(), RamBudget(full.arena.arena_bytes + state))
    assert generous.recomputed is None


@pytest.mark.slow
def test_a_speech_model_in_an_arena_of_40_kb_learns_the_same(shared_data: Path) -> None:
    """A budget is of all RAM: here an arena of 40,000 B, the adapter and its masters, and no stack."""
    path = shared_data / "fsdd_loso" / "nicolas.tflite"
    source = load_tflite("nicolas", path.read_bytes(), {})
    with np.load(path.with_suffix(".npz")) as data:
        x, y = data["x"][:40:10], data["y"][:40:10]
    packages, arenas, state_bytes = [], [], 0
    for arena in (None, 40_000):
        budget = None if arena is None else RamBudget(arena + state_bytes)
        model = compile_model(
            "nicolas", source.fingerprint, source.graph, AdapterConfig(), TrainingConfig(), budget=budget
        )
        state_bytes = model.adapter_bytes + model.training_bytes
        assert model.training is not None
        state = model.fresh_state(0)
        for sample, label in zip(quantize(x, source.graph.inputs[0]), y, strict=True):
            sample = sample.reshape(source.graph.inputs[0].shape)
            arguments = {
                source.graph.inputs[0].name: sample,
                "label": np.int32(label),
                "learning_rate": np.float32(0.02),
            }
            run_graph(model.training, arguments, state)
        packages.append(pack_adapter(model, state))
        arenas.append(model.arena.arena_bytes)
    assert arenas[1] <= 40_000 < arenas[0]
    assert packages[0] == packages[1]


def test_a_budget_that_cannot_be_met_is_refused_with_what_can() -> None:
    full = compiled("residual", TrainingConfig())
    needed = full.arena.arena_bytes + full.adapter_bytes + full.training_bytes + 100
    with pytest.raises(FitError, match=f"residual needs {needed:,} B of RAM, the budget is 1,000 B; with") as caught:
        compiled("residual", TrainingConfig(), RamBudget(1000, 100))
    assert caught.value.hint is not None
    smallest = int(caught.value.hint.split()[1].rstrip(","))
    assert smallest < needed
    kept = compiled("residual", TrainingConfig(), RamBudget(smallest, 100))
    assert kept.arena.arena_bytes + kept.adapter_bytes + kept.training_bytes + 100 <= smallest


def test_inference_has_nothing_to_recompute() -> None:
    source = load("residual")
    arguments = (source.fingerprint, source.graph, AdapterConfig(adapter="none"), TrainingConfig())
    with pytest.raises(FitError, match=r"needs [\d,]+ B of RAM, the budget is 100 B$"):
        compile_model("residual", *arguments, budget=RamBudget(100))


def test_operations_run_again_keep_their_kernels(shared_data: Path) -> None:
    file = shared_data / "fsdd_loso" / "nicolas.tflite"
    source = load_tflite("nicolas", file.read_bytes(), {})

    def within(budget: int) -> CompiledModel:
        board = load_board("mps2_an386")
        return compile_for(source, board, AdapterConfig(), TrainingConfig(), 2048, MemoryConfig(ram_budget=budget))

    free, small = within(0), within(56_000)
    assert free.training is not None and small.training is not None and small.recomputed is not None
    forms = {op.name: op.kernel and op.kernel.form for op in free.training.operations}
    assert len(small.recomputed.again) > 4
    for op in small.training.operations:
        assert (op.kernel and op.kernel.form) == forms[op.name.split("_again")[0]]
        if op.kernel is not None:
            own = {id(t) for t in (*op.inputs.values(), *op.outputs.values())}
            assert all(id(a) in own for a in op.kernel.call.arguments if isinstance(a, Tensor) and a.in_arena)


@pytest.mark.parametrize("name", ["plain", "residual", "gated"])
def test_fast_kernels_need_no_larger_budget(name: str) -> None:
    """Where the scratch of some does not fit, the portable ones take their place, and the report says so."""
    source = load(name)

    def within(total: int, kernels: KernelConfig) -> CompiledModel:
        budget, target = RamBudget(total), Target("cortex-m4")
        config, training = AdapterConfig(), TrainingConfig()
        return compile_model(
            name, source.fingerprint, source.graph, config, training, budget=budget, kernels=kernels, target=target
        )

    with pytest.raises(FitError) as refused:
        within(1000, PORTABLE_KERNELS)
    least = re.search(r"--ram-budget (\d+)", refused.value.hint or "")
    assert least is not None
    model = within(int(least[1]), DEFAULT_KERNELS)
    assert model.training is not None
    given_up = [
        op for op in model.training.operations if "RAM budget" in getattr(model.kernels.get(op.name), "reason", "")
    ]
    assert given_up and all(op.kernel is None and model.kernels[op.name].kernel is None for op in given_up)
