"""`tinypeft generate`: what it reports, that the ELF says the same, and what fits where the whole does not."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from invocation import generate, generate_refused
from projects import BOARD, CONFIGURATIONS, Built, save_model
from small_models import Net

from tinypeft.boards import load_board
from tinypeft.fitting import RUNTIME_RAM

REPORT_KEYS = {
    *("arena_bytes", "arena_lower_bound", "flash_bytes", "ram_bytes", "ram_regions", "macs", "trainable_parameters"),
    *("base_parameters", "recomputed_operations", "recomputed_macs"),
}
RAM_KEYS = ["arena", "adapter", "optimizer", "stack", "data_bss", "total"]


def test_json_is_one_object(tmp_path: Path) -> None:
    result = generate(save_model("plain", tmp_path), tmp_path / "p", "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert set(report) == REPORT_KEYS and list(report["ram_bytes"]) == RAM_KEYS
    assert (report["trainable_parameters"], report["base_parameters"]) == (72 + 24 + 24 + 32 + 45, 114 + 60 + 56 + 45)
    assert report["macs"] == 16 * (108 + 72 + 24) + 16 * 54 + 16 * (48 + 24 + 32) + 40 * 2


def test_for_people(tmp_path: Path) -> None:
    result = generate(save_model("plain", tmp_path), tmp_path / "p")
    assert result.exit_code == 0 and "optimal for this schedule, proved" in result.stdout
    for name in RAM_KEYS:
        assert f"RAM: {name}" in result.stdout
    assert f"next: tinypeft test {tmp_path / 'p'}" in result.stdout.replace("\n", " ")


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_the_report_is_what_the_elf_says(project: Callable[[str], Built], name: str) -> None:
    """Section sizes by arm-none-eabi-size; the parts add up to the total; symbols have the sizes reported."""
    built = project(name)
    elf = built.directory / "build" / "firmware.elf"
    listing = subprocess.run(["arm-none-eabi-size", "-A", str(elf)], capture_output=True, text=True, check=True).stdout
    sections = {m[1]: int(m[2]) for m in re.finditer(r"^(\.\w\S*)\s+(\d+)\s+\d+", listing, re.MULTILINE)}
    ram, report = built.report.ram_bytes, built.report
    assert ram is not None
    assert ram["total"] == sections[".data"] + sections[".bss"] + sections[".stack"]
    sometimes = {"target": built.model.target_bytes, "replay": built.model.replay_bytes}
    assert set(ram) == {*RAM_KEYS, *(name for name, size in sometimes.items() if size)}
    assert sum(size for key, size in ram.items() if key != "total") == ram["total"] and min(ram.values()) >= 0
    assert ram["stack"] == sections[".stack"] == 4096
    flash = load_board(BOARD).flash
    places = {m[1]: int(m[2]) for m in re.finditer(r"^(\.\w\S*)\s+\d+\s+(\d+)", listing, re.MULTILINE)}
    placed = [name for name, place in places.items() if flash.origin <= place < flash.origin + flash.length]
    in_flash = sum(sections[name] for name in placed) + sections[".data"]
    assert report.flash_bytes == in_flash == (built.directory / "build" / "firmware.bin").stat().st_size
    assert ram["arena"] == report.arena_bytes == built.model.arena.arena_bytes
    assert ram["data_bss"] <= RUNTIME_RAM, "what the check for fit adds for the runtime is too small"
    symbols = subprocess.run(["arm-none-eabi-nm", "-S", str(elf)], capture_output=True, text=True, check=True).stdout
    sizes = {m[2]: int(m[1], 16) for m in re.finditer(r"^\w+ (\w+) [bB] (\w+)$", symbols, re.MULTILINE)}
    assert sizes["arena"] == ram["arena"] + 16
    assert 0 <= sizes.get("adapter", 0) - ram["adapter"] < 4 and 0 <= sizes.get("training", 0) - ram["optimizer"] < 4


def big_model(folder: Path) -> Path:
    """Its training needs more RAM than the board has; that of its last layers alone does not."""
    net = Net((1, 52, 52, 2), 5)
    net.conv("first", 8)
    net.conv("second", 8)
    net.conv("third", 8, stride=2)
    net.conv("fourth", 8)
    net.mean("pool")
    net.dense("head", 4)
    path = folder / "big.tflite"
    path.write_bytes(net.build())
    return path


@pytest.mark.parametrize(
    "extra", [[], ["--r", "64"], ["--momentum", "0.9", "--batch-size", "4"], ["--stack-bytes", "100000", "--r", "1"]]
)
def test_what_does_not_fit_says_what_does(tmp_path: Path, extra: list[str]) -> None:
    """What is needed, what is there, the operator at the peak; and the option that it suggests does fit."""
    model, board = big_model(tmp_path), load_board(BOARD)
    result = generate(model, tmp_path / "p", *extra)
    generate_refused(result, tmp_path / "p", r"big needs [\d,]+ B of RAM")
    assert f"{BOARD} has {board.ram.length:,} B in {board.ram.name}" in result.stderr
    named = (
        r"needs ([\d,]+) B of RAM \(arena ([\d,]+), adapter and optimiser ([\d,]+), stack ([\d,]+), runtime ([\d,]+)\)"
    )
    numbers = re.search(named, result.stderr)
    assert numbers is not None
    needed, *parts = (int(number.replace(",", "")) for number in numbers.groups())
    assert needed == sum(parts) > board.ram.length
    peak = re.search(r"peaks at op (\d+) of (training|inference), (\w+)", result.stderr)
    assert peak is not None
    suggestion = re.search(r"^try: (--.*?), which needs ([\d,]+) B", result.stderr, re.MULTILINE)
    assert suggestion is not None, result.stderr
    fitting = generate(model, tmp_path / "p", *extra, *shlex.split(suggestion[1]), "--json")
    assert fitting.exit_code == 0, fitting.output
    total = json.loads(fitting.stdout)["ram_bytes"]["total"]
    assert total <= int(suggestion[2].replace(",", "")) <= board.ram.length


def test_constants_that_do_not_fit(tmp_path: Path) -> None:
    net = Net((1, 1300), 1)
    net.dense("huge", 900, relu=True)
    net.dense("head", 4)
    (tmp_path / "huge.tflite").write_bytes(net.build())
    generate_refused(
        generate(tmp_path / "huge.tflite", tmp_path / "p"),
        tmp_path / "p",
        r"need 1,\d{3},\d{3} B of flash, \w+ has 1,048,576 B",
    )
