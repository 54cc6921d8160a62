"""Estimates of an analysis against the firmware that is built: exact what is called exact, close what is estimated."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from analysed import STACK, analysed
from projects import BOARD, CONFIGURATIONS, Built

from tinypeft.analysis.memory import memory_usage
from tinypeft.boards import load_board
from tinypeft.generate import sources_for
from tinypeft.project import measure

#: Most that an estimate of the code may be off
_TOLERANCE = 0.15


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_what_is_exact_and_what_is_close(project: Callable[[str], Built], name: str) -> None:
    built, analysis = project(name), analysed(name)
    assert built.report.ram_bytes is not None and built.report.flash_bytes is not None
    exact = {part.name: part.bytes for part in analysis.memory.ram.parts if part.basis == "exact"}
    for part, size in exact.items():
        assert size == built.report.ram_bytes[part]
    assert analysis.memory.ram.basis == analysis.memory.flash.basis == "estimate"
    assert built.report.ram_bytes["total"] <= analysis.memory.ram.bytes, "the runtime's share is the most that it takes"
    constants, code = analysis.memory.flash.parts
    assert (constants.basis, code.basis) == ("exact", "estimate")
    real = built.report.flash_bytes - constants.bytes
    assert abs(code.bytes - real) <= _TOLERANCE * real, f"estimated {code.bytes:,} B of code, there are {real:,}"


def test_measured(project: Callable[[str], Built]) -> None:
    built, board = project("plain"), load_board(BOARD)
    sizes = measure(built.directory / "build" / "firmware.elf")
    memory = memory_usage(built.model, sources_for(built.model, board), STACK, sizes)
    assert memory.ram.basis == memory.flash.basis == "measured"
    assert (memory.ram.bytes, memory.flash.bytes) == (sizes.ram_bytes, sizes.flash_bytes)
    assert sum(part.bytes for part in memory.flash.parts) == sizes.flash_bytes
