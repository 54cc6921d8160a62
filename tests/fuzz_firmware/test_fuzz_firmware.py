"""Short runs of the fuzzers from the kept corpora, long ones, and that each would find what it is for."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fuzz import line, shares
from seeds import write_seeds
from targets import CORPUS, FIRMWARE, HERE, TARGETS, CannotFuzzError, Result, Target, build, require_fuzzer, run

Programs = Callable[[Target], Path]

#: Faults in the firmware: target, source, what is there, what takes its place
MUTANTS = {
    "a number longer than the request": ("cbor", "runtime/tp_cbor.c", "(bytes > left)", "(bytes > left + 1u)"),
    "a key that comes twice": ("cbor", "runtime/tp_request.c", "(seen[word] & bit) != 0 || ", ""),
    "an old package read behind its end": (
        "delta",
        "store/tp_delta.c",
        "smaller(left, TP_DELTA_PIECE)",
        "(left > 0 ? TP_DELTA_PIECE : 0u)",
    ),
    "a payload of any size": (
        "package",
        "runtime/tp_package.c",
        "header->payload_bytes == payload ? TP_OK : TP_ERR_SIZE",
        "TP_OK",
    ),
    "a row moved too far": ("package", "runtime/tp_package.c", "      source += given;", "      source += whole;"),
    "an unsigned package": ("smp", "store/tp_upload.c", "adapters->security, &header)", "NULL, &header)"),
    "an id other than the package's": ("smp", "store/tp_upload.c", "return TP_ERR_IDENTITY;", "return TP_OK;"),
    "an older package": ("smp", "store/tp_upload.c", "header->identity.counter < least", "0"),
    "a replaced candidate that is kept in memory": (
        "smp",
        "store/tp_adapters.c",
        "resident->part == TP_STORE_CANDIDATE) {\n      if (adapters->serving == i) {",
        "resident->part == TP_STORE_PARTS) {\n      if (adapters->serving == i) {",
    ),
    "an object read behind its end": (
        "smp",
        "runtime/tp_group_model.c",
        "if (offset > bytes || length > bytes - offset) {",
        "if (offset > bytes) {",
    ),
    "a packet longer than it says": (
        "smp",
        "runtime/tp_frame.c",
        "if (receiver->used == receiver->expected) {",
        "if (receiver->used == UINT16_MAX) {",
    ),
    "a request without a store": ("smp", "runtime/tp_server.c", "group->needs_store != 0", "group->needs_store > 1"),
    "a slot with two owners": ("store", "store/tp_store_log.c", "if (i != index && named(", "if (i > 99u && named("),
    "a slot that is not erased": (
        "store",
        "store/tp_store_slots.c",
        "!tp_store_slot_counts(store, candidate, NULL) && tp_store_slot_erased(store, candidate)",
        "!tp_store_slot_counts(store, candidate, NULL)",
    ),
    "numbers of log sectors that begin anew": (
        "store",
        "store/tp_store_log.c",
        "store->log_sequence == UINT32_MAX",
        "store->log_sequence == 0 && flash == NULL",
    ),
}


def test_a_short_run_finds_nothing(target: Target, programs: Programs, tmp_path: Path) -> None:
    kept = list(target.corpus.iterdir())
    assert len(kept) >= 5 and max(path.stat().st_size for path in kept) <= target.max_bytes
    result = run(target, programs(target), tmp_path, runs=5000)
    assert result.found is None, f"{result.reason}: {result.found}"
    assert result.executions >= 5000 and result.edges > 50


@pytest.mark.slow
def test_a_minute_finds_nothing(target: Target, programs: Programs, tmp_path: Path) -> None:
    write_seeds(target, tmp_path / "seeds")
    result = run(target, programs(target), tmp_path, runs=-1, seconds=60)
    assert result.found is None, f"{result.reason}: {result.found}"
    assert result.executions > 20_000


def test_a_planted_overflow_is_found(target: Target, fuzzer: None, tmp_path: Path) -> None:
    result = run(target, build(target, tmp_path, "-DPLANTED"), tmp_path, runs=-1, seconds=120)
    assert result.found is not None and result.found.stat().st_size > 0
    assert "AddressSanitizer" in result.reason


@pytest.mark.slow
@pytest.mark.parametrize("fault", MUTANTS)
def test_a_fault_in_the_firmware_is_found(fault: str, fuzzer: None, tmp_path: Path) -> None:
    name, source, right, wrong = MUTANTS[fault]
    text = (FIRMWARE / source).read_text()
    assert text.count(right) == 1
    mutant = tmp_path / Path(source).name
    mutant.write_text(text.replace(right, wrong))
    target = TARGETS[name]
    program = build(target, tmp_path, "-Wno-error", instead={source: mutant})
    write_seeds(target, tmp_path / "seeds")
    assert run(target, program, tmp_path, runs=-1, seconds=60).found is not None


def test_the_corpora_are_small() -> None:
    sizes = [path.stat().st_size for path in CORPUS.rglob("*") if path.is_file()]
    assert sum(sizes) < 300 * 1024
    assert {path.name for path in CORPUS.iterdir()} == set(TARGETS)


@pytest.mark.parametrize("runs", [1, 7, 10_000_000])
def test_all_runs_are_shared_out(runs: int) -> None:
    counts = shares(list(TARGETS.values()), runs)
    assert sum(counts.values()) == runs and set(counts) == set(TARGETS)
    assert counts["smp"] <= counts["cbor"]


def test_a_line_says_what_was_reached() -> None:
    said = line(TARGETS["smp"], Result(150_000, 50.0, 1400, Path("crash"), "why"))
    assert "150,000 executions" in said and "3,000/s" in said and "1400 edges" in said and "a finding" in said


def test_clang_without_a_fuzzer_is_told(without_clang: Path) -> None:
    with pytest.raises(CannotFuzzError, match="clang is not installed; try: make setup"):
        require_fuzzer()
    clang = without_clang / "clang"
    clang.write_text('#!/bin/sh\n[ "$1" = -dumpversion ] && echo 99.1.2 && exit 0\nexit 1\n')
    clang.chmod(0o755)
    with pytest.raises(CannotFuzzError, match="clang 99 has no fuzzer runtime; try: .*libclang-rt-99-dev"):
        require_fuzzer()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["nothing"], "no target nothing; try one of cbor"), (["--runs", "0"], "--runs 0, --seconds 0: try")],
)
def test_what_the_program_does_not_take(arguments: list[str], said: str) -> None:
    run_of = subprocess.run([sys.executable, str(HERE / "fuzz.py"), *arguments], capture_output=True, text=True)
    assert run_of.returncode == 2 and said in run_of.stderr and "Traceback" not in run_of.stderr
