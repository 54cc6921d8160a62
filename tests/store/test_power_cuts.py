"""Whenever the power fails, what was stored is there: a sample of `make test-power`. The simulator finds defects."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from power_cuts import HERE, SANITIZED, SIMULATOR, STORE, compile_c, cut_power

SOURCES = [HERE / "power_cuts.c", *SIMULATOR, *STORE]


@pytest.mark.parametrize("flags", [["-O2"], SANITIZED], ids=["optimised", "sanitized"])
def test_power_cuts(flags: list[str], tmp_path: Path) -> None:
    every, second = (79, 200) if flags == SANITIZED else (37, 100)
    program = compile_c(tmp_path / "power_cuts", SOURCES, *flags)
    cuts, second_cuts, moved, changed = cut_power(program, every, second, shards=1)
    assert cuts > 5000 and second_cuts > 1000, "a smaller sample than it was"
    assert moved > 0 and changed > 0, "no scenario collects slots that count, or none changes the log sector"


#: what -> (file, what is there, what would be wrong)
DEFECTS = {
    "a snapshot counts before its seal": (
        "tp_store_log.c",
        "tp_get_u32(cell + 4) != sequence) {\n      return 0;",
        "tp_get_u32(cell + 4) != sequence) {\n      return sequence;",
    ),
    "a torn cell is written again": ("tp_store_log.c", "if (kind != ERASED) {", "if (kind > UNREADABLE) {"),
    "a cell that is a fault counts as erased": ("tp_store_log.c", "return UNREADABLE;", "return ERASED;"),
    "the log sector in use is erased": ("tp_store_log.c", "(store->log_sector + 1u) %", "(store->log_sector + 0u) %"),
    "a collection counts before it is done": (
        "tp_store_slots.c",
        "  status = erase(store, spare);\n",
        "  status = tp_store_log_block(store, block, spare | TP_STORE_CLEAN);\n"
        "  status = status == TP_OK ? erase(store, spare) : status;\n",
    ),
    "a cut erasure is trusted": ("tp_store_slots.c", "& TP_STORE_CLEAN) == 0", "& TP_STORE_CLEAN) > 255"),
    "erased before the log says so": ("tp_store_slots.c", "[block] & TP_STORE_CLEAN) != 0", "[block] & 0) != 0"),
    "programmed units may look erased": (
        "tp_store_slots.c",
        "= all_erased(data + at, unit, flash->erased);",
        "= unit > 32u;",
    ),
    "what was begun is taken for erased": ("tp_store_slots.c", "|| !all_erased(", "|| 0 > all_erased("),
    "the old candidate is given up first": (
        "tp_store_upload.c",
        "  tp_store_give_up(&entry, part);\n",
        "  tp_store_give_up(&entry, part);\n"
        "  (void)(tp_store_find(store, entry.id) == NULL ? TP_OK : tp_store_put(store, &entry));\n",
    ),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_the_simulator_finds(defect: str, tmp_path: Path) -> None:
    name, right, wrong = DEFECTS[defect]
    for path in STORE:
        shutil.copy(path, tmp_path)
    text = (tmp_path / name).read_text()
    assert text.count(right) == 1
    (tmp_path / name).write_text(text.replace(right, wrong))
    sources = [HERE / "power_cuts.c", *SIMULATOR, *(tmp_path / path.name for path in STORE)]
    program = compile_c(tmp_path / "power_cuts", sources, "-O1")
    with pytest.raises(AssertionError, match=r"FAILED write unit \d+, .*; .*step \d+, .*: "):
        cut_power(program, every=7, second=50, shards=1)
