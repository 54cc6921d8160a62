"""Commands as a user gives them, and whether what they need to run a board is here."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tinypeft.boards import board_on, load_board
from tinypeft.cli import main
from tinypeft.emulators import EMULATORS
from tinypeft.errors import BoardError


def invoke(*arguments: str | Path | int) -> dict[str, Any]:
    """The JSON of a command that succeeds."""
    result = CliRunner().invoke(main, [*map(str, arguments), "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def need(emulator: str, board: str) -> None:
    """Skip where the emulator or the compiler is missing, or the emulator has neither the board nor its twin."""
    reason = EMULATORS[emulator].missing()
    if reason is not None:
        pytest.skip(reason)
    try:
        board_on(load_board(board), emulator)
    except BoardError as error:
        pytest.skip(error.message)
    if shutil.which("arm-none-eabi-gcc") is None:
        pytest.skip("arm-none-eabi-gcc is not installed; apt install gcc-arm-none-eabi")


def console_until(command: list[str], marker: str, data: bytes = b"", after: str = "", seconds: float = 30.0) -> str:
    """Run a command and return what it prints until `marker`, or all of it after `seconds`.

    It is fed `data` once it has printed `after`: a UART that is not set up yet drops what it is sent.
    """
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    timer = threading.Timer(seconds, process.kill)
    timer.start()
    text = b""
    try:
        assert process.stdin and process.stdout
        while marker.encode() not in text and (byte := process.stdout.read(1)):
            text += byte
            if data and after.encode() in text:
                process.stdin.write(data)
                process.stdin.flush()
                data = b""
    finally:
        timer.cancel()
        process.kill()
        process.communicate()
    return text.decode(errors="replace")
