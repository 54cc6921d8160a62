"""plan_arena and verify_plan on random problems, against a check and an optimum of the tests' own."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planning import OPERATIONS, crowded, faults, fits, instances, optimum, tight

from tinypeft.errors import VerifyError
from tinypeft.planner import Buffer, Plan, lower_bound, plan_arena, verify_plan
from tinypeft.planner import native as native_module
from tinypeft.planner.arena import Progress
from tinypeft.planner.instances import read_instance


@settings(max_examples=150, deadline=None)
@given(instances(24))
def test_plans_are_sound(buffers: list[Buffer]) -> None:
    plan = plan_arena(buffers)
    assert faults(plan) == []
    assert plan.lower_bound == lower_bound(buffers)[0] <= plan.bound <= plan.arena_bytes
    assert plan.gap == plan.arena_bytes - plan.bound and plan.optimal == (plan.gap == 0)
    live = [sum(b.size for b in buffers if b.first <= t <= b.last) for t in range(OPERATIONS)]
    assert plan.lower_bound == max(live) == live[plan.peak_operation]
    again = plan_arena(buffers)
    assert (again.offsets, again.method, again.nodes) == (plan.offsets, plan.method, plan.nodes)


@settings(max_examples=100, deadline=None)
@given(instances(6))
def test_small_plans_are_optimal_and_proved(buffers: list[Buffer]) -> None:
    plan = plan_arena(buffers)
    assert plan.arena_bytes == plan.bound == optimum(buffers, {})
    assert plan.proof == ("lower bound met" if plan.bound == plan.lower_bound else "exact search")


@settings(max_examples=60, deadline=None)
@given(instances(5), st.integers(0, 30))
def test_pinned_buffers_stay_where_they_are(buffers: list[Buffer], word: int) -> None:
    for pinned in ({"b0": 4 * word}, {"b0": 0}):
        plan = plan_arena(buffers, pinned)
        assert faults(plan) == []
        assert plan.offset_of("b0") == pinned["b0"]
        assert plan.arena_bytes == plan.bound == optimum(buffers, pinned)


def test_two_buffers_pinned_into_each_other_are_refused() -> None:
    with pytest.raises(VerifyError, match=r"plan: b \[4, 12\) and a \[0, 8\) overlap"):
        plan_arena([Buffer("a", 8, 0, 2), Buffer("b", 8, 1, 3)], {"a": 0, "b": 4})


def test_nothing_to_plan() -> None:
    plan = plan_arena([])
    assert (plan.arena_bytes, plan.lower_bound, plan.offsets, plan.optimal) == (0, 0, [], True)


def test_empty_buffers_take_no_place() -> None:
    plan = plan_arena([Buffer("a", 0, 0, 3), Buffer("b", 8, 1, 2), Buffer("c", 0, 1, 1)], {"c": 0})
    assert (plan.arena_bytes, plan.offsets, plan.optimal) == (8, [0, 0, 0], True)


#: (granules, first, last) of buffers that no arena holds of the size that is live at once at most
GAPS = [
    [(2, 2, 2), (3, 1, 3), (1, 2, 5), (3, 6, 7), (3, 0, 1), (2, 5, 7), (1, 3, 6), (1, 7, 7), (2, 4, 5), (1, 3, 4)],
    [
        *[(4, 1, 4), (2, 0, 1), (1, 3, 4), (4, 5, 5), (2, 1, 2), (2, 4, 5)],
        *[(1, 2, 4), (1, 2, 3), (2, 5, 5), (1, 3, 3), (2, 0, 0), (3, 0, 0)],
    ],
]


@pytest.mark.parametrize("lives", GAPS, ids=["10", "12"])
def test_where_the_lower_bound_cannot_be_met_the_search_proves_it(lives: list[tuple[int, int, int]]) -> None:
    buffers = [Buffer(f"b{i}", 4 * size, first, last) for i, (size, first, last) in enumerate(lives)]
    plan = plan_arena(buffers)
    assert not fits(buffers, plan.lower_bound) and fits(buffers, plan.lower_bound + 4)
    assert plan.arena_bytes == plan.bound == plan.lower_bound + 4
    assert plan.optimal and plan.proof == "exact search" and faults(plan) == []


@settings(max_examples=150, deadline=None)
@given(crowded(12))
def test_crowded_plans_are_optimal_and_proved(buffers: list[Buffer]) -> None:
    plan = plan_arena(buffers)
    assert plan.optimal and faults(plan) == []
    assert plan.arena_bytes == plan.lower_bound or not fits(buffers, plan.arena_bytes - 4)


@pytest.mark.parametrize(("rooms", "count"), [(3, 12), (5, 30), (12, 80)])
def test_an_arena_that_can_be_filled_is_filled(rooms: int, count: int) -> None:
    """Greedy orders leave gaps here; the search leaves none."""
    for seed in range(3):
        plan = plan_arena(tight(rooms, count, seed))
        assert plan.arena_bytes == plan.lower_bound == 40 * rooms, seed
        assert faults(plan) == []


def test_a_plan_is_the_same_with_and_without_what_can_be_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A compilation uses neither C nor OR-Tools, nor this process's hashes or clock."""
    monkeypatch.setattr(native_module, "search", None)
    plan = plan_arena(tight(6, 60, 1))
    program = (
        "import sys; sys.modules['ortools'] = None; sys.path.insert(0, sys.argv[1])\n"
        "from planning import tight\n"
        "from tinypeft.planner import plan_arena\n"
        "plan = plan_arena(tight(6, 60, 1)); print(plan.offsets, plan.method, plan.nodes)\n"
    )
    command = [sys.executable, "-c", program, str(Path(__file__).parent)]
    environment = {"PYTHONHASHSEED": "7", "PATH": ""}
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert run.stdout.strip() == f"{plan.offsets} {plan.method} {plan.nodes}"


def test_effort_exact_goes_on_where_fast_ends() -> None:
    buffers = tight(30, 300, 0)
    fast, seen = plan_arena(buffers), list[Progress]()
    exact = plan_arena(buffers, effort="exact", time_limit=60, changed=seen.append)
    assert fast.arena_bytes > exact.arena_bytes == exact.lower_bound == 1200 and exact.optimal
    assert faults(exact) == []
    heights = [state.arena_bytes for state in seen]
    assert heights == sorted(heights, reverse=True) and heights[-1] == exact.arena_bytes


def test_an_altered_plan_is_judged_anew() -> None:
    plan = plan_arena([Buffer("a", 8, 0, 2), Buffer("b", 12, 2, 3)])
    assert plan.optimal
    higher = replace(plan, offsets=[0, 16], arena_bytes=28)
    assert not higher.optimal and higher.gap == 8


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
def test_verify_plan_agrees_with_the_check_of_the_tests(buffers: list[Buffer], data: st.DataObject) -> None:
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
    """MiniMalloc's challenging instances: as much is live at once in ten of them as the best arena has."""
    if native_module.why_not_native():
        pytest.skip(f"a minute is too short for Python alone: {native_module.why_not_native()}")
    instance = read_instance(shared_data / "minimalloc" / f"{name}.1048576.csv")
    plan = plan_arena(instance.buffers, effort="exact", time_limit=60)
    limit = {"C": 1_039_360, "D": 1_040_384, "J": 1_047_552}.get(name, 1_048_576)
    assert plan.arena_bytes <= limit, f"{plan.arena_bytes:,} B, the bound is {plan.bound:,} B"
    assert plan.optimal or name in "DJ"


@pytest.mark.slow
def test_published_instances_where_nothing_is_installed(shared_data: Path) -> None:
    """What a compilation does in its second or two: five of these are proved."""
    proved = ""
    for path in sorted((shared_data / "minimalloc").glob("*.csv")):
        plan = plan_arena(read_instance(path).buffers)
        assert plan.arena_bytes <= 1.45 * (1 << 20), f"{path.name}: {plan.arena_bytes:,} B"
        proved += path.name[0] if plan.optimal else ""
    assert set("ABCEF") <= set(proved)
