"""The RAM and flash of firmware that keeps adapters: what is promised before it is built, against what is built."""

from __future__ import annotations

import pytest
from kept import ADAPTERS, RESIDENT, Build

from tinypeft.analysis.memory import memory_usage
from tinypeft.fitting import DEFAULT_STACK, RUNTIME_RAM, ram_needed
from tinypeft.generate import sources_for
from tinypeft.project import measure

#: configuration, how many adapters it keeps, how many of them in RAM
ROOM = [("plain", ADAPTERS, RESIDENT), ("mlp", 1, 1), ("mlp", 8, 4), ("residual", 12, 8)]
#: Most that an estimate of the code may be off
_TOLERANCE = 0.15


@pytest.mark.parametrize(("name", "adapters", "resident"), ROOM)
def test_what_is_promised(kept: Build, name: str, adapters: int, resident: int) -> None:
    """The rest of the RAM is the runtime's as without adapters, and no more than the check for fit adds for that."""
    built = kept(name, adapters=adapters, resident=resident)
    report, model = built.report, built.model
    assert report.ram_bytes is not None and report.flash_bytes is not None
    assert report.ram_bytes["adapters"] == model.kept_bytes
    assert 1100 < report.ram_bytes["data_bss"] <= RUNTIME_RAM
    assert report.ram_bytes["total"] <= ram_needed(model, DEFAULT_STACK)
    sizes = measure(built.project.directory / "build" / "firmware.elf").symbols
    track = model.kept_bytes - (resident - 1) * -(-model.adapter_bytes // 4) * 4
    assert 0 <= track - sizes["store"] - sizes["adapters"] <= 64, "the other residents apart: the store, what tracks"
    sources = sources_for(model, built.project.board, built.project.memory)
    memory = memory_usage(model, sources, DEFAULT_STACK, None)
    ram = {part.name: part.bytes for part in memory.ram.parts}
    assert ram["adapters"] == model.kept_bytes and memory.ram.bytes >= report.ram_bytes["total"]
    constants, code = memory.flash.parts
    real = report.flash_bytes - constants.bytes
    assert abs(code.bytes - real) <= _TOLERANCE * real, f"estimated {code.bytes:,} B of code, there are {real:,}"
