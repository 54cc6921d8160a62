"""Renode: a platform script and a Robot test beside the firmware, the console on a TCP socket.

The scripts also run by hand: `renode firmware.resc`, `renode-test firmware.robot`.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from elftools.elf.constants import SH_FLAGS
from elftools.elf.elffile import ELFFile

from tinypeft.device.client import Device
from tinypeft.emulators.base import (
    INSTRUCTIONS,
    BoardLike,
    Emulator,
    SocketTransport,
    connect,
    last_lines,
    register,
    running,
)
from tinypeft.errors import OutputError

CONNECT_LIMIT = 60.0
READY_LIMIT = 60.0

_RESC = """\
# The firmware on {board} in Renode; its console is on TCP port $port.
$port?=3456
mach create "{board}"
machine LoadPlatformDescription @{platform}
path add $ORIGIN
sysbus LoadELF @{elf}
emulation CreateServerSocketTerminal $port "term" false
connector Connect {uart} term
"""

_ROBOT = """\
*** Settings ***
Documentation     The firmware on {board} starts: it sets up its model and says so on its console.
Suite Setup       Setup
Suite Teardown    Teardown
Test Setup        Reset Emulation
Test Teardown     Test Teardown
Resource          ${{RENODEKEYWORDS}}

*** Variables ***
${{ELF}}            ${{CURDIR}}/{elf}

*** Test Cases ***
Firmware Should Start
    Execute Command         mach create
    Execute Command         machine LoadPlatformDescription @{platform}
    Execute Command         sysbus LoadELF @${{ELF}}
    Create Terminal Tester  {uart}
    Start Emulation
    Wait For Line On Uart   tinypeft .+ ready  treatAsRegex=true  timeout=10
"""

# The no-ops of tp_count.h
_BEGIN_MARKER = bytes.fromhex("4aea0a0a")
_END_MARKER = bytes.fromhex("4bea0b0b")
_LOGGED = re.compile(r"tinypeft (begin|end) (\d+)")


@register
class Renode(Emulator):
    """`build/firmware.elf` on the platform and UART that the board's `emulators.renode` names."""

    name = "renode"
    capabilities = frozenset({INSTRUCTIONS})

    def missing(self) -> str | None:
        if shutil.which("renode"):
            return None
        return (
            "renode is not on the PATH; unpack the portable archive from https://github.com/renode/renode/releases "
            "(1.16 or later; no package registry carries it) and add its folder to PATH"
        )

    def prepare(self, project: Path, board: BoardLike) -> None:
        self.write_scripts(project, board)

    def write_scripts(self, project: Path, board: BoardLike, *, count_instructions: bool = False) -> tuple[Path, Path]:
        """Write `build/firmware.resc` and `build/firmware.robot`; returns their paths."""
        settings = self.settings(board, "platform", "uart")
        elf = Path(project).resolve() / "build" / "firmware.elf"
        values = {"board": board.name, "elf": elf.name, "platform": settings["platform"], "uart": settings["uart"]}
        resc, robot = elf.with_suffix(".resc"), elf.with_suffix(".robot")
        try:
            hooks = "".join(_hooks(elf)) if count_instructions else ""
            resc.write_text(_RESC.format(**values) + hooks + "start\n")
            robot.write_text(_ROBOT.format(**values))
        except OSError as error:
            raise OutputError(f"cannot write {resc}: {error.strerror}", "build the project first") from error
        return resc, robot

    @contextlib.contextmanager
    def open(self, project: Path, board: BoardLike, *, count_instructions: bool = False) -> Iterator[Device]:
        self.settings(board, "platform", "uart")
        elf = self.require(Path(project) / "build" / "firmware.elf")
        resc, _ = self.write_scripts(project, board, count_instructions=count_instructions)
        log, port = elf.with_suffix(".renode.log"), _free_port()
        script = str(resc).replace(" ", "\\ ")
        command = ["renode", "--disable-xwt", "--console", "--plain", "-e", f"$port={port}; include @{script}"]

        def attempt() -> socket.socket:
            return socket.create_connection(("127.0.0.1", port), timeout=1.0)

        with (
            running(command, log, open_input=True) as process,
            connect(attempt, process, log, CONNECT_LIMIT) as connection,
        ):
            device = Device(
                SocketTransport(connection, lambda: last_lines(log)),
                counter=(lambda: _last_count(log)) if count_instructions else None,
                counter_reason=None if count_instructions else "counting was not asked for",
            )
            device.wait_ready(READY_LIMIT)
            yield device


def _hooks(elf: Path) -> Iterator[str]:
    """Renode commands that log the number of executed instructions at every marker."""
    with elf.open("rb") as stream:
        for section in ELFFile(stream).iter_sections("SHT_PROGBITS"):
            if not section["sh_flags"] & SH_FLAGS.SHF_EXECINSTR:
                continue
            code = section.data()
            for offset in range(0, len(code) - 3, 2):
                what = {_BEGIN_MARKER: "begin", _END_MARKER: "end"}.get(code[offset : offset + 4])
                if what is not None:
                    message = f"self.InfoLog('tinypeft {what} {{0}}', self.ExecutedInstructions)"
                    yield f'sysbus.cpu AddHook 0x{section["sh_addr"] + offset:08X} "{message}"\n'


def _last_count(log: Path, quiet: float = 0.2, limit: float = 5.0) -> int | None:
    """Instructions between the last two markers in Renode's log, which it writes with a delay."""
    deadline = time.monotonic() + limit
    text = log.read_text(errors="replace")
    marks = _LOGGED.findall(text)
    while time.monotonic() < deadline:
        time.sleep(quiet)
        before, text = text, log.read_text(errors="replace")
        marks = _LOGGED.findall(text)
        if text == before and (not marks or marks[-1][0] == "end"):
            break
    if len(marks) < 2 or [kind for kind, _ in marks[-2:]] != ["begin", "end"]:
        return None
    return int(marks[-1][1]) - int(marks[-2][1]) - 1  # without the marker at the beginning


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
