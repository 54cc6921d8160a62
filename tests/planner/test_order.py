"""The search for orders against every order there is, and its model of memory against live buffers."""

from __future__ import annotations

import time

from hypothesis import given, settings
from hypothesis import strategies as st
from random_schedules import Fake, graphs, orders
from small_models import MODELS, load

from tinypeft.ir import Graph, Operation, Purpose, Tensor
from tinypeft.ops.base import KernelCall, Op
from tinypeft.planner import live_buffers, lower_bound
from tinypeft.planner.content import Contents, view_of
from tinypeft.planner.order_model import OrderModel, dependencies
from tinypeft.planner.order_search import beam_order, exact_order
from tinypeft.stages.schedule import best_schedule

SHARES = ("", "", "in place", "behind", "view", "inside")


def peak(graph: Graph) -> int:
    return lower_bound(live_buffers(graph))[0]


def modelled(model: OrderModel, order: list[int]) -> int:
    """The peak of an order as the model sees it."""
    done, live, highest = 0, model.start_bytes, model.start_bytes
    for index in order:
        during, live = model.run(index, done, live)
        highest, done = max(highest, during), done | 1 << index
    return highest


def assert_allowed(graph: Graph, order: list[int]) -> None:
    assert sorted(order) == list(range(len(graph.operations)))
    position = {index: place for place, index in enumerate(order)}
    for index, before in enumerate(dependencies(graph)):
        assert all(position[i] < position[index] for i in before)


@settings(max_examples=150, deadline=None)
@given(graphs(7))
def test_small_graphs_are_ordered_as_well_as_can_be(graph: Graph) -> None:
    found = best_schedule(graph)
    assert found.proved
    assert found.peak == peak(found.graph) == min(peak(g) for g in orders(graph))


@settings(max_examples=200, deadline=None)
@given(graphs(6, SHARES))
def test_with_sharing_the_bound_holds_and_what_is_proved_is_true(graph: Graph) -> None:
    found = best_schedule(graph)
    best = min(peak(g) for g in orders(graph))
    assert found.bound <= best <= found.peak == peak(found.graph) <= peak(graph)
    assert not found.proved or found.peak == best


@settings(max_examples=200, deadline=None)
@given(graphs(6, SHARES))
def test_the_model_never_sees_more_than_is_live(graph: Graph) -> None:
    model = OrderModel(graph)
    index = {op.name: i for i, op in enumerate(graph.operations)}
    least = []
    for ordered in orders(graph):
        order = [index[op.name] for op in ordered.operations]
        least.append(modelled(model, order))
        assert model.bound() <= least[-1] <= peak(ordered)
    order, found = exact_order(model, model.bound())
    assert order is not None and found == modelled(model, order) == min(least)
    assert_allowed(graph, order)


@settings(max_examples=100, deadline=None)
@given(graphs(14, SHARES), st.integers(1, 30))
def test_few_states_give_a_sound_bound_and_no_worse_order(graph: Graph, states: int) -> None:
    found, full = best_schedule(graph, states), best_schedule(graph)
    assert found.peak <= peak(graph) and found.bound <= full.peak
    assert [op.name for op in found.graph.operations] == [
        op.name for op in best_schedule(graph, states).graph.operations
    ]
    model = OrderModel(graph)
    assert_allowed(graph, beam_order(model, 0))
    order, bound = exact_order(model, 0, states)
    assert order is not None or bound <= exact_order(model, 0)[1]


@settings(max_examples=200, deadline=None)
@given(graphs(9, SHARES))
def test_tensors_that_share_bytes_may(graph: Graph) -> None:
    """Byte by byte and operation by operation: what is live at one place is the same, or is being handed over."""
    contents = Contents(graph)
    last = {id(t): time for time, op in enumerate(graph.operations) for t in op.inputs.values()}
    last |= {id(t): len(graph.operations) for t in graph.outputs}
    first = {id(t): time for time, op in enumerate(graph.operations) for t in op.outputs.values()}
    for buffer in live_buffers(graph):
        assert all(0 <= buffer.inner.get(t.name, 0) <= buffer.size - t.nbytes for t in buffer.tensors)
        for t in buffer.tensors:
            begins, ends = first.get(id(t), 0), max(last.get(id(t), 0), first.get(id(t), 0))
            assert buffer.first <= begins and ends <= buffer.last
        for i, t in enumerate(buffer.tensors):
            for u in buffer.tensors[:i]:
                _assert_may_share(graph, contents, buffer.inner, first, last, t, u)
    for op in graph.operations:
        view = view_of(op)
        if view is not None:
            where = {t.name: (b.name, b.inner.get(t.name, 0)) for b in live_buffers(graph) for t in b.tensors}
            source = where[view[0].name]
            assert where[op.output.name] == (source[0], source[1] + view[1])


def _assert_may_share(graph: Graph, contents: Contents, inner: dict, first: dict, last: dict, t, u) -> None:
    def byte_map(tensor) -> dict[int, tuple[int, int]]:
        start = inner.get(tensor.name, 0)
        return {
            start + s.start + k: (id(s.source), s.source_start + k) for s in contents[tensor] for k in range(s.size)
        }

    a, b = byte_map(t), byte_map(u)
    if all(a[place] == b[place] for place in a.keys() & b.keys()):
        return
    early, late = sorted((t, u), key=lambda x: (first.get(id(x), -1), x.name))
    assert last.get(id(early), first.get(id(early), 0)) <= first[id(late)], f"{t} and {u} are live together"
    if last.get(id(early), -1) == first[id(late)]:
        op = graph.operations[first[id(late)]]
        distance = inner.get(early.name, 0) - inner.get(late.name, 0)
        assert op.op.shares in ("in place", "behind")
        assert distance == 0 if op.op.shares == "in place" else distance >= op.op.amount


def test_bytes_that_only_part_of_a_tensor_makes_are_not_rounded_up() -> None:
    """t0 is there twice and has to be copied; t1 is a piece: 3 bytes in all, which share one rounding."""
    x, t0, t1, t3, t4 = (
        Tensor(n, (s,), "int8", Purpose.ACTIVATION)
        for n, s in zip(("x", "t0", "t1", "t3", "t4"), (5, 1, 1, 5, 1), strict=True)
    )
    t2 = Tensor("t2", (3,), "int8", Purpose.ACTIVATION)
    steps = [
        ("", {"i0": x}, t0),
        ("", {"i0": x}, t1),
        ("inside", {"i0": t0, "i1": t0, "i2": t1}, t2),
        ("", {"i0": t2}, t3),
        ("", {"i0": x}, t4),
    ]
    operations = [Operation(Fake(kind), f"op{n}", inputs, {"y": y}) for n, (kind, inputs, y) in enumerate(steps)]
    found = best_schedule(Graph("g", [x], [t4], operations))
    assert found.bound <= found.peak == 16


def test_what_is_handed_over_inside_a_concatenation_is_not_rounded_up() -> None:
    """x, t0 and t1 lie in the four bytes of the buffer of t2 together."""
    x, t0, t1 = (Tensor(name, (1,), "int8", Purpose.ACTIVATION) for name in ("x", "t0", "t1"))
    t2 = Tensor("t2", (2,), "int8", Purpose.ACTIVATION)
    steps = [("", {"i0": x}, t0), ("in place", {"i0": x}, t1), ("inside", {"i0": t1, "i1": t0}, t2)]
    operations = [Operation(Fake(kind), f"op{n}", inputs, {"y": y}) for n, (kind, inputs, y) in enumerate(steps)]
    found = best_schedule(Graph("g", [x], [t2], operations))
    assert found.bound <= found.peak == 4


class Wide(Op):
    """A fake operator."""

    name = "WIDE"
    results = ("y",)

    def call(self, op: Operation) -> KernelCall | None:
        return KernelCall("f", "", {})


def test_models_as_large_as_they_come_are_ordered_quickly() -> None:
    """Sixteen branches of four: more sets of operations than can be looked at."""
    x = Tensor("x", (64,), "int8", Purpose.ACTIVATION)
    operations, ends = [], []
    for branch in range(16):
        at = x
        for step, size in enumerate((90 + branch, 30, 120 - branch, 8)):
            y = Tensor(f"b{branch}_{step}", (size,), "int8", Purpose.ACTIVATION)
            operations.append(Operation(Wide(), y.name, {"x": at}, {"y": y}))
            at = y
        ends.append(at)
    y = Tensor("y", (4,), "int8", Purpose.ACTIVATION)
    operations.append(Operation(Wide(), "join", {f"i{n}": t for n, t in enumerate(ends)}, {"y": y}))
    graph = Graph("g", [x], [y], sorted(operations, key=lambda op: op.name.split("_")[-1]))
    begin = time.perf_counter()
    found = best_schedule(graph)
    assert time.perf_counter() - begin < 20
    assert found.peak < 0.5 * peak(graph)


def test_models_whose_order_is_fixed_are_proved() -> None:
    for name in MODELS:
        found = best_schedule(load(name).graph)
        assert found.bound <= found.peak
    assert best_schedule(load("plain").graph).proved
