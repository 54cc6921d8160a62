"""plan_arena on random instances, against a check and an optimum of the tests' own."""

from __future__ import annotations

import csv
import itertools
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinypeft.errors import VerifyError
from tinypeft.planner import Buffer, Plan, lower_bound, plan_arena, verify_plan


@st.composite
def instances(draw: st.DrawFn, most: int) -> list[Buffer]:
    """Up to `most` buffers in a schedule of twelve operations."""
    buffers = []
    for number in range(draw(st.integers(1, most))):
        first = draw(st.integers(0, 11))
        last = draw(st.integers(first, min(11, first + 6)))
        buffers.append(Buffer(f"b{number}", 4 * draw(st.integers(1, 40)), first, last))
    return buffers


def faults(plan: Plan) -> list[str]:
    """What is wrong with a plan, found operation by operation and byte by byte."""
    found = []
    end = max((b.last for b in plan.buffers), default=0)
    for time in range(end + 1):
        taken: dict[int, str] = {}
        for buffer, offset in zip(plan.buffers, plan.offsets, strict=True):
            if not buffer.first <= time <= buffer.last:
                continue
            for word in range(offset, offset + buffer.size, 4):
                if word in taken:
                    found.append(f"{buffer.name} and {taken[word]} at {time}")
                    break
                taken[word] = buffer.name
        if taken and (min(taken) < 0 or max(taken) + 4 > plan.arena_bytes):
            found.append(f"outside at {time}")
    return found


def optimum(buffers: list[Buffer], pinned: dict[str, int]) -> int:
    """The smallest arena there is: first fit in some order gives it, so try every order."""
    best = 1 << 30
    for order in itertools.permutations(b for b in buffers if b.name not in pinned):
        placed = [(b, pinned[b.name]) for b in buffers if b.name in pinned]
        for buffer in order:
            rivals = [
                (o, o + other.size) for other, o in placed if other.first <= buffer.last and buffer.first <= other.last
            ]
            places = sorted({0, *(end for _, end in rivals)})
            fitting = (p for p in places if all(p >= end or p + buffer.size <= start for start, end in rivals))
            placed.append((buffer, next(fitting)))
            if placed[-1][1] + buffer.size >= best:
                break
        else:
            best = max(offset + b.size for b, offset in placed)
    return best


@settings(max_examples=150, deadline=None)
@given(instances(24))
def test_plans_are_sound(buffers: list[Buffer]) -> None:
    plan = plan_arena(buffers)
    assert faults(plan) == []
    assert plan.lower_bound == lower_bound(buffers)[0] <= plan.arena_bytes
    assert plan.gap == plan.arena_bytes - plan.lower_bound
    live = [sum(b.size for b in buffers if b.first <= t <= b.last) for t in range(12)]
    assert plan.lower_bound == max(live) == live[plan.peak_operation]
    assert plan_arena(buffers).offsets == plan.offsets, "the same buffers give the same plan"


@settings(max_examples=60, deadline=None)
@given(instances(6))
def test_small_plans_are_optimal(buffers: list[Buffer]) -> None:
    plan, best = plan_arena(buffers), optimum(buffers, {})
    assert lower_bound(buffers)[0] <= best
    assert plan.arena_bytes == best


@settings(max_examples=60, deadline=None)
@given(instances(6), st.integers(0, 30))
def test_pinned_buffers_stay_where_they_are(buffers: list[Buffer], word: int) -> None:
    pinned = {buffers[0].name: 4 * word}
    plan = plan_arena(buffers, pinned)
    assert faults(plan) == []
    assert plan.offset_of("b0") == 4 * word
    assert plan.arena_bytes >= optimum(buffers, pinned)
    at_start = plan_arena(buffers, {"b0": 0})
    assert at_start.offset_of("b0") == 0 and at_start.arena_bytes == optimum(buffers, {"b0": 0})


def test_nothing_to_plan() -> None:
    plan = plan_arena([])
    assert (plan.arena_bytes, plan.lower_bound, plan.offsets) == (0, 0, [])


def test_buffers_that_meet_only_at_a_gap_first_fit_wastes() -> None:
    """An instance whose size-ordered first fit is not optimal; the search finds the optimum."""
    buffers = [
        Buffer("a", 8, 0, 1),
        Buffer("b", 8, 1, 3),
        Buffer("c", 12, 2, 4),
        Buffer("d", 4, 0, 2),
        Buffer("e", 8, 4, 5),
    ]
    assert plan_arena(buffers).arena_bytes == optimum(buffers, {})


@pytest.mark.parametrize(
    ("offsets", "size", "message"),
    [
        ([0, 4], 24, r"plan: b \[4, 16\) and a \[0, 8\) overlap while both are live"),
        ([0, 12], 20, "plan: b at 12, 12 B, leaves the arena of 20 B"),
        ([0, 10], 24, "plan: b at 10, 12 B, leaves the arena"),
        ([-4, 8], 24, "plan: a at -4, 8 B, leaves the arena"),
    ],
)
def test_verify_plan_names_the_fault(offsets: list[int], size: int, message: str) -> None:
    buffers = [Buffer("a", 8, 0, 2), Buffer("b", 12, 2, 3)]
    with pytest.raises(VerifyError, match=message):
        verify_plan(Plan(buffers, offsets, size, 20, 2))
    verify_plan(Plan(buffers, [0, 8], 20, 20, 2))


@settings(max_examples=100, deadline=None)
@given(instances(8), st.data())
def test_verify_plan_agrees_with_the_check_of_this_module(buffers: list[Buffer], data: st.DataObject) -> None:
    offsets = [4 * data.draw(st.integers(0, 60)) for _ in buffers]
    plan = Plan(buffers, offsets, 300, 0, 0)
    try:
        verify_plan(plan)
    except VerifyError:
        assert faults(plan) != []
    else:
        assert faults(plan) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", "ABCDEFGHIJK")
def test_published_instances(shared_data: Path, name: str) -> None:
    """minimalloc's challenging instances, whose optimum is at most 1 MiB; ranges are half-open there."""
    with (shared_data / "minimalloc" / f"{name}.1048576.csv").open() as file:
        rows = list(csv.DictReader(file))
    buffers = [Buffer(r["id"], (int(r["size"]) + 3) // 4 * 4, int(r["lower"]), int(r["upper"]) - 1) for r in rows]
    plan = plan_arena(buffers)
    verify_plan(plan)
    assert plan.arena_bytes <= 1.45 * (1 << 20), f"{plan.arena_bytes:,} B, the bound is {plan.lower_bound:,} B"
