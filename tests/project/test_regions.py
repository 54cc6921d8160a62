"""Firmware whose arena lies in two RAMs, or whose weights lie in a flash of their own, runs as any other."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from elftools.elf.elffile import ELFFile
from projects import save_model
from small_models import load, samples

from tinypeft.boards import Board, load_board
from tinypeft.cli import main
from tinypeft.emulators import EMULATORS
from tinypeft.errors import BoardError, FitError
from tinypeft.generate import build_for_board, compile_for, generate_project, open_project
from tinypeft.memory import MemoryConfig
from tinypeft.parity import check_parity
from tinypeft.project import build_twin

STACK = 2048


def two_rams(first: int) -> Board:
    """mps2_an386 with `first` bytes of RAM, and another RAM behind them."""
    board = load_board("mps2_an386")
    small = replace(board.ram, length=first)
    other = replace(board.ram, name="slow", origin=board.ram.origin + 0x10_0000, length=0x10_0000)
    return replace(board, memories=(board.flash, small, other))


def sections(elf: Path) -> dict[str, tuple[int, int]]:
    with elf.open("rb") as stream:
        return {s.name: (s["sh_addr"], s["sh_size"]) for s in ELFFile(stream).iter_sections() if s["sh_addr"]}


def need_tools() -> None:
    if shutil.which("arm-none-eabi-gcc") is None:
        pytest.skip("arm-none-eabi-gcc is not installed; apt install gcc-arm-none-eabi")
    if (reason := EMULATORS["qemu"].missing()) is not None:
        pytest.skip(reason)


def test_an_arena_over_two_rams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need_tools()
    source, directory = load("residual"), tmp_path / "project"
    enough = generate_project(save_model("residual", tmp_path), two_rams(0x8000), directory, stack_bytes=STACK)
    assert enough.ram_regions is not None and list(enough.ram_regions) == ["ram"]
    board = two_rams((enough.ram_regions["ram"] - enough.arena_bytes // 2) // 8 * 8)
    report = generate_project(save_model("residual", tmp_path), board, directory, stack_bytes=STACK)
    assert report.ram_regions is not None and report.ram_bytes is not None
    assert list(report.ram_regions) == ["ram", "slow"]
    assert sum(report.ram_regions.values()) == report.ram_bytes["total"]
    address, size = sections(directory / "build" / "firmware.elf")[".arena_slow"]
    slow = board.memories[2]
    assert slow.origin <= address and address + size <= slow.end and size == report.ram_regions["slow"]
    header = (directory / "src" / "residual.h").read_text()
    assert "uint8_t *arena_ram, uint8_t *arena_slow, residual_adapter" in header

    monkeypatch.setattr("tinypeft.generate.load_board", lambda name: board)
    opened = open_project(directory)
    assert [part.name for part in opened.model.arena.parts] == ["ram", "slow"]
    build_twin(directory)
    for name in ("host", "qemu"):
        with EMULATORS[name].open(directory, board) as device:
            dataset = samples(source, 6)
            found = check_parity(opened.model, source.tflite, device, name, dataset, train_steps=6, learning_rate=0.002)
            assert found.parity, found.first_divergence
            package = device.export_adapter()
            device.load_adapter(package)
            assert device.export_adapter() == package and device.stats().guards_intact


def test_weights_in_a_flash_of_their_own(tmp_path: Path) -> None:
    need_tools()
    board = load_board("mps2_an386")
    code = replace(board.flash, length=0x20_0000)
    weights = replace(board.flash, name="weights_flash", origin=code.end, length=0x10_0000)
    split = replace(board, memories=(code, weights, *(r for r in board.memories if r.kind == "ram")))
    directory = tmp_path / "project"
    memory = MemoryConfig(weights_region="weights_flash")
    generate_project(save_model("plain", tmp_path), split, directory, memory=memory)
    build_for_board(directory, split)
    address, size = sections(directory / "build" / "firmware.elf")[".weights"]
    assert address == weights.origin and size > 0
    assert (directory / "build" / "weights.bin").stat().st_size == size
    assert (directory / "build" / "firmware.bin").stat().st_size < code.length
    source = load("plain")
    from tinypeft.adapters import AdapterConfig
    from tinypeft.stages.autodiff import TrainingConfig

    model = compile_for(source, split, AdapterConfig(), TrainingConfig(), 4096, memory)
    with EMULATORS["qemu"].open(directory, split) as device:
        assert check_parity(model, source.tflite, device, "qemu", samples(source, 3), train_steps=3).parity


def test_what_fits_no_ram_is_refused(tmp_path: Path) -> None:
    board = two_rams(0x1000)
    tiny = replace(board, memories=(*board.memories[:2], replace(board.memories[2], length=64)))
    with pytest.raises(FitError, match="needs"):
        generate_project(save_model("residual", tmp_path), tiny, tmp_path / "project", stack_bytes=STACK)
    assert not (tmp_path / "project").exists()


def test_names_of_memories() -> None:
    board = load_board("nucleo_h743zi")
    names = [region.name for region in MemoryConfig().regions(board, 4096)]
    assert names[0] == board.ram.name and set(names) == {r.name for r in board.memories if r.kind == "ram" and r.arena}
    chosen = MemoryConfig(("axi_sram", "dtcm")).regions(board, 4096)
    assert [(r.name, r.shared) for r in chosen] == [("axi_sram", False), ("dtcm", True)]
    with pytest.raises(BoardError, match="no RAM called 'axisram'") as caught:
        MemoryConfig(("axisram",)).regions(board, 4096)
    assert caught.value.hint == "did you mean axi_sram?"
    with pytest.raises(BoardError, match="twice"):
        MemoryConfig(("dtcm", "dtcm")).regions(board, 4096)
    with pytest.raises(BoardError, match="no flash called 'dtcm'"):
        MemoryConfig(weights_region="dtcm").weights(board)
    assert MemoryConfig(weights_region=board.flash.name).weights(board) is None


def test_in_the_command(tmp_path: Path) -> None:
    need_tools()
    data = tmp_path / "data.npz"
    dataset = samples(load("plain"), 8)
    assert dataset.y is not None
    np.savez(data, x=dataset.x, y=dataset.y)

    def invoke(*arguments: str | Path) -> dict:
        result = CliRunner().invoke(main, [*map(str, arguments), "--json"])
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    (tmp_path / "tinypeft.toml").write_text('[board]\nname = "nucleo_h743zi"\narena_regions = ["axi_sram"]\n')
    project = tmp_path / "project"
    config = tmp_path / "tinypeft.toml"
    report = invoke("generate", save_model("plain", tmp_path), "--config", config, "-o", project)
    assert report["ram_regions"]["axi_sram"] > report["arena_bytes"]
    found = invoke("test", project, "--on", "qemu", "--data", f"{data}:x:y", "--limit", 3, "--train-steps", 3)
    assert found["parity"] is True
    result = CliRunner().invoke(main, ["generate", "x.tflite", "--board", "host", "--arena-regions", "", "-o", "y"])
    assert result.exit_code == 1
