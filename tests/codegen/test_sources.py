"""The generated C: no warning from three compilers, no heap, the same bytes every time, readable and complete."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from projects import BOARD, CONFIGURATIONS, Built, save_model

from tinypeft.boards import load_board
from tinypeft.codegen import generate_sources
from tinypeft.generate import generate_project

STRICT = "-std=c11 -O2 -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Werror -ffp-contract=off".split()
COMPILERS = {"gcc": [], "clang": [], "arm-none-eabi-gcc": ["-mcpu=cortex-m4", "-mthumb"]}


@pytest.mark.parametrize("name", CONFIGURATIONS)
@pytest.mark.parametrize("compiler", COMPILERS)
def test_compiles_without_a_warning(project: Callable[[str], Built], tmp_path: Path, compiler: str, name: str) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    directory = project(name).directory
    sources = sorted((directory / "src").glob("*.c"))
    assert len(sources) == 3
    build = [f"-D{define}" for define in generate_sources(project(name).model).defines]
    for defines in (build, [*build, "-DTP_NO_TRACE"]):
        command = [compiler, *STRICT, *COMPILERS[compiler], *defines, "-Ifirmware/include", "-Isrc", "-c"]
        run = subprocess.run(
            [*command, *map(str, sources)], cwd=_objects(tmp_path, directory), capture_output=True, text=True
        )
        assert run.returncode == 0 and run.stderr == "", run.stderr


def _objects(folder: Path, project: Path) -> Path:
    """A folder for object files in which the project's folders can be included."""
    for name in ("firmware", "src"):
        if not (folder / name).exists():
            (folder / name).symlink_to(project / name)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("name", ["residual", "batches"])
def test_the_same_model_gives_the_same_folder(project: Callable[[str], Built], tmp_path: Path, name: str) -> None:
    """To the byte, firmware.elf included."""
    model, adapter, training = CONFIGURATIONS[name]
    folders = []
    for number in range(2):
        folder = tmp_path / str(number) / name
        generate_project(save_model(model, tmp_path), load_board(BOARD), folder, adapter=adapter, training=training)
        folders.append(contents(folder))
    assert folders[0] == folders[1]
    assert {"build/firmware.elf", "build/firmware.bin", "manifest.json", f"src/{model}.c"} <= set(folders[0])


def test_processes_with_other_hash_seeds_give_the_same_folder(tmp_path: Path) -> None:
    path = save_model("residual", tmp_path)
    folders = []
    for seed in ("1", "2"):
        folder = tmp_path / seed / "project"
        command = [sys.executable, "-m", "tinypeft", "generate", str(path), "--board", BOARD, "-o", str(folder)]
        run = subprocess.run(command, env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        folders.append(contents(folder))
    assert folders[0] == folders[1]


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_no_heap_is_linked(project: Callable[[str], Built], name: str) -> None:
    elf = project(name).directory / "build" / "firmware.elf"
    run = subprocess.run(["arm-none-eabi-nm", str(elf)], capture_output=True, text=True, check=True)
    symbols = {line.split()[-1] for line in run.stdout.splitlines()}
    model = CONFIGURATIONS[name][0]
    assert f"{model}_forward" in symbols or "tp_device_model" in symbols, "these are the symbols of the firmware"
    heap = {"malloc", "_malloc_r", "free", "_free_r", "calloc", "realloc", "_sbrk", "_sbrk_r", "printf", "_write"}
    assert not symbols & heap


@pytest.mark.parametrize("name", ["plain", "latents"])
def test_only_firmware_with_latents_has_their_commands(project: Callable[[str], Built], name: str) -> None:
    elf = project(name).directory / "build" / "firmware.elf"
    run = subprocess.run(["arm-none-eabi-nm", str(elf)], capture_output=True, text=True, check=True)
    symbols = {line.split()[-1] for line in run.stdout.splitlines()}
    assert "train_step" in symbols
    commands = {"encode", "train_latents"}
    assert symbols & commands == (commands if name == "latents" else set())


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_names_and_comments(project: Callable[[str], Built], name: str) -> None:
    """One commented call an operation, names from the layers, no tensor_17; the arena's map and its size on top."""
    built = project(name)
    text = (built.directory / "src" / f"{built.model.name}.c").read_text()
    for graph in built.model.graphs:
        for position, op in enumerate(graph.operations):
            assert f"/* op {position}: {op.kind}" in text
            call = op.op.call(op)
            assert call is None or f"{call.function}(" in text
    assert re.search(rf"The arena: {built.report.arena_bytes} bytes", text)
    assert not re.search(r"\btensor_\d", text)
    layers = {op.layer for op in built.model.base.operations if op.kind == "CONV_2D"}
    assert all(f"{layer}_out" in text for layer in layers)
    header = (built.directory / "src" / f"{built.model.name}.h").read_text()
    assert ("_train_step" in header) is (name != "inference")
    assert ("_update(" in header) is (built.model.training_config.batch_size > 1)


def test_a_real_model_compiles(shared_data: Path, tmp_path: Path) -> None:
    generate_project(shared_data / "fsdd_loso" / "nicolas.tflite", load_board(BOARD), tmp_path / "p")
    sources = sorted((tmp_path / "p" / "src").glob("*.c"))
    for compiler, flags in COMPILERS.items():
        if shutil.which(compiler) is None:
            continue
        command = [compiler, *STRICT, *flags, f"-I{tmp_path}/p/firmware/include", f"-I{tmp_path}/p/src", "-c"]
        run = subprocess.run([*command, *map(str, sources)], cwd=tmp_path, capture_output=True, text=True)
        assert run.returncode == 0 and run.stderr == "", run.stderr
