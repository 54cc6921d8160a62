"""Clients that are not ours, as they are: smpmgr and smpclient on firmware under QEMU and on the twin, on a pty."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kept import Build, Kept, data
from qemu_pty import pty_board

from tinypeft.device import Device
from tinypeft.emulators import find_emulator
from tinypeft.package.format import parse

pytest.importorskip("smpclient", reason="smpclient is not installed; pip install smpclient[serial]")
from smpclient import SMPClient  # noqa: E402
from smpclient.generics import success  # noqa: E402
from smpclient.requests.file_management import FileDownload, FileUpload  # noqa: E402
from smpclient.transport.serial import SMPSerialTransport  # noqa: E402

NAME = "anna"
BOARD = "mps2_an386"


@contextlib.contextmanager
def port_of(built: Kept, on: str) -> Iterator[str]:
    """A serial port behind which the device is running."""
    if on == "qemu":
        with built.running("qemu"):
            pass  # which builds it
        with pty_board(built.project.directory, BOARD) as board:
            time.sleep(1.2)  # QEMU looks for the other end once a second
            yield board.port
        return
    with built.running("host"):
        pass
    command = [sys.executable, "-m", "tinypeft", "serve", str(built.project.directory), "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        text = ""
        while "}" not in text:
            line = process.stdout.readline()
            assert line, process.stderr.read() if process.stderr else ""
            text += line
        yield json.loads(text)["port"]
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=20)


@contextlib.contextmanager
def device_at(built: Kept, port: str) -> Iterator[Device]:
    with find_emulator(f"serial:{port}").open(built.project.directory, built.project.board) as device:
        yield device


def smpmgr(port: str, *arguments: object) -> str:
    program = shutil.which("smpmgr", path=str(Path(sys.executable).parent)) or shutil.which("smpmgr")
    if program is None:
        pytest.skip("smpmgr is not installed; pip install smpmgr")
    command = [program, "--port", port, "--timeout", "5", *map(str, arguments)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


@pytest.mark.parametrize("on", ["host", "qemu"])
def test_smpmgr(kept: Build, on: str, tmp_path: Path) -> None:
    """Upload, test, infer, confirm, download: with its own commands for files and images."""
    built = kept("plain")
    package, x = built.package(NAME, 1, version=3), built.samples(1).x[0]
    (tmp_path / "new.tpad").write_bytes(package)
    with port_of(built, on) as port:
        smpmgr(port, "file", "upload", tmp_path / "new.tpad", f"/adapter/{NAME}")
        smpmgr(port, "file", "download", f"/adapter/{NAME}", tmp_path / "back.tpad")
        assert (tmp_path / "back.tpad").read_bytes() == package
        assert str(len(package)) in smpmgr(port, "file", "read-size", f"/adapter/{NAME}")
        digest = repr(hashlib.sha256(package).digest())
        shown = re.sub(r"\s", "", smpmgr(port, "file", "get-hash", f"/adapter/{NAME}"))
        assert "sha256" in shown and f"len={len(package)}" in shown and re.sub(r"\s", "", digest) in shown
        images = smpmgr(port, "image", "state-read")
        assert "3.0.0" in images and parse(package).digest.hex().upper()[:16] in re.sub(r"[\s']", "", images)
        smpmgr(port, "image", "state-write", parse(package).digest.hex())
        with device_at(built, port) as device:
            (entry,) = device.adapters.list().adapters
            assert (entry.candidate, entry.on_test, entry.active) == (3, True, True)
            assert device.infer(data(x)).output == built.output(built.trained(1), x)
        with built.running("host") as twin:
            twin.load_adapter(package)
            assert twin.infer(data(x)).output == built.output(built.trained(1), x)
        smpmgr(port, "image", "state-write", "--confirm", parse(package).digest.hex())
        with device_at(built, port) as device:
            (entry,) = device.adapters.list().adapters
            assert (entry.confirmed, entry.candidate) == (3, None)


def test_smpmgr_is_told_why_not(kept: Build, tmp_path: Path) -> None:
    built = kept("plain")
    broken = bytearray(built.package(NAME, 1))
    broken[200] ^= 1
    (tmp_path / "broken.tpad").write_bytes(broken)
    with port_of(built, "host") as port:
        program = Path(sys.executable).with_name("smpmgr")
        if not program.exists():
            pytest.skip("smpmgr is not installed; pip install smpmgr")
        command = [program, "--port", port, "file", "upload", tmp_path / "broken.tpad", f"/adapter/{NAME}"]
        run = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=60)
        assert "FILE_WRITE_FAILED" in run.stdout + run.stderr
        with device_at(built, port) as device:
            assert device.adapters.list().adapters == ()


@pytest.mark.parametrize("on", ["host", "qemu"])
def test_a_transfer_that_breaks_at_every_tenth_frame_resumes(kept: Build, on: str) -> None:
    """With smpclient: after every tenth message the port is closed, and opened again to go on behind what arrived."""
    built = kept("residual")
    package = built.package(NAME, 2)
    with port_of(built, on) as port:
        done, breaks = 0, 0
        while done < len(package):
            done = asyncio.run(some_frames(port, package, done, 10))
            breaks += 1
            with device_at(built, port) as device:  # which knows how far it came
                if done < len(package):
                    assert device.adapters._arrived(NAME, package) == done
        assert breaks >= 3
        assert asyncio.run(download(port)) == package


async def some_frames(port: str, package: bytes, done: int, count: int) -> int:
    client = SMPClient(SMPSerialTransport(), port)
    await client.connect()
    try:
        for _ in range(count):
            part = package[done : done + 30]
            length = {} if done else {"len": len(package)}
            answer = await client.request(FileUpload(name=f"/adapter/{NAME}", off=done, data=part, **length))
            assert success(answer), answer
            done = answer.off
            if done == len(package):
                break
    finally:
        await client.disconnect()
    return done


async def download(port: str) -> bytes:
    client = SMPClient(SMPSerialTransport(), port)
    await client.connect()
    try:
        found, size = b"", None
        while len(found) != size:
            answer = await client.request(FileDownload(name=f"/adapter/{NAME}", off=len(found)))
            assert success(answer), answer
            size = size if found else answer.len
            found += answer.data
        return found
    finally:
        await client.disconnect()
