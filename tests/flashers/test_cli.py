"""`tinypeft flash` on real projects, with stand-ins for the tools, and with the real ones without a probe."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from tinypeft.boards import board_names, load_board
from tinypeft.cli import main
from tinypeft.flashers import FLASHERS
from tinypeft.project import write_project

BOARD = "stm32f4_discovery"
#: The tools' stand-ins hide it
PYTHON = sys.executable
FLASHABLE = [name for name in board_names() if load_board(name).flashers]
SOURCE = (Path(__file__).parents[1] / "project" / "fake_model.c").read_text()


def invoke(*arguments: str | Path):
    return CliRunner().invoke(main, ["flash", *map(str, arguments)])


@pytest.fixture
def make_project(tmp_path):
    def make(board: str, source: str = SOURCE) -> Path:
        return write_project(
            tmp_path / "my project",
            load_board(board),
            model_name="fake",
            sources={"fake.c": source},
            kernels=[],
            stack_bytes=2048,
            manifest={},
            files={},
        )

    return make


@pytest.fixture
def compiler() -> None:
    if shutil.which("arm-none-eabi-gcc") is None:
        pytest.skip("arm-none-eabi-gcc is not installed; apt install gcc-arm-none-eabi")


@pytest.mark.parametrize("board", FLASHABLE)
def test_a_dry_run_needs_no_tool_no_build_and_no_board(only_tools, make_project, board):
    project = make_project(board)
    before = sorted(project.rglob("*"))
    for flasher in load_board(board).flashers:
        result = invoke(project, "--runner", flasher, "--dry-run")
        assert result.exit_code == 0 and result.stderr == "", result.output
        assert FLASHERS[flasher].program in result.stdout and str(project / "build") in result.stdout.replace("\\", "")
    first = next(iter(load_board(board).flashers))
    report = json.loads(invoke(project, "--dry-run", "--json").stdout)
    assert (report["board"], report["runner"], report["flashed"]) == (board, first, False)
    assert report["installed"] is (first == "uf2") and report["commands"][0][0] == FLASHERS[first].program
    assert sorted(project.rglob("*")) == before


def test_a_dry_run_prints_what_a_shell_takes(only_tools, make_project):
    project = make_project("nrf52840dk")
    folder = only_tools(JLinkExe='echo "$@"; cat "${10}"')
    (project / "build").mkdir()
    script = invoke(project, "--runner", "jlink", "--dry-run").stdout
    done = subprocess.run(["sh"], input=script, capture_output=True, text=True, env={"PATH": str(folder)})
    assert (
        done.returncode == 0
        and f'loadfile "{project}/build/firmware.elf"' in (project / "build" / "firmware.jlink").read_text()
    )
    assert f"-CommandFile {project}/build/firmware.jlink" in done.stdout


def test_flashing_builds_first_and_passes_the_output_on(compiler, only_tools, make_project):
    project = make_project(BOARD)
    only_tools(st_flash='test -s "$3" && echo "writing $3 to $4"')
    result = invoke(project)
    assert result.exit_code == 0, result.output
    command = f"st-flash --reset write '{project}/build/firmware.bin' 0x08000000"
    assert command in result.stderr and f"writing {project}/build/firmware.bin to 0x08000000" in result.stderr
    assert result.stdout.startswith("flashed ST STM32F4DISCOVERY") and "serial:" in result.stdout
    (project / "src" / "fake.c").write_text(SOURCE.replace('"fake"', '"changed"'))
    report = json.loads(invoke(project, "--json").stdout)
    assert report["flashed"] is True and report["runner"] == "st-flash" and report["installed"] is True
    assert b"changed\0" in (project / "build" / "firmware.bin").read_bytes(), "it was built again"


def test_nothing_is_flashed_that_does_not_build(compiler, only_tools, make_project, tmp_path):
    project = make_project(BOARD, source="int broken(\n")
    only_tools(st_flash=f"touch {tmp_path}/flashed")
    result = invoke(project)
    assert result.exit_code == 1 and "building" in result.stderr and "st-flash --reset" not in result.stderr
    assert not (tmp_path / "flashed").exists()


def test_a_pico_gets_its_firmware_by_its_drive(compiler, only_tools, make_project, tmp_path):
    project, drive = make_project("raspberry_pi_pico"), tmp_path / "RPI-RP2"
    drive.mkdir()
    (drive / "INFO_UF2.TXT").write_text("UF2 Bootloader v3.0\nBoard-ID: RPI-RP2\n")
    report = json.loads(invoke(project, "--runner", "uf2", "--probe", drive, "--json").stdout)
    assert report["flashed"] is True
    copied, binary = (drive / "FIRMWARE.UF2").read_bytes(), (project / "build" / "firmware.bin").read_bytes()
    pages = [copied[at + 32 : at + 288] for at in range(0, len(copied), 512)]
    assert copied[12:16] == (0x1000_0000).to_bytes(4, "little") and b"".join(pages)[: len(binary)] == binary
    result = invoke(project, "--runner", "uf2", "--probe", tmp_path)
    assert result.exit_code == 1 and "is no drive of a UF2 boot loader" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no flasher of board stm32f4_discovery is installed:"),
        (["--runner", "openocd"], "openocd cannot run here: openocd is not installed; apt install openocd"),
        (["--runner", "uf2"], "board stm32f4_discovery is not flashed by uf2"),
    ],
)
def test_errors_before_anything_is_built(only_tools, make_project, arguments, message):
    project = make_project(BOARD)
    only_tools()
    result = invoke(project, *arguments)
    assert result.exit_code == 1 and result.stdout == "" and f"error: {message}" in result.stderr
    assert "\ntry: " in result.stderr and not (project / "build").exists()


@pytest.mark.parametrize("board", [name for name in board_names() if name not in FLASHABLE])
def test_boards_that_are_emulated_only(make_project, board):
    result = invoke(make_project(board), "--dry-run")
    assert result.exit_code == 1 and f"board {board} is emulated only" in result.stderr
    assert re.search(r"try: tinypeft test DIR --on (qemu|host)", result.stderr)


def test_no_project_and_bad_options(tmp_path, make_project):
    assert "is not a tinypeft project" in invoke(tmp_path).stderr
    assert invoke(make_project(BOARD), "--runner", "dfu").exit_code == 2
    assert invoke(make_project(BOARD), "--timeout", "0").exit_code == 2


def test_a_failure_and_a_time_limit(compiler, only_tools, make_project):
    project = make_project(BOARD)
    only_tools(st_flash="echo 'usb.c: Could not find any ST-Link devices'; exit 255")
    result = invoke(project, "--json")
    assert result.exit_code == 1 and result.stdout == ""
    assert "error: st-flash failed with exit code 255; it said:" in result.stderr.replace(": it", "; it")
    only_tools(st_flash="echo waiting; sleep 60")
    began = time.monotonic()
    result = invoke(project, "--timeout", "1")
    assert "error: st-flash did not end within 1 s; it said:\nwaiting" in result.stderr
    assert time.monotonic() - began < 30


def test_ctrl_c(compiler, only_tools, make_project, alive):
    project = make_project(BOARD)
    folder = only_tools(st_flash='echo $$ > "${0%/*}/pid"; echo erasing; exec sleep 60')
    command = [PYTHON, "-m", "tinypeft", "flash", str(project)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (folder / "pid").exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == 130 and stdout == "" and "Traceback" not in stderr
    assert "the board may hold half of the firmware: flash it again\ninterrupted" in stderr
    assert not alive(int((folder / "pid").read_text()))


def real(name: str) -> None:
    reason = FLASHERS[name].missing()
    if reason is not None:
        pytest.skip(reason)


#: What a tool must not say: that it does not understand what it is asked for
_MISUNDERSTOOD = r"usage|unrecognized|invalid (command|argument|option)|missing|can't find|unknown|unexpected argument"


@pytest.mark.parametrize("flasher", ["pyocd", "openocd", "st-flash", "probe-rs"])
@pytest.mark.parametrize("board", FLASHABLE)
def test_the_real_tool_understands_its_command(compiler, make_project, board, flasher):
    """It gets as far as looking for a probe. Where one is attached nothing is written: the ID is none's."""
    real(flasher)
    if flasher not in load_board(board).flashers:
        pytest.skip(f"{board} does not list {flasher}")
    probe = "0000:0000:none" if flasher == "probe-rs" else "12345678"
    result = invoke(make_project(board), "--runner", flasher, "--probe", probe, "--timeout", "60")
    assert result.exit_code == 1 and result.stdout == ""
    tool, _, error = result.stderr.partition("error: ")
    assert "failed with exit code" in error and "it found no probe" in error, result.stderr
    assert not re.search(_MISUNDERSTOOD, tool.split("\n", 1)[1], re.IGNORECASE), tool
