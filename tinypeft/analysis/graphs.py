"""A compiled graph and its plan as facts: operations, buffers with their places and lifetimes, the peak."""

from __future__ import annotations

from collections.abc import Mapping

from tinypeft.analysis.operations import operation_facts, tensor_facts
from tinypeft.analysis.report import BufferFacts, GraphFacts, Peak, PlacedTensor
from tinypeft.ir import Graph, Purpose, Tensor
from tinypeft.kernels import Choice
from tinypeft.planner import ArenaPlan, Buffer, Plan


def graph_facts(graph: Graph, arena: ArenaPlan, choices: Mapping[str, Choice]) -> GraphFacts:
    """Everything about `graph` in the arena that all graphs share; `choices` of its kernels, by operation."""
    plan = arena.plans[graph.name]
    operations = operation_facts(graph, plan, choices)
    buffers = tuple(
        BufferFacts(
            buffer.name,
            _purpose(buffer),
            arena.part_of(offset).name,
            offset,
            buffer.size,
            buffer.first,
            buffer.last,
            tuple(_placed(t, offset + buffer.inner.get(t.name, 0)) for t in buffer.tensors),
        )
        for buffer, offset in sorted(zip(plan.buffers, plan.offsets, strict=True), key=lambda b: (b[0].first, b[1]))
    )
    return GraphFacts(
        graph.name,
        sum(op.macs for op in operations),
        plan.arena_bytes,
        plan.lower_bound,
        plan.bound,
        plan.optimal,
        plan.proof,
        plan.method,
        _peak(graph, plan, buffers),
        operations,
        buffers,
    )


def _placed(tensor: Tensor, offset: int) -> PlacedTensor:
    facts = tensor_facts(tensor)
    return PlacedTensor(facts.name, facts.shape, facts.dtype, facts.purpose, facts.bytes, offset)


def _purpose(buffer: Buffer) -> str:
    """What the buffer is for, after its first tensor: what takes it over in place is of the same nature."""
    if not buffer.tensors:
        return "scratch"
    first = buffer.tensors[0]
    if first.dtype == "bits":
        return "mask"
    return "gradient" if first.purpose is Purpose.GRADIENT else "activation"


def _peak(graph: Graph, plan: Plan, buffers: tuple[BufferFacts, ...]) -> Peak | None:
    if not buffers:
        return None
    index = min(plan.peak_operation, len(graph.operations) - 1)
    live = tuple(b.name for b in buffers if b.first <= plan.peak_operation <= b.last)
    return Peak(index, graph.operations[index].name, plan.lower_bound, live)
