"""Each search by itself: what the exact one finds and rules out, in Python and in C, and what CP-SAT does."""

from __future__ import annotations

import itertools
import random
import shutil
import subprocess
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planning import crowded, fits, instances, optimum, tight

from tinypeft.planner import Buffer, cp_sat, exact, native
from tinypeft.planner.exact import Outcome, Rule, Verdict
from tinypeft.planner.greedy import BEST_FIT, greedy_packings, place_in_order
from tinypeft.planner.incumbent import CP_SAT, EXACT_SEARCH, Incumbent
from tinypeft.planner.packing import Packing, make_packing
from tinypeft.planner.restarts import minimise


@pytest.fixture(scope="module")
def in_c() -> None:
    if native.why_not_native():
        pytest.skip(str(native.why_not_native()))


@pytest.fixture(scope="module")
def ortools() -> None:
    if not cp_sat.available():
        pytest.skip("ortools is not installed: pip install 'tinypeft[planner]'")


def check(packing: Packing, offsets: list[int], capacity: int) -> None:
    """The offsets are a packing of at most `capacity` granules."""
    assert packing.height(offsets) <= capacity
    for i, others in enumerate(packing.neighbours):
        assert offsets[i] >= 0 and packing.pins[i] in (-1, offsets[i])
        for j in others:
            assert offsets[i] + packing.sizes[i] <= offsets[j] or offsets[j] + packing.sizes[j] <= offsets[i]


def ranks(packing: Packing, seed: int) -> list[int]:
    rank = list(range(len(packing.sizes)))
    random.Random(seed).shuffle(rank)
    return rank


def poor(packing: Packing) -> Incumbent:
    """One buffer above the other, none of them pinned."""
    offsets = [0, *itertools.accumulate(packing.sizes)]
    return Incumbent(offsets[:-1], offsets[-1], "stacked", packing.bound)


@settings(max_examples=150, deadline=None)
@given(instances(6), st.sampled_from(Rule), st.integers(0, 99), st.integers(-1, 20))
def test_the_exact_search_finds_the_optimum_and_rules_out_less(
    buffers: list[Buffer], rule: Rule, seed: int, pin: int
) -> None:
    """Whatever the order of trying and the rule, and with a pinned buffer."""
    pinned = {"b0": 4 * pin} if pin >= 0 else {}
    packing = make_packing(buffers, pinned)
    best = optimum(buffers, pinned) // packing.granule
    found = exact.search(packing, best, ranks(packing, seed), rule, 10**6)
    assert found.verdict is Verdict.FOUND
    check(packing, found.offsets, best)
    assert exact.search(packing, best - 1, ranks(packing, seed), rule, 10**6).verdict is Verdict.IMPOSSIBLE


@settings(max_examples=200, deadline=None)
@given(crowded(11), st.sampled_from(Rule), st.integers(0, 99))
def test_the_exact_search_fits_what_fits(buffers: list[Buffer], rule: Rule, seed: int) -> None:
    packing = make_packing(buffers, {})
    outcome = exact.search(packing, packing.bound, ranks(packing, seed), rule, 10**6)
    assert outcome.verdict is (Verdict.FOUND if fits(buffers, packing.bound * packing.granule) else Verdict.IMPOSSIBLE)


@settings(max_examples=150, deadline=None)
@given(
    instances(20) | crowded(30),
    st.sampled_from(Rule),
    st.integers(0, 99),
    st.sampled_from([None, 0, 12]),
    st.sampled_from([300, 20]),
)
def test_the_search_in_c_is_the_one_in_python(
    in_c: None, buffers: list[Buffer], rule: Rule, seed: int, pin: int | None, limit: int
) -> None:
    """Verdict, offsets and nodes, at capacities that can be met, that can't, and where nodes run out."""
    packing = make_packing(buffers, {} if pin is None else {"b0": pin})
    for capacity in (packing.bound - 1, packing.bound, packing.bound + packing.bound // 20 + 1):
        arguments = (packing, capacity, ranks(packing, seed), rule, limit)
        assert native.search(*arguments) == exact.search(*arguments)


@pytest.mark.parametrize("rule", Rule)
def test_both_agree_on_a_hard_problem(in_c: None, rule: Rule) -> None:
    packing = make_packing(tight(20, 200, 1), {})
    for seed in range(3):
        arguments = (packing, packing.bound, ranks(packing, seed), rule, 700)
        outcome = native.search(*arguments)
        assert outcome == exact.search(*arguments)
        assert outcome.nodes > 100


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_the_search_in_c_compiles_without_a_warning(compiler: str, tmp_path: Path) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    source = Path(str(native.__file__)).with_name("search.c")
    flags = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Werror", "-fPIC"]
    command = [compiler, *flags, "-c", str(source), "-o", str(tmp_path / "search.o")]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("engine", [exact, native], ids=["python", "c"])
def test_a_search_ends_when_it_is_told(engine, request: pytest.FixtureRequest) -> None:
    if engine is native:
        request.getfixturevalue("in_c")
    packing = make_packing(tight(20, 200, 1), {})
    asked = []

    def stop() -> bool:
        asked.append(True)
        return len(asked) == 2

    outcome = engine.search(packing, packing.bound, ranks(packing, 0), Rule.LOWEST, 10**9, stop)
    assert outcome.verdict is Verdict.UNDECIDED and len(asked) == 2

    def interrupt() -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engine.search(packing, packing.bound, ranks(packing, 0), Rule.LOWEST, 10**9, interrupt)


@settings(max_examples=60, deadline=None)
@given(instances(6))
def test_restarts_end_with_a_proof(buffers: list[Buffer]) -> None:
    packing = make_packing(buffers, {})
    incumbent = poor(packing)
    minimise(packing, incumbent, exact.search)
    best = optimum(buffers, {}) // packing.granule
    assert incumbent.height == incumbent.bound == best
    assert incumbent.proof == EXACT_SEARCH or best == packing.bound
    check(packing, incumbent.offsets, best)


def test_restarts_keep_to_their_nodes() -> None:
    packing = make_packing(tight(20, 200, 1), {})
    incumbent = poor(packing)
    minimise(packing, incumbent, exact.search, nodes=400)
    assert 400 <= incumbent.nodes <= 401 and not incumbent.optimal


def test_the_bound_rises_by_proof_alone() -> None:
    packing = make_packing([Buffer("a", 8, 0, 1), Buffer("b", 8, 1, 2)], {})
    assert packing.granule == 8 and packing.bound == 2
    calls = []

    def search(_: Packing, capacity: int, *rest: object) -> Outcome:
        calls.append(capacity)
        return Outcome(Verdict.UNDECIDED, [], 10)

    incumbent = Incumbent([0, 3], 4, "made up", packing.bound)
    minimise(packing, incumbent, search, nodes=200)
    assert (incumbent.bound, incumbent.height) == (2, 4) and set(calls) == {2, 3}


@settings(max_examples=25, deadline=None)
@given(instances(6), st.integers(-1, 20))
def test_cp_sat_finds_and_proves_the_optimum(ortools: None, buffers: list[Buffer], pin: int) -> None:
    pinned = {"b0": 4 * pin} if pin >= 0 else {}
    packing = make_packing(buffers, pinned)
    offsets = place_in_order(packing, packing.order, BEST_FIT)
    best = optimum(buffers, pinned) // packing.granule
    incumbent = Incumbent(offsets, packing.height(offsets), "greedy", 0)
    cp_sat.minimise_by_cp_sat(packing, incumbent, 20.0, threading.Event())
    assert incumbent.height == incumbent.bound == best
    assert incumbent.proof == CP_SAT
    check(packing, incumbent.offsets, best)


def test_cp_sat_stops(ortools: None) -> None:
    packing, stop = make_packing(tight(30, 300, 2), {}), threading.Event()
    incumbent = poor(packing)
    threading.Timer(1.0, stop.set).start()
    begin = time.monotonic()
    cp_sat.minimise_by_cp_sat(packing, incumbent, 300.0, stop)
    assert time.monotonic() - begin < 60


def test_greedy_orders_differ() -> None:
    """First fit takes the lowest gap that is wide enough, best fit the tightest."""
    buffers = [Buffer("low", 12, 0, 1), Buffer("mid", 8, 0, 4), Buffer("high", 4, 0, 1), Buffer("top", 4, 0, 4)]
    packing = make_packing([*buffers, Buffer("new", 4, 3, 4)], {"low": 0, "mid": 12, "high": 20, "top": 24})
    assert packing.granule == 4
    assert place_in_order(packing, [4]) == [0, 3, 5, 6, 0]
    assert place_in_order(packing, [4], BEST_FIT) == [0, 3, 5, 6, 5]
    names = [name for name, _, _ in greedy_packings(packing)]
    assert names[0] == "first fit by size" and len(names) == len(set(names)) == 10


@settings(max_examples=100, deadline=None)
@given(instances(12))
def test_sections_hold_who_meets_whom(buffers: list[Buffer]) -> None:
    packing = make_packing(buffers, {})
    for i, buffer in enumerate(buffers):
        meets = [j for j, other in enumerate(buffers) if j != i and buffer.overlaps(other)]
        assert list(packing.neighbours[i]) == meets
    for section, following in itertools.pairwise(map(set, packing.members)):
        assert not section <= following and not following <= section
    assert packing.bound * packing.granule == max(
        sum(b.size for b in buffers if b.first <= t <= b.last) for t in range(12)
    )
