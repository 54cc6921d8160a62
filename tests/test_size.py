"""What `make size` measures: every byte of the ELF is somebody's, and what keeps adapters stays below its limits."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest
from benchmark_scripts import load_benchmark

from tinypeft.project import measure


@pytest.fixture(scope="module")
def size() -> ModuleType:
    return load_benchmark("size")


@pytest.fixture(scope="module")
def elf(size: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return size.build(tmp_path_factory.mktemp("size") / "project")


def test_what_keeps_adapters_is_within_its_limits_and_no_worse_than_the_baseline(size: ModuleType, elf: Path) -> None:
    found, baseline = size.figures(size.measure(elf)), json.loads(size.BASELINE.read_text())
    assert size.complaints(found, baseline) == []
    assert size.LIMITS["code"][0] == 16 * 1024 and size.LIMITS["ram"][0] == 2 * 1024


def test_the_parts_are_all_of_the_elf(size: ModuleType, elf: Path) -> None:
    """But for the gaps of alignment, and for strings that the linker merges and the parts count where they are."""
    parts, whole = size.measure(elf), measure(elf)
    code, ram = sum(part.code for part in parts.values()), sum(part.ram for part in parts.values())
    assert abs(code - whole.flash_bytes) <= 0.01 * whole.flash_bytes
    assert 0 <= whole.data_bss_bytes - ram <= 64


def test_symbols_are_counted_where_they_belong(size: ModuleType, elf: Path) -> None:
    parts, symbols = size.measure(elf), measure(elf).symbols
    assert parts["store"].code > sum(
        symbols[name] for name in ("tp_store_mount", "tp_store_commit", "tp_store_collect")
    )
    assert parts["store"].ram == symbols["store"]
    held = parts["package"].ram + parts["deltas"].ram + parts["adapters in memory"].ram
    assert symbols["adapters"] == held, "the two static objects of tp_device_adapters.c"
    assert parts["SMP"].ram + parts["frame buffers"].ram == symbols["server"]
    assert parts["frame buffers"].ram == 2 * (8 + 512) + 4


def test_what_is_worse_is_told(size: ModuleType) -> None:
    found = {"code": {"limited": 16_385}, "ram": {"limited": 1_000}}
    above_limit, above_baseline = size.complaints(found, {"code": {"limited": 16_000}, "ram": {"limited": 995}})
    assert "16,385 B, the limit 16,384 B" in above_limit and "16,385 B, the baseline 16,000 B" in above_baseline


def test_a_source_that_no_part_has_is_told(size: ModuleType) -> None:
    assert size.part_of("build/firmware/store/tp_store_log.o") == "store"
    assert size.part_of("/usr/lib/gcc/arm-none-eabi/13/libgcc.a(_udivmoddi4.o)") == "C library"
    assert size.part_of("build/firmware/kernels/tp_lora.o") == size.part_of("build/src/size.o")
    with pytest.raises(SystemExit, match="tp_new"):
        size.part_of("build/firmware/store/tp_new.o")
