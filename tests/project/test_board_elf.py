"""The firmware of every board as it is linked: vector table, sections, boot stage, the instructions of its core."""

from __future__ import annotations

import binascii
import re
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from tinypeft.boards import Board, board_names, board_on, load_board
from tinypeft.project import build_firmware, read_manifest, retarget_project, write_project

BOARDS = [name for name in board_names() if not load_board(name).is_host]
SOURCE = (Path(__file__).parent / "fake_model.c").read_text()
STACK = 2048


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Board, Path]]:
    """Board name -> the board and its firmware with a fake model, warnings being errors; built once a process."""
    for program in ("make", "arm-none-eabi-gcc"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    done: dict[str, tuple[Board, Path]] = {}

    def build(name: str) -> tuple[Board, Path]:
        if name not in done:
            board = load_board(name)
            project = write_fake(tmp_path_factory.mktemp(name) / "project", board)
            done[name] = (board, build_firmware(project, board))
        return done[name]

    return build


def write_fake(folder: Path, board: Board) -> Path:
    return write_project(
        folder,
        board,
        model_name="fake",
        sources={"fake.c": SOURCE},
        kernels=[],
        stack_bytes=STACK,
        manifest={},
        files={"base.tflite": b"x"},
    )


def sections(elf: Path) -> dict[str, tuple[int, int]]:
    """Sections that take memory: name -> address, size."""
    with elf.open("rb") as stream:
        return {
            section.name: (section["sh_addr"], section["sh_size"])
            for section in ELFFile(stream).iter_sections()
            if section["sh_flags"] & 2 and section["sh_size"]
        }


def symbols(elf: Path) -> dict[str, int]:
    with elf.open("rb") as stream:
        table = ELFFile(stream).get_section_by_name(".symtab")
        return {symbol.name: symbol["st_value"] for symbol in table.iter_symbols()}


def disassembly(elf: Path, function: str = "") -> str:
    only = [f"--disassemble={function}"] if function else []
    command = ["arm-none-eabi-objdump", "-d", *only, str(elf)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("name", BOARDS)
def test_vector_table(built, name):
    board, elf = built(name)
    binary, found = elf.with_suffix(".bin").read_bytes(), symbols(elf)
    offset = 256 if name == "raspberry_pi_pico" else 0
    assert sections(elf)[".isr_vector"][0] == board.flash.origin + offset
    vectors = struct.unpack_from("<16I", binary, offset)
    assert vectors[0] == board.ram.origin + STACK == found["tp_stack_top"]
    assert vectors[1] == found["tp_reset"] | 1
    assert set(vectors[2:]) == {found["tp_fault"] | 1}


@pytest.mark.parametrize("name", BOARDS)
def test_sections_lie_in_the_memories(built, name):
    board, elf = built(name)
    for section, (address, size) in sections(elf).items():
        region = board.ram if section in (".stack", ".data", ".bss") else board.flash
        assert region.origin <= address and address + size <= region.end, section
    assert sections(elf)[".stack"] == (board.ram.origin, STACK)


@pytest.mark.parametrize("name", BOARDS)
def test_every_memory_is_known_to_the_linker(built, name):
    board, elf = built(name)
    script = (elf.parents[1] / "board" / "linker.ld").read_text()
    for region in board.memories:
        pattern = rf"\n  {region.name} \(\w+\) : ORIGIN = 0x{region.origin:08X}, LENGTH = 0x{region.length:08X}\n"
        assert re.search(pattern, script), region.name


def test_boot_stage_of_the_rp2040(built):
    """256 bytes, the last four a CRC-32 as the boot ROM computes it: most significant bit first, not inverted."""
    board, elf = built("raspberry_pi_pico")
    assert sections(elf)[".boot2"] == (board.flash.origin, 256)
    stage = elf.with_suffix(".bin").read_bytes()[:256]
    mirrored = binascii.crc32(bytes(int(f"{byte:08b}"[::-1], 2) for byte in stage[:252])) ^ 0xFFFFFFFF
    assert struct.unpack("<I", stage[252:])[0] == int(f"{mirrored:032b}"[::-1], 2)
    with elf.open("rb") as stream:
        code = ELFFile(stream).get_section_by_name(".boot2").data()
    words = struct.unpack_from("<5I", code, 0x28)
    assert words == (0x1800_0000, 0x001F_0300, 0x0300_0218, 0x1000_0100, 0xE000_ED08)


@pytest.mark.parametrize("name", [name for name in BOARDS if name != "raspberry_pi_pico"])
def test_no_other_board_has_a_boot_stage(built, name):
    assert ".boot2" not in sections(built(name)[1])


@pytest.mark.parametrize("name", BOARDS)
def test_start_up_knows_its_core(built, name):
    board, elf = built(name)
    start, found = disassembly(elf, "tp_reset") + disassembly(elf, "tp_start"), symbols(elf)
    source = (elf.parents[1] / "board" / "startup.c").read_text()
    assert ("tp_clock_init" in found) == ("<tp_clock_init>" in start) == bool(board.clock.driver)
    assert ("0xE000ED88" in source) == (board.float_abi == "hard")
    assert ("SCB_VTOR" in source) == (board.core != "cortex-m0")
    assert ("SCB_CFSR" in source) == (board.core not in ("cortex-m0", "cortex-m0plus"))
    assert ("SCB_ICIALLU" in source) == (board.core == "cortex-m7")
    assert ("1u << 19" in source) == (board.core == "cortex-m55")


def test_power_of_the_h7_is_set_before_its_ram_is_written(built):
    """In the mode Run* after reset the RAM must not be written, so nothing may be pushed before tp_start."""
    _, elf = built("nucleo_h743zi")
    for function in ("tp_reset", "tp_clock_init"):
        text = disassembly(elf, function)
        assert text.count("\n") > 8 and not re.search(r"\b(push|stmdb|vpush)|\[sp|sub\s+sp", text), text


def test_mve_computes_no_floats(tmp_path):
    """MVE flushes subnormal numbers to zero, other cores do not: the compiler must not vectorise float32."""
    if shutil.which("arm-none-eabi-gcc") is None:
        pytest.skip("arm-none-eabi-gcc is not installed")
    source = tmp_path / "sum.c"
    source.write_text(
        "void add(float *restrict a, const float *restrict b) { for (int i = 0; i < 64; i++) { a[i] += b[i]; } }\n"
        "void sum(int *restrict a, const int *restrict b) { for (int i = 0; i < 64; i++) { a[i] += b[i]; } }\n"
    )

    def vectorised(*flags: str) -> list[str]:
        command = ["arm-none-eabi-gcc", *flags, "-O2", "-ftree-vectorize", "-S", str(source), "-o", "-"]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return re.findall(r"vadd\.(\w+)\s+q", text)

    flags = load_board("mps3_an547").cpu_flags
    assert vectorised(*flags) == ["i32"]
    assert sorted(vectorised(*(flag.replace("+nomve.fp", "") for flag in flags))) == ["f32", "i32"]


@pytest.mark.parametrize("name", ["nucleo_h743zi", "raspberry_pi_pico"])
def test_project_for_the_twin(tmp_path, name):
    """The sources of the project, also where they were changed by hand; nothing is written again without a change."""
    board = load_board(name)
    project, twin = write_fake(tmp_path / "project", board), board_on(board, "qemu")
    folder = retarget_project(project, twin)
    assert folder == project / "build" / twin.name
    manifest = read_manifest(folder)
    assert (manifest["board"], manifest["stack_bytes"]) == (twin.name, STACK)
    assert f"consoles/{twin.console.driver}.c" in (folder / "Makefile").read_text()
    assert " ".join(board.cpu_flags) in (folder / "Makefile").read_text()
    if shutil.which("arm-none-eabi-gcc") is None:
        pytest.skip("arm-none-eabi-gcc is not installed")
    elf = build_firmware(folder, twin)
    linked = elf.stat().st_mtime_ns
    assert retarget_project(project, twin) == folder and elf.stat().st_mtime_ns == linked
    changed = project / "src" / "fake.c"
    changed.write_text(changed.read_text().replace("+ 1)", "+ 2)"))
    retarget_project(project, twin)
    assert (folder / "src" / "fake.c").read_bytes() == changed.read_bytes() and not elf.exists()
