"""Tools that are missing, interrupted runs, and a device that stays silent."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from projects import BOARD, Built, save_model

from tinypeft.cli import main
from tinypeft.device import Device
from tinypeft.emulators import qemu as qemu_emulator
from tinypeft.emulators.base import SocketTransport

TOOLS = (
    "make",
    "sh",
    "mkdir",
    "rm",
    "gcc",
    "as",
    "ld",
    "arm-none-eabi-gcc",
    "arm-none-eabi-objcopy",
    "qemu-system-arm",
)


def path_without(folder: Path, *missing: str) -> dict[str, str]:
    """An environment whose PATH has TOOLS but for those."""
    folder.mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        if tool not in missing and found:
            (folder / tool).symlink_to(found)
    return {**os.environ, "PATH": str(folder)}


def run_process(*arguments: str | Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tinypeft", *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


def refused(done: subprocess.CompletedProcess[str], message: str) -> None:
    assert done.returncode == 1 and done.stdout == "" and "Traceback" not in done.stderr, done.stderr
    assert re.search(f"^error: .*{message}", done.stderr, re.MULTILINE), done.stderr
    assert re.search("^try: |apt install", done.stderr, re.MULTILINE), done.stderr


def test_a_missing_cross_compiler(tmp_path: Path) -> None:
    environment = path_without(tmp_path / "bin", "arm-none-eabi-gcc")
    model = save_model("plain", tmp_path)
    done = run_process("generate", model, "--board", BOARD, "-o", tmp_path / "p", environment=environment)
    refused(done, "arm-none-eabi-gcc is not installed")
    assert "apt install gcc-arm-none-eabi" in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bin", "plain.tflite"]


@pytest.mark.parametrize(
    ("missing", "message"), [(("gcc",), "neither gcc nor clang is installed"), (("make",), "make is not installed")]
)
def test_missing_tools_of_the_twin(
    project: Callable[[str], Built], tmp_path: Path, missing: tuple[str], message: str
) -> None:
    built = project("plain")
    data = built.save_samples(tmp_path / "data.npz")
    environment = path_without(tmp_path / "bin", *missing)
    environment.pop("CC_HOST", None)
    refused(run_process("run", built.directory, "--data", data, environment=environment), message)


def test_a_missing_emulator(project: Callable[[str], Built], tmp_path: Path) -> None:
    built = project("plain")
    data = built.save_samples(tmp_path / "data.npz")
    environment = path_without(tmp_path / "bin", "qemu-system-arm")
    refused(
        run_process("run", built.directory, "--data", data, "--on", "qemu", environment=environment),
        "qemu-system-arm is not installed",
    )
    done = run_process("run", built.directory, "--data", data, "--on", "renode", environment=environment)
    refused(done, "renode cannot run here|does not run on renode")


def test_an_emulator_that_the_board_does_not_have(tmp_path: Path) -> None:
    arguments = ["generate", str(save_model("plain", tmp_path)), "--board", "host", "-o", str(tmp_path / "p")]
    assert CliRunner().invoke(main, arguments).exit_code == 0
    np.savez(tmp_path / "d.npz", x=np.zeros((1, 8, 7, 2), np.int8))
    if shutil.which("qemu-system-arm") is None:
        pytest.skip("qemu-system-arm is not installed")
    result = CliRunner().invoke(main, ["run", str(tmp_path / "p"), "--data", f"{tmp_path}/d.npz:x", "--on", "qemu"])
    assert result.exit_code == 1 and "board host does not run on qemu" in result.stderr


def slow_compiler(folder: Path) -> dict[str, str]:
    """An environment in which the cross compiler never ends."""
    folder.mkdir()
    (folder / "arm-none-eabi-gcc").write_text('#!/bin/sh\necho $$ >> "$(dirname "$0")/started"\nexec sleep 60\n')
    (folder / "arm-none-eabi-gcc").chmod(0o755)
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("earlier", [False, True])
def test_an_interrupted_generate(
    project: Callable[[str], Built], tmp_path: Path, number: signal.Signals, earlier: bool
) -> None:
    """No half-written folder, an earlier one untouched; after SIGINT nothing at all, else at most a hidden folder."""
    work = tmp_path / "work"
    work.mkdir()
    before: dict[str, bytes] = {}
    if earlier:
        folder = project("plain").copy(work)
        before = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    environment, model = slow_compiler(tmp_path / "bin"), save_model("residual", tmp_path)
    command = [sys.executable, "-m", "tinypeft", "generate", str(model), "--board", BOARD, "-o", str(work / "plain")]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    started = tmp_path / "bin" / "started"
    deadline = time.monotonic() + 60
    while not started.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert started.exists(), "the build has begun"
    compilers = [int(line) for line in started.read_text().split()]
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=30)
    try:
        if number == signal.SIGINT:
            assert process.returncode == 130 and stdout == "" and "interrupted" in stderr and "Traceback" not in stderr
            assert not any(alive(compiler) for compiler in compilers), "the compilers were ended as well"
        else:
            assert process.returncode == -number or process.returncode == 128 + number
        visible = sorted(p.name for p in work.iterdir() if not p.name.startswith("."))
        hidden = [p.name for p in work.iterdir() if p.name.startswith(".")]
        assert visible == (["plain"] if earlier else [])
        assert len(hidden) <= (number != signal.SIGINT) and all(name.startswith(".plain.") for name in hidden)
        after = {str(p.relative_to(work / "plain")): p.read_bytes() for p in (work / "plain").rglob("*") if p.is_file()}
        assert after == before
    finally:
        for compiler in compilers:
            if alive(compiler):
                os.kill(compiler, signal.SIGKILL)
    again = [*command, "--json"]
    assert subprocess.run(again, capture_output=True, timeout=120).returncode == 0, (
        "the folder can be written afterwards"
    )


@pytest.fixture
def qemu(monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("qemu-system-arm") is None:
        pytest.skip("qemu-system-arm is not installed; apt install qemu-system-arm")
    monkeypatch.setattr(qemu_emulator, "READY_LIMIT", 6.0)
    monkeypatch.setattr(SocketTransport, "SEND_LIMIT", 1.0)
    monkeypatch.setitem(Device.__init__.__kwdefaults__, "timeout", 3.0)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("tp_status plain_init(", r"no answer to INFO within 6 s"),
        ("tp_status plain_forward(", r"INFER\(\): no answer within 3 s; its last output: '.*giving up"),
    ],
)
def test_a_device_that_stays_silent(
    qemu: None, project: Callable[[str], Built], tmp_path: Path, place: str, message: str
) -> None:
    """A time limit ends the wait; what the firmware said last is shown."""
    built = project("plain")
    directory = built.copy(tmp_path)
    source = directory / "src" / "plain.c"
    body = source.read_text()
    start = body.index("{\n", body.index(place)) + 2
    said = "".join(f"  tp_console_write({byte});\n" for byte in b"giving up")
    said += "  for (volatile int forever = 1; forever;) {\n  }\n"
    declared = "void tp_console_write(uint8_t byte);\n" + body[:start]
    source.write_text(f'#include "{source.stem}.h"\n{declared}{said}{body[start:]}')
    data, began = built.save_samples(tmp_path / "data.npz"), time.monotonic()
    result = CliRunner().invoke(main, ["run", str(directory), "--data", data, "--on", "qemu"])
    assert time.monotonic() - began < 60, result.output
    assert result.exit_code == 1 and result.stdout == "" and isinstance(result.exception, SystemExit)
    assert re.search(message, result.stderr), result.stderr
    assert "\ntry: " in result.stderr
