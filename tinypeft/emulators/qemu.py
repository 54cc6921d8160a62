"""QEMU's system emulator: the console on a Unix socket, instructions counted by a plugin of our own."""

from __future__ import annotations

import contextlib
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from tinypeft.emulators.icount import (
    Segment,
    build_plugin,
    build_profiler,
    last_count,
    last_profile,
    profiled_count,
    profiler_arguments,
)
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
        command = self._command(project, board)
        plugin, reason = build_plugin() if count_instructions else (None, "counting was not asked for")
        with contextlib.ExitStack() as stack:
            if plugin is not None:
                try:
                    device, _ = stack.enter_context(_session(command, plugin))
                except (ToolError, EmulatorEnded) as error:
                    # Most likely another plugin ABI; if it is something else, the next start fails as well.
                    plugin, reason = None, f"QEMU refused the counting plugin: {error.message}"
            if plugin is None:
                device, _ = stack.enter_context(_session(command, None))
                device.counter_reason = reason
            yield device

    @contextlib.contextmanager
    def profile(
        self, project: Path, board: BoardLike, glue: Sequence[range], *, unaligned: bool = False
    ) -> Iterator[tuple[Device, Callable[[], list[Segment]]]]:
        """The same as `open`, and a function that gives the profile of what the device has run last.

        glue       the addresses of the code whose calls are told apart
        unaligned  whether unaligned accesses are counted

        ToolError where QEMU cannot load the plugin, too.
        """
        command = self._command(project, board)
        plugin, reason = build_profiler()
        if plugin is None:
            raise ToolError(f"QEMU cannot count here: {reason}", "install it, or count the whole with `tinypeft run`")
        with contextlib.ExitStack() as stack:
            try:
                arguments = profiler_arguments(glue, unaligned=unaligned)
                device, written = stack.enter_context(_session(command, plugin, arguments, profiled_count))
            except (ToolError, EmulatorEnded) as error:
                if "plugin" not in error.message:
                    raise
                raise _plugin_refused(error.message) from error
            yield device, lambda: last_profile(written)

    def _command(self, project: Path, board: BoardLike) -> list[str]:
        settings = self.settings(board, "machine", "serial")
        elf = self.require(Path(project) / "build" / "firmware.elf")
        return [*machine_command(settings), "-kernel", str(elf)]


def _plugin_refused(said: str) -> ToolError:
    return ToolError(
        f"QEMU refused the counting plugin, which speaks version 1 of its plugin interface: {said}",
        f"QEMU 4.2 to 8.2 have that version, built with --enable-plugins: {PROGRAM} --version",
    )


def machine_command(settings: Mapping[str, Any]) -> list[str]:
    """QEMU with a board's machine, without display and monitor; the next -serial is the console."""
    command = [PROGRAM, "-M", str(settings["machine"]), *map(str, settings.get("options", []))]
    return [*command, "-display", "none", "-monitor", "none", *["-serial", "null"] * int(settings["serial"])]


@contextlib.contextmanager
def _session(
    command: list[str],
    plugin: Path | None,
    arguments: Sequence[str] = (),
    count: Callable[[Path], int | None] = last_count,
) -> Iterator[tuple[Device, Path]]:
    """A QEMU of its own whose firmware has answered, and the file that `plugin` writes, from which `count` reads."""
    with tempfile.TemporaryDirectory(prefix="tinypeft-") as name:
        folder = Path(name)
        address, log, written = folder / "console", folder / "log", folder / "counts"
        # QEMU splits options at commas; a comma inside a path is written twice.
        command = [*command, "-serial", f"unix:{_escape(address)},server=on,wait=off"]
        if plugin is not None:
            command += ["-plugin", ",".join([_escape(plugin), f"out={_escape(written)}", *arguments])]
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
                device = Device(transport, counter=None if plugin is None else lambda: count(written))
                device.wait_ready(READY_LIMIT)
                yield device, written


def _escape(path: Path) -> str:
    return str(path).replace(",", ",,")
