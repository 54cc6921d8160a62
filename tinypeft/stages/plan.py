"""Plan: the scheduled graphs of a model into one arena, in one RAM or spread over several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tinypeft.ir import Graph
from tinypeft.planner import (
    LOWER_BOUND,
    WHOLE,
    ArenaPart,
    ArenaPlan,
    ArenaRegion,
    Buffer,
    Plan,
    assign_regions,
    live_buffers,
    plan_arena,
    verify_plan,
)


def plan_graphs(
    graphs: list[Graph], minimum: int = 0, regions: Sequence[ArenaRegion] = (ArenaRegion(WHOLE),), state_bytes: int = 0
) -> ArenaPlan:
    """Plan every graph, with the input at one offset in all of them; some part has at least `minimum` bytes.

    The arena lies in the first region where it fits there, else in as many as it needs, with what is touched most in
    the first. Where all together are too small it is planned for the first alone, beyond its capacity.
    `state_bytes`: adapter and training state, in the region that is shared.
    """
    regions = [replace(r, capacity=r.capacity - state_bytes) if r.shared and r.capacity else r for r in regions]
    buffers = {graph.name: live_buffers(graph) for graph in graphs}
    first = next((t.name for graph in graphs for t in graph.inputs if t.in_arena), "")
    plans = {name: _packed(live, first) for name, live in buffers.items()}
    bound = _rounded(max([minimum, *(plan.bound for plan in plans.values())]))
    size = _rounded(max([minimum, *(plan.arena_bytes for plan in plans.values())]))
    capacity = regions[0].capacity
    if capacity is not None and size > capacity and len(regions) > 1:
        spread = _spread(graphs, plans, first, minimum, regions)
        if spread is not None:
            return ArenaPlan(*spread, _rounded(max([minimum, *(plan.lower_bound for plan in plans.values())])))
    return ArenaPlan(plans, (ArenaPart(regions[0].name, 0, size),), bound)


def _packed(buffers: list[Buffer], first: str) -> Plan:
    return plan_arena(buffers, {b.name: 0 for b in buffers if b.name == first})


def _spread(
    graphs: list[Graph], whole: dict[str, Plan], first: str, minimum: int, regions: Sequence[ArenaRegion]
) -> tuple[dict[str, Plan], tuple[ArenaPart, ...]] | None:
    """The same buffers over all regions; None where they don't fit."""
    total = sum(plan.arena_bytes for plan in whole.values())
    capacities = [(total if r.capacity is None else max(r.capacity, 0)) // 8 * 8 for r in regions]
    chosen: dict[str, list[int]] = {}
    for graph in graphs:
        found = assign_regions(whole[graph.name].buffers, touched_bytes(graph, whole[graph.name]), capacities, first)
        if found is None:
            return None
        chosen[graph.name] = found
    packed = {
        (name, region): _packed([b for b, r in zip(plan.buffers, chosen[name], strict=True) if r == region], first)
        for name, plan in whole.items()
        for region in range(len(regions))
    }
    sizes = [_rounded(max(packed[name, region].arena_bytes for name in whole)) for region in range(len(regions))]
    if max(sizes) < minimum:
        roomy = next((region for region, capacity in enumerate(capacities) if capacity >= _rounded(minimum)), None)
        if roomy is None:
            return None
        sizes[roomy] = _rounded(minimum)
    starts = [sum(sizes[:region]) for region in range(len(regions))]
    plans = {}
    for name, plan in whole.items():
        offsets = {
            id(buffer): starts[region] + offset
            for region in range(len(regions))
            for buffer, offset in zip(packed[name, region].buffers, packed[name, region].offsets, strict=True)
        }
        placed = [offsets[id(buffer)] for buffer in plan.buffers]
        end = max((o + b.size for o, b in zip(placed, plan.buffers, strict=True)), default=0)
        plans[name] = replace(
            plan, offsets=placed, arena_bytes=end, bound=plan.lower_bound, proof=LOWER_BOUND, method="over several RAMs"
        )
        verify_plan(plans[name])
    parts = [ArenaPart(r.name, s, n) for r, s, n in zip(regions, starts, sizes, strict=True) if n]
    return plans, tuple(parts)


def touched_bytes(graph: Graph, plan: Plan) -> dict[str, int]:
    """By the buffer's name, the bytes that one run reads and writes in it: a multiply-accumulate reads one byte."""
    heat = dict.fromkeys((buffer.name for buffer in plan.buffers), 0)
    owner = {id(t): buffer.name for buffer in plan.buffers for t in buffer.tensors}
    for op in graph.operations:
        inputs = [t for t in op.inputs.values() if id(t) in owner]
        for tensor in inputs:
            heat[owner[id(tensor)]] += max(tensor.nbytes, op.op.macs(op) // len(inputs))
        for tensor in op.outputs.values():
            if id(tensor) in owner:
                heat[owner[id(tensor)]] += tensor.nbytes
        scratch = f"{op.name} scratch"
        if scratch in heat:
            heat[scratch] += max(op.scratch_bytes, op.op.macs(op))
    return heat


def _rounded(size: int) -> int:
    return (size + 7) // 8 * 8
