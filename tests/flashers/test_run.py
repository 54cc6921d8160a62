"""Flashing with stand-ins for the tools: output passed on, failures told apart, time limits, Ctrl-C."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from pathlib import Path

import pytest

from tinypeft.errors import OutputError, ToolError
from tinypeft.flashers import FLASHERS
from tinypeft.flashers.process import run_tool

SETTINGS = {
    "pyocd": {"target": "stm32f407vgtx"},
    "openocd": {"config": "board/stm32f4discovery.cfg"},
    "st-flash": {"address": 0x0800_0000},
    "probe-rs": {"chip": "STM32F407VG"},
    "jlink": {"device": "STM32F407VG"},
}


def flash(flasher, board, image, probe=None, limit=20.0):
    """What the tool said."""
    said: list[str] = []
    FLASHERS[flasher].run(FLASHERS[flasher].plan(image, board, probe), image, board, limit=limit, echo=said.append)
    return "".join(said)


@pytest.mark.parametrize("flasher", SETTINGS)
def test_success_runs_every_command_as_planned(only_tools, make_board, image, flasher):
    board = make_board(flashers=SETTINGS)
    program = FLASHERS[flasher].program
    only_tools(**{program.replace("-", "_"): f'for word in {program} "$@"; do echo "<$word>"; done; cat >&2'})
    plan = FLASHERS[flasher].plan(image, board, "12 34")
    said = flash(flasher, board, image, "12 34")
    assert said.split("\n") == [f"<{word}>" for command in plan.commands for word in command] + [""]
    assert all(path.read_text() == text for path, text in plan.files.items())


#: What the tools said when no probe was there or, where noted, as their sources print it
KNOWN = [
    ("pyocd", 1, "0000320 E No target device available [load_cmd]", "found no probe", "lsusb"),
    ("pyocd", 1, "No connected debug probe matches unique ID '12'", "found no probe", "--probe"),
    (
        "pyocd",
        1,
        "0000412 C Target type stm32f407vgtx not recognized. Use 'pyocd list --targets' to see currently available",
        "does not know the chip stm32f407vgtx",
        "pyocd pack install stm32f407vgtx",
    ),
    ("pyocd", 1, "Enter the number of the debug probe or 'q' to quit> ", "several probes", "pyocd list --probes"),
    ("pyocd", 1, "NRF52840 APPROTECT enabled: not automatically unlocking", "locked", "pyocd erase --mass"),
    ("pyocd", 1, "This can probably be remedied with a udev rule.", "may not open the probe", "udev"),
    ("openocd", 1, "Error: open failed\nin procedure 'program'\n** OpenOCD init failed **", "found no probe", "lsusb"),
    ("openocd", 1, "Error: unable to find a matching CMSIS-DAP device", "found no probe", "lsusb"),
    ("openocd", 1, "Error: Invalid serial number: DEADBEEF", "the ID given with --probe", "serial number"),
    ("openocd", 1, "Error: No J-Link device found", "found no probe", "lsusb"),
    ("openocd", 1, "Error: libusb_open() failed with LIBUSB_ERROR_ACCESS", "may not open the probe", "udev"),
    ("openocd", 1, "nRF52 device has AP lock engaged (see UICR APPROTECT register).", "locked", "OpenOCD"),
    ("openocd", 1, "embedded:startup.tcl:28: Error: Can't find board/x.cfg", "no such configuration", "--runner"),
    ("openocd", 1, "Error: init mode failed (unable to connect to the target)", "does not reach the chip", "power"),
    ("st-flash", 255, "2026-01-01T00:00:00 WARN usb.c: Couldn't find any ST-Link devices", "found no probe", "lsusb"),
    ("st-flash", 1, "ERROR usb.c: Could not open USB device 0x0483:0x374b, access error.", "may not open", "udev"),
    ("st-flash", 1, "ERROR common.c: Flash memory is write protected", "locked", "erase"),
    ("st-flash", 1, "Failed to connect to target", "does not reach the chip", "reset"),
    ("probe-rs", 1, "Error: No connected probes were found.", "found no probe", "lsusb"),
    ("probe-rs", 1, "Available Probes:\n0: STLink\n1: STLink\nSelection: ", "several probes", "probe-rs list"),
    (
        "probe-rs",
        1,
        "The chip 'STM32F407VG' was not found in the database.",
        "does not know the chip",
        "newer probe-rs",
    ),
    ("jlink", 0, "Connecting to J-Link via USB...FAILED: Cannot connect to J-Link.", "found no probe", "lsusb"),
    ("jlink", 1, "Cannot connect to target.", "does not reach the chip", "power"),
    ("jlink", 0, "****** Error: Verification failed @ address 0x08000000", "the flash was not written", "speed"),
]


@pytest.mark.parametrize(("flasher", "code", "output", "meaning", "hint"), KNOWN)
def test_known_failures_say_what_to_do(only_tools, make_board, image, flasher, code, output, meaning, hint):
    program = FLASHERS[flasher].program
    only_tools(**{program.replace("-", "_"): f"cat <<'END'\nstarting\n{output}\nEND\nexit {code}"})
    with pytest.raises(ToolError) as caught:
        flash(flasher, make_board(flashers=SETTINGS), image)
    assert f"{program} failed with exit code {code}: " in caught.value.message
    assert meaning in caught.value.message.split("; it said:")[0]
    assert output.splitlines()[-1].strip() in caught.value.message
    assert hint in caught.value.hint and "{" not in caught.value.hint


def test_an_unknown_failure_has_the_last_lines_and_stops_there(only_tools, make_board, image):
    only_tools(probe_rs='echo "$1"; for i in 1 2 3 4 5 6 7; do echo "line $i"; done; exit 9')
    said: list[str] = []
    board, flasher = make_board(flashers=SETTINGS), FLASHERS["probe-rs"]
    with pytest.raises(ToolError) as caught:
        flasher.run(flasher.plan(image, board, None), image, board, limit=20.0, echo=said.append)
    assert caught.value.message.endswith("exit code 9; it said:\nline 3\nline 4\nline 5\nline 6\nline 7")
    assert "reset" not in "".join(said), "the second command is not run after the first has failed"
    only_tools(probe_rs="exit 3")
    with pytest.raises(ToolError, match="exit code 3; it said nothing"):
        flash("probe-rs", board, image)


def test_a_script_that_cannot_be_written(make_board, image):
    board = make_board(flashers=SETTINGS)
    plan = FLASHERS["jlink"].plan(image, board, None)
    image.build.rmdir()
    with pytest.raises(OutputError, match="cannot write .*firmware.jlink"):
        FLASHERS["jlink"].run(plan, image, board, limit=5.0, echo=lambda text: None)


def test_output_comes_while_the_tool_runs(only_tools):
    folder = only_tools(slow="printf 'one\\r'; sleep 0.7; printf 'tw\\303'; sleep 0.3; printf '\\266o\\n' >&2")
    came: list[tuple[float, str]] = []
    began = time.monotonic()
    finished = run_tool(
        [str(folder / "slow")], limit=20, echo=lambda text: came.append((time.monotonic() - began, text))
    )
    assert (finished.code, finished.output) == (0, "one\rtwöo\n")
    assert came[0][1] == "one\r" and came[0][0] < 0.6 and came[-1][0] > 0.6


HANGING = """trap '' TERM
echo $$ >> "${0%/*}/pids"; echo "erasing"
sleep 60 & echo $! >> "${0%/*}/pids"
wait; wait; sleep 60"""


def pids(folder: Path, count: int) -> list[int]:
    deadline = time.monotonic() + 10
    file = folder / "pids"
    while time.monotonic() < deadline:
        if file.exists() and len(file.read_text().split()) == count:
            return [int(pid) for pid in file.read_text().split()]
        time.sleep(0.02)
    raise AssertionError("the tool has not started")


def gone(alive, processes: list[int]) -> bool:
    """Whether they end, at most a moment later: the kernel takes its time."""
    deadline = time.monotonic() + 2
    while any(map(alive, processes)) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not any(map(alive, processes))


def test_a_hanging_tool_is_ended_with_all_it_started(only_tools, make_board, image, alive, monkeypatch):
    monkeypatch.setattr("tinypeft.flashers.process._GRACE", 0.3)
    folder = only_tools(openocd=HANGING)
    with pytest.raises(ToolError, match=r"openocd did not end within 1 s; it said:\nerasing") as caught:
        flash("openocd", make_board(flashers=SETTINGS), image, limit=1.0)
    assert "--timeout" in caught.value.hint
    assert gone(alive, pids(folder, 2))


def test_ctrl_c_ends_the_tool(only_tools, make_board, image, alive, monkeypatch):
    monkeypatch.setattr("tinypeft.flashers.process._GRACE", 0.3)
    folder = only_tools(openocd=HANGING)

    def interrupt() -> None:
        with contextlib.suppress(AssertionError):
            pids(folder, 2)
        signal.raise_signal(signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        flash("openocd", make_board(flashers=SETTINGS), image, limit=30.0)
    thread.join()
    assert gone(alive, pids(folder, 2))


def test_a_tool_that_leaves_a_child_behind_does_not_hold_the_command(only_tools, alive):
    folder = only_tools(tool='sleep 60 & echo $! > "${0%/*}/pids"; echo done')
    began = time.monotonic()
    assert run_tool([str(folder / "tool")], limit=30, echo=lambda text: None).output == "done\n"
    assert time.monotonic() - began < 10 and gone(alive, pids(folder, 1))


def test_a_tool_that_cannot_be_started(tmp_path):
    with pytest.raises(ToolError, match="cannot run .*absent: No such file"):
        run_tool([str(tmp_path / "absent")], limit=1, echo=lambda text: None)
