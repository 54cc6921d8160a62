"""QEMU's system emulator: the console on a Unix socket, instructions counted by a plugin of our own."""

from __future__ import annotations

import contextlib
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tinypeft.device.client import Device
from tinypeft.emulators.base import (
    INSTRUCTIONS,
    BoardLike,
    Emulator,
    EmulatorEnded,
    SocketTransport,
    connect,
    last_lines,
    register,
    running,
)
from tinypeft.emulators.icount import build_plugin, last_count
from tinypeft.errors import ToolError

PROGRAM = "qemu-system-arm"
CONNECT_LIMIT = 10.0
READY_LIMIT = 60.0


@register
class Qemu(Emulator):
    """`build/firmware.elf` on the machine and serial port that the board's `emulators.qemu` names.

    Its `options`, a list of strings, are further arguments of QEMU.
    """

    name = "qemu"
    capabilities = frozenset({INSTRUCTIONS})

    def missing(self) -> str | None:
        if shutil.which(PROGRAM):
            return None
        return f"{PROGRAM} is not installed; apt install qemu-system-arm, or brew install qemu"

    @contextlib.contextmanager
    def open(self, project: Path, board: BoardLike, *, count_instructions: bool = False) -> Iterator[Device]:
        settings = self.settings(board, "machine", "serial")
        elf = self.require(Path(project) / "build" / "firmware.elf")
        plugin, reason = build_plugin() if count_instructions else (None, "counting was not asked for")
        command = [*machine_command(settings), "-kernel", str(elf)]
        with contextlib.ExitStack() as stack:
            if plugin is not None:
                try:
                    device = stack.enter_context(_session(command, plugin))
                except (ToolError, EmulatorEnded) as error:
                    # Most likely another plugin ABI; if it is something else, the next start fails as well.
                    plugin, reason = None, f"QEMU refused the counting plugin: {error.message}"
            if plugin is None:
                device = stack.enter_context(_session(command, None))
                device.counter_reason = reason
            yield device


def machine_command(settings: Mapping[str, Any]) -> list[str]:
    """QEMU with a board's machine, without display and monitor; the next -serial is the console."""
    command = [PROGRAM, "-M", str(settings["machine"]), *map(str, settings.get("options", []))]
    return [*command, "-display", "none", "-monitor", "none", *["-serial", "null"] * int(settings["serial"])]


@contextlib.contextmanager
def _session(command: list[str], plugin: Path | None) -> Iterator[Device]:
    """A QEMU of its own whose firmware has answered."""
    with tempfile.TemporaryDirectory(prefix="tinypeft-") as name:
        folder = Path(name)
        address, log, counts = folder / "console", folder / "log", folder / "counts"
        # QEMU splits options at commas; a comma inside a path is written twice.
        command = [*command, "-serial", f"unix:{_escape(address)},server=on,wait=off"]
        if plugin is not None:
            command += ["-plugin", f"{_escape(plugin)},out={_escape(counts)}"]
        with running(command, log) as process:

            def attempt() -> socket.socket:
                connection = socket.socket(socket.AF_UNIX)
                try:
                    connection.connect(str(address))
                except OSError:
                    connection.close()
                    raise
                return connection

            with connect(attempt, process, log, CONNECT_LIMIT) as connection:
                transport = SocketTransport(connection, lambda: last_lines(log))
                device = Device(transport, counter=None if plugin is None else lambda: last_count(counts))
                device.wait_ready(READY_LIMIT)
                yield device


def _escape(path: Path) -> str:
    return str(path).replace(",", ",,")
