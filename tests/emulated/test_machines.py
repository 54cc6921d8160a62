"""Every machine of QEMU that a board or its twin is: start-up, console, faults and memories with a fake model."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from emulation import console_until

from tinypeft.boards import Board, board_names, board_on, load_board
from tinypeft.emulators import EMULATORS
from tinypeft.emulators.qemu import machine_command
from tinypeft.project import build_firmware, write_project

SOURCE = (Path(__file__).parents[1] / "project" / "fake_model.c").read_text()
SELF_TEST = "#define FAKE_SELF_TEST\n#define FAKE_DEPTH {depth}\n"
PLAIN_INIT = "tp_status tp_device_init(void) { return scale > 0.0f ? TP_OK : TP_ERR_FORMAT; }"
MACHINES = [name for name in board_names() if "qemu" in load_board(name).emulators]
#: One machine a core; stm32f4_discovery is another with a Cortex-M4
ONE_A_CORE = ["bbc_microbit", "mps2_an385", "stm32f4_discovery", "mps2_an500", "mps2_an505", "mps3_an547"]
TWINS = [name for name in board_names() if load_board(name).twin]


@pytest.fixture(autouse=True)
def needs_tools() -> None:
    reason = EMULATORS["qemu"].missing()
    if reason is not None:
        pytest.skip(reason)
    if shutil.which("arm-none-eabi-gcc") is None:
        pytest.skip("arm-none-eabi-gcc is not installed; apt install gcc-arm-none-eabi")


def build(folder: Path, board: Board, source: str) -> Path:
    project = write_project(
        folder / "project",
        board,
        model_name="fake",
        sources={"fake.c": source},
        kernels=[],
        stack_bytes=2048,
        manifest={},
        files={},
    )
    return build_firmware(project, board)


def qemu(board: Board, elf: Path, *extra: str) -> list[str]:
    return [*machine_command(board.emulators["qemu"]), "-serial", "stdio", *extra, "-kernel", str(elf)]


@pytest.mark.parametrize("name", MACHINES)
def test_start_up(tmp_path: Path, name: str) -> None:
    """.data copied, .bss cleared, FPU open, stack painted and measured, bytes both ways."""
    board = load_board(name)
    elf = build(tmp_path, board, SELF_TEST.format(depth=10) + SOURCE)
    text = console_until(qemu(board, elf), "ready", b"\x00~\x7fabcde", after="sum=55\n")
    lines, _, rest = text.partition("sum=55\n")
    values = dict(line.split("=") for line in lines.split())
    assert (values["data"], values["zeros"], values["stack"]) == ("500", "100", "2048")
    assert 0 < int(values["before"]) < int(values["after"]) <= 2048
    assert rest == "\x00~\x7fabcdetinypeft fake ready"


def regions(board: Board) -> Iterator[str]:
    """C that writes to both ends of every RAM that may be used and reads back; the lower end holds stack and data."""
    for number, region in enumerate(r for r in board.memories if r.kind == "ram" and r.arena):
        lower = region.origin + (region.length // 2 if region == board.ram else 0)
        for address in (lower, region.end - 4):
            yield f"  *(volatile uint32_t *)0x{address:08X}u = 0x5EED0000u + {number}u;\n"
            yield f"  good = good && *(volatile uint32_t *)0x{address:08X}u == 0x5EED0000u + {number}u;\n"


@pytest.mark.parametrize("name", MACHINES + TWINS)
def test_memories_are_there(tmp_path: Path, name: str) -> None:
    board = board_on(load_board(name), "qemu")
    init = (
        f"tp_status tp_device_init(void) {{\n  int good = 1;\n{''.join(regions(board))}"
        "  return good ? TP_OK : TP_ERR_FORMAT;\n}"
    )
    assert PLAIN_INIT in SOURCE
    elf = build(tmp_path, board, SOURCE.replace(PLAIN_INIT, init))
    assert console_until(qemu(board, elf), "\n") == "tinypeft fake ready\r\n"


def faults(board: Board, elf: Path, log: Path) -> str:
    """What QEMU logs of exceptions until the first has been taken and the handler has had time to fault as well."""
    command = qemu(board, elf, "-d", "int", "-D", str(log))
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet)
    try:
        limit = time.monotonic() + 30
        while time.monotonic() < limit and not (log.exists() and "...taking" in log.read_text()):
            time.sleep(0.05)
        time.sleep(0.2)
        assert process.poll() is None, "a lockup ends QEMU"
        return log.read_text()
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("name", ONE_A_CORE)
def test_stack_overflow_stops_in_the_fault_handler(tmp_path: Path, name: str) -> None:
    board = load_board(name)
    elf = build(tmp_path, board, SELF_TEST.format(depth=100000) + SOURCE)
    text = faults(board, elf, tmp_path / "exceptions.log")
    assert text.count("...taking") == 1, text
    assert "secure exception 3\n" in text  # a hard fault; in the log, "nonsecure" where there is no security
