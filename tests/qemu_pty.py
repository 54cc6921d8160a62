"""QEMU with its console on a pseudo-terminal: to the host a board on a serial port."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tinypeft.boards import load_board

_NAMED = re.compile(r"redirected to (/dev/\S+)")


@dataclass
class PtyBoard:
    """A running board: the name of its serial port."""

    port: str
    process: subprocess.Popen[bytes]

    def unplug(self) -> None:
        """It is gone, and its port with it."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def freeze(self) -> None:
        """It stays, but does nothing more."""
        self.process.send_signal(signal.SIGSTOP)


@contextlib.contextmanager
def pty_board(project: Path, name: str) -> Iterator[PtyBoard]:
    """The built firmware of `project` for the board `name`."""
    if shutil.which("qemu-system-arm") is None:
        pytest.skip("qemu-system-arm is not installed; apt install qemu-system-arm")
    settings = load_board(name).emulators["qemu"]
    command = ["qemu-system-arm", "-M", settings["machine"], "-kernel", str(project / "build" / "firmware.elf")]
    command += ["-display", "none", "-monitor", "none", *["-serial", "null"] * settings["serial"], "-serial", "pty"]
    log = project.parent / f"qemu-{os.getpid()}-{time.monotonic_ns()}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + 20
        while (found := _NAMED.search(log.read_text())) is None:
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)
        yield PtyBoard(found[1], process)
    finally:
        process.kill()
        process.wait()
        log.unlink()
