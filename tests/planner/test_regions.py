"""An arena over several RAMs: what is touched most lies in the first, nothing lies across a border, all of it fits."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import load

from tinypeft.adapters import AdapterConfig
from tinypeft.compiler import CompiledModel, compile_model
from tinypeft.planner import ArenaRegion, Buffer, assign_regions
from tinypeft.stages.autodiff import TrainingConfig
from tinypeft.stages.plan import touched_bytes


@st.composite
def instances(draw: st.DrawFn) -> tuple[list[Buffer], dict[str, int], list[int]]:
    count = draw(st.integers(1, 12))
    buffers = []
    for i in range(count):
        first = draw(st.integers(0, 8))
        buffers.append(Buffer(f"b{i}", 4 * draw(st.integers(1, 30)), first, first + draw(st.integers(0, 4))))
    heat = {b.name: draw(st.integers(0, 1000)) for b in buffers}
    return buffers, heat, draw(st.lists(st.integers(0, 400), min_size=1, max_size=3))


@given(instances(), st.booleans())
@settings(max_examples=200, deadline=None)
def test_what_is_assigned_fits(instance: tuple[list[Buffer], dict[str, int], list[int]], pinned: bool) -> None:
    buffers, heat, capacities = instance
    first = "b0" if pinned else ""
    regions = assign_regions(buffers, heat, capacities, first)
    if regions is None:
        return
    assert len(regions) == len(buffers) and set(regions) <= set(range(len(capacities)))
    for region, capacity in enumerate(capacities):
        mine = [b for b, r in zip(buffers, regions, strict=True) if r == region]
        for time in range(13):
            assert sum(b.size for b in mine if b.first <= time <= b.last) <= capacity
    if pinned:
        assert regions[0] == next(r for r, capacity in enumerate(capacities) if capacity >= buffers[0].size)


def test_the_hottest_bytes_go_into_the_first_region() -> None:
    cold, hot, warm = (Buffer(name, 100, 0, 1) for name in ("cold", "hot", "warm"))
    assert assign_regions([cold, hot, warm], {"cold": 1, "hot": 900, "warm": 500}, [200, 200]) == [1, 0, 0]


def test_a_buffer_that_fits_one_region_only_gets_it() -> None:
    large, hot = Buffer("large", 100, 0, 1), Buffer("hot", 60, 0, 1)
    assert assign_regions([large, hot], {"large": 0, "hot": 900}, [100, 60]) == [0, 1]
    assert assign_regions([large, hot], {}, [90, 90]) is None


def compiled(*regions: ArenaRegion) -> CompiledModel:
    source = load("plain")
    return compile_model("plain", b"", source.graph, AdapterConfig(), TrainingConfig(), regions)


def test_a_model_over_two_rams() -> None:
    whole = compiled(ArenaRegion("fast"), ArenaRegion("slow")).arena
    assert [part.name for part in whole.parts] == ["fast"] and whole.arena_bytes == whole.parts[0].size
    half = whole.arena_bytes // 2 // 8 * 8
    model = compiled(ArenaRegion("fast", half), ArenaRegion("slow"))
    fast, slow = model.arena.parts
    assert (fast.name, slow.name) == ("fast", "slow") and 0 < fast.size <= half and slow.start == fast.size
    assert model.arena.arena_bytes == slow.end >= model.arena.lower_bound
    inputs = set()
    for graph in model.graphs:
        plan = model.arena.plans[graph.name]
        for buffer, offset in zip(plan.buffers, plan.offsets, strict=True):
            assert model.arena.part_of(offset) is model.arena.part_of(offset + buffer.size - 1)
        inputs |= {plan.offset_of(t.name) for t in graph.inputs if t.in_arena}
    assert len(inputs) == 1
    plan, heat = model.arena.plans["training"], touched_bytes(model.training, model.arena.plans["training"])  # type: ignore[arg-type]
    density: dict[str, list[float]] = {"fast": [], "slow": []}
    for buffer, offset in zip(plan.buffers, plan.offsets, strict=True):
        density[model.arena.part_of(offset).name].append(heat[buffer.name] / buffer.size)
    assert max(density["fast"]) >= max(density["slow"])


def test_what_is_shared_comes_off() -> None:
    alone = compiled(ArenaRegion("ram"))
    enough = alone.arena.arena_bytes + alone.adapter_bytes + alone.training_bytes
    for capacity, parts in ((enough, ["ram"]), (enough - 1, ["ram", "other"])):
        arena = compiled(ArenaRegion("ram", capacity, True), ArenaRegion("other")).arena
        assert [part.name for part in arena.parts] == parts


@pytest.mark.parametrize("capacity", [0, 8, 64])
def test_too_small_altogether_is_planned_in_the_first(capacity: int) -> None:
    arena = compiled(ArenaRegion("a", capacity), ArenaRegion("b", 64)).arena
    assert [part.name for part in arena.parts] == ["a"] and arena.parts[0].size > capacity
