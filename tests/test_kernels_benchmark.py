"""benchmarks/kernels.py: what it compares, and that its baseline has all of it."""

from __future__ import annotations

import json
from types import ModuleType

import pytest
from benchmark_scripts import load_benchmark

from tinypeft.boards import load_board
from tinypeft.counting.cycles import CORES


@pytest.fixture(scope="module")
def kernels() -> ModuleType:
    return load_benchmark("kernels")


def test_the_baseline_has_every_case_on_every_board(kernels: ModuleType) -> None:
    baseline = json.loads(kernels.BASELINE.read_text())
    assert set(baseline) == set(kernels.CASES)
    for name, boards in baseline.items():
        assert set(boards) == set(kernels.CASES[name].boards)
        for board, figures in boards.items():
            assert ("cycles" in figures) == (load_board(board).core in CORES)
            assert {"instructions", "code_bytes", "weight_bytes", "arena_bytes"} <= set(figures)


def test_more_than_one_per_cent_is_worse(kernels: ModuleType) -> None:
    baseline = {"kws": {"mps2_an386": {"instructions": 1000, "code_bytes": 100}}}
    same = {"kws": {"mps2_an386": {"instructions": 1010, "code_bytes": 90}, "mps2_an385": {"instructions": 5}}}
    assert kernels.worse(same, baseline) == []
    found = {"kws": {"mps2_an386": {"instructions": 1011, "code_bytes": 102}}}
    assert kernels.worse(found, baseline) == [
        "kws on mps2_an386: instructions is 1,011, the baseline 1,000",
        "kws on mps2_an386: code_bytes is 102, the baseline 100",
    ]
    assert kernels.table(found, baseline).row_count == 1
