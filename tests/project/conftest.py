"""A fake model, projects made from it, and QEMU."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tinypeft.boards import Board, load_board
from tinypeft.emulators.qemu import machine_command
from tinypeft.project import write_project

FAKE_MODEL = (Path(__file__).parent / "fake_model.c").read_text()
FIRMWARE_BOARDS = ("stm32f4_discovery", "mps2_an386")

#: define, depth -> a project from the fake model with these lines in front
ProjectMaker = Callable[..., Path]


@pytest.fixture(params=FIRMWARE_BOARDS)
def board(request: pytest.FixtureRequest) -> Board:
    return load_board(request.param)


@pytest.fixture
def make_project(tmp_path: Path) -> ProjectMaker:
    def make(
        board: Board, prologue: str = "", directory: Path | None = None, source: str = FAKE_MODEL, **changes
    ) -> Path:
        arguments = {
            "model_name": "fake",
            "sources": {"fake.c": prologue + source, "fake.h": "/* a header */\n"},
            "kernels": ["tp_conv.c", "tp_lora_add.c"],
            "stack_bytes": 2048,
            "manifest": {"adapter": {"r": 4}},
            "files": {"fake.tflite": b"\x00\x01"},
        }
        return write_project(directory or tmp_path / "project", board, **(arguments | changes))

    return make


@pytest.fixture
def qemu_command() -> Callable[..., list[str]]:
    if shutil.which("qemu-system-arm") is None:
        pytest.skip("qemu-system-arm is not installed")

    def command(board: Board, elf: Path, *extra: str) -> list[str]:
        return [*machine_command(board.emulators["qemu"]), "-serial", "stdio", *extra, "-kernel", str(elf)]

    return command
