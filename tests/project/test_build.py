"""Building a project: firmware that boots, the twin, CMake, and what a failed build is answered."""

import ctypes
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from emulation import console_until

from tinypeft.boards import load_board
from tinypeft.errors import FitError, ToolError
from tinypeft.project import build_firmware, build_twin, measure, symbol_size
from tinypeft.resources import resource_path

SELF_TEST = "#define FAKE_SELF_TEST\n#define FAKE_DEPTH {depth}\n"


@pytest.fixture(autouse=True)
def needs_compilers():
    for program in ("make", "gcc", "arm-none-eabi-gcc"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")


def path_with(tmp_path: Path, *programs: str) -> str:
    folder = tmp_path / "bin"
    folder.mkdir()
    for program in programs:
        (folder / program).symlink_to(shutil.which(program))
    return str(folder)


def test_sizes_add_up(board, make_project):
    project = make_project(board)
    elf = build_firmware(project, board)
    sizes = measure(elf)
    assert sizes.stack_bytes == 2048
    assert sizes.ram_bytes == sizes.data_bss_bytes + sizes.stack_bytes
    assert sizes.flash_bytes == (project / "build" / "firmware.bin").stat().st_size
    assert symbol_size(elf, "tp_device_model") == sizes.symbols["tp_device_model"] > 0
    assert symbol_size(elf, "model") > 1024
    with pytest.raises(ToolError, match="no symbol tp_nothing"):
        symbol_size(elf, "tp_nothing")


def test_arena_is_counted_to_the_byte(board, make_project):
    small = measure(build_firmware(make_project(board, "#define FAKE_ARENA_BYTES 1024\n"), board))
    large = measure(build_firmware(make_project(board, "#define FAKE_ARENA_BYTES 11024\n", stack_bytes=4096), board))
    assert large.data_bss_bytes - small.data_bss_bytes == 10000
    assert large.ram_bytes - small.ram_bytes == 10000 + 2048


def test_no_heap_no_stdio_no_unwinder(board, make_project):
    symbols = measure(build_firmware(make_project(board), board)).symbols
    assert not {name for name in symbols if "malloc" in name or "printf" in name or "unwind" in name.lower()}


def test_same_binary_from_another_folder(board, make_project, tmp_path):
    one = build_firmware(make_project(board, directory=tmp_path / "one"), board)
    two = build_firmware(make_project(board, directory=tmp_path / "a folder" / "two"), board)
    assert one.read_bytes() == two.read_bytes()


def test_boots_in_qemu(board, make_project, qemu_command):
    elf = build_firmware(make_project(board), board)
    assert console_until(qemu_command(board, elf), "ready") == "tinypeft fake ready"


def test_startup_in_qemu(board, make_project, qemu_command):
    """.data copied, .bss cleared, FPU open, stack painted and measured, bytes both ways."""
    elf = build_firmware(make_project(board, SELF_TEST.format(depth=10)), board)
    text = console_until(qemu_command(board, elf), "ready", b"\x00~\x7fabcde", after="sum=55\n")
    lines, _, rest = text.partition("sum=55\n")
    values = dict(line.split("=") for line in lines.split())
    assert (values["data"], values["zeros"], values["stack"]) == ("500", "100", "2048")
    assert 0 < int(values["before"]) < int(values["after"]) <= 2048
    assert rest == "\x00~\x7fabcdetinypeft fake ready"


def test_stack_overflow_stops_in_the_fault_handler(board, make_project, qemu_command, tmp_path):
    elf = build_firmware(make_project(board, SELF_TEST.format(depth=100000)), board)
    log = tmp_path / "exceptions.log"
    process = subprocess.Popen(
        qemu_command(board, elf, "-d", "int", "-D", str(log)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        limit = time.monotonic() + 20
        while time.monotonic() < limit and not (log.exists() and "...taking" in log.read_text()):
            time.sleep(0.05)
        time.sleep(0.2)
        assert process.poll() is None, "a lockup ends QEMU"
        assert "...taking pending nonsecure exception 3" in log.read_text()
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("name", ["stm32f4_discovery", "host"])
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_twin(name, compiler, make_project, monkeypatch):
    """Compiles with warnings as errors and answers: the twin loads and initialises."""
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    monkeypatch.setenv("CC_HOST", compiler)
    twin = ctypes.CDLL(str(build_twin(make_project(load_board(name)))))
    assert twin.tp_twin_init() == 0


def test_every_kernel_compiles_without_warnings(make_project, monkeypatch):
    board = load_board("stm32f4_discovery")
    kernels = [path.name for path in resource_path("firmware", "kernels").glob("*.c")]
    project = make_project(board, kernels=kernels)
    build_firmware(project, board)
    for compiler in ("gcc", "clang"):
        if shutil.which(compiler):
            monkeypatch.setenv("CC_HOST", compiler)
            subprocess.run(["make", "clean"], cwd=project, check=True, stdout=subprocess.DEVNULL)
            build_twin(project)


def test_host_board_makes_the_twin_by_default(make_project):
    project = make_project(load_board("host"))
    subprocess.run(["make"], cwd=project, check=True, stdout=subprocess.DEVNULL)
    assert (project / "build" / "libtwin.so").is_file()


def test_header_change_rebuilds(board, make_project):
    project = make_project(board)
    elf = build_firmware(project, board)
    unchanged = elf.stat().st_mtime_ns
    build_firmware(project, board)
    assert elf.stat().st_mtime_ns == unchanged
    header = project / "board" / "tp_board_config.h"
    header.write_text(header.read_text().replace("0xA5A5A5A5u", "0x5A5A5A5Au"))
    before = elf.read_bytes()
    build_firmware(project, board)
    assert elf.read_bytes() != before


def test_make_clean(board, make_project):
    project = make_project(board)
    build_firmware(project, board)
    subprocess.run(["make", "clean"], cwd=project, check=True, stdout=subprocess.DEVNULL)
    assert not (project / "build").exists()


def test_cmake_builds_the_same(make_project):
    board = load_board("stm32f4_discovery")
    if shutil.which("cmake") is None:
        pytest.skip("cmake is not installed")
    project = make_project(board)
    build_firmware(project, board)
    for preset in ("firmware", "host"):
        for arguments in (["cmake", "--preset", preset], ["cmake", "--build", "--preset", preset]):
            subprocess.run(arguments, cwd=project, check=True, stdout=subprocess.DEVNULL)
    by_cmake = project / "build" / "cmake-firmware"
    assert (by_cmake / "firmware.bin").read_bytes() == (project / "build" / "firmware.bin").read_bytes()
    assert measure(by_cmake / "firmware.elf") == measure(project / "build" / "firmware.elf")
    assert ctypes.CDLL(str(project / "build" / "cmake-host" / "libtwin.so")).tp_twin_init() == 0


def test_overflow_tells_the_bytes(make_project):
    board = load_board("stm32f4_discovery")
    fitting = measure(build_firmware(make_project(board), board)).ram_bytes
    project = make_project(board, "#define FAKE_ARENA_BYTES 200000\n")
    needed = fitting + 200000 - 1024
    with pytest.raises(FitError) as caught:
        build_firmware(project, board)
    assert caught.value.message == (
        f"sram needs {needed:,} B, stm32f4_discovery has 131,072 B: {needed - 131072:,} B too many"
    )
    assert caught.value.hint


def test_compile_error_shows_the_first_lines(board, make_project):
    project = make_project(board, source="int f(void) { return nothing; }\n")
    with pytest.raises(ToolError, match=r"src/fake.c:1:\d+: error: .*nothing"):
        build_firmware(project, board)


def test_warning_is_an_error(board, make_project):
    with pytest.raises(ToolError, match="Werror=conversion"):
        build_firmware(make_project(board, "signed char f(int x);\nsigned char f(int x) { return x; }\n"), board)


def test_missing_symbol(board, make_project):
    project = make_project(board, source="int x;\n")
    with pytest.raises(ToolError, match="undefined reference to `tp_device_"):
        build_firmware(project, board)


@pytest.mark.parametrize(
    ("header", "call"), [("stdlib.h", "malloc(3) != NULL"), ("stdio.h", 'printf("%d", (int)model.adapter[0])')]
)
def test_heap_and_stdio_do_not_link(board, make_project, header, call):
    text = (Path(__file__).parent / "fake_model.c").read_text().replace("return 1;", f"return {call};")
    with pytest.raises(ToolError, match="uses the heap or stdio"):
        build_firmware(make_project(board, f"#include <{header}>\n", source=text), board)


def test_missing_tools_say_how_to_install(board, make_project, monkeypatch, tmp_path):
    project = make_project(board)
    monkeypatch.setenv("PATH", path_with(tmp_path, "make"))
    with pytest.raises(ToolError) as caught:
        build_firmware(project, board)
    assert caught.value.hint == "apt install gcc-arm-none-eabi libnewlib-arm-none-eabi"
    with pytest.raises(ToolError, match="neither gcc nor clang"):
        build_twin(project)
    monkeypatch.setenv("CC_HOST", "nonesuch-cc")
    with pytest.raises(ToolError, match="nonesuch-cc is not installed"):
        build_twin(project)


def test_no_project(board, tmp_path):
    with pytest.raises(ToolError, match="has no Makefile"):
        build_firmware(tmp_path, board)


def test_time_limit_ends_every_child(board, make_project, tmp_path):
    project = make_project(board)
    pid = tmp_path / "pid"
    (project / "Makefile").write_text(f"all:\n\tsh -c 'echo $$$$ > {pid}; exec sleep 60'\n")
    with pytest.raises(ToolError, match="longer than 0.5 s"):
        build_firmware(project, board, time_limit=0.5)
    process = Path("/proc") / pid.read_text().strip()
    limit = time.monotonic() + 5
    while process.exists() and time.monotonic() < limit:
        time.sleep(0.05)
    assert not process.exists() or ") Z " in (process / "stat").read_text()


def test_measure_refuses_what_is_no_elf(tmp_path):
    (tmp_path / "x").write_text("no")
    with pytest.raises(ToolError, match="cannot read"):
        measure(tmp_path / "x")
    with pytest.raises(ToolError, match="cannot read"):
        measure(tmp_path / "missing")
