"""An SMP client that is not ours, as it is, against host twin and firmware under QEMU, each on a pseudo-terminal."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from enum import IntEnum
from pathlib import Path
from typing import Any

import pytest
from projects import BOARD, Built
from qemu_pty import pty_board

from tinypeft.boards import load_board
from tinypeft.device.protocol import Command
from tinypeft.emulators import EMULATORS, find_emulator

pytest.importorskip("smpclient", reason="smpclient is not installed; pip install smpclient[serial]")
from smp import error as smp_error
from smp import header as smp_header
from smp import message
from smpclient import SMPClient
from smpclient.generics import error, success
from smpclient.requests.os_management import EchoWrite, MCUMgrParametersRead, OSApplicationInfoRead, ResetWrite
from smpclient.transport.serial import SMPSerialTransport

GROUP = 64


class Status(IntEnum):
    """-tp_status, as far as it is met here."""

    ARGUMENT = 1
    SIZE = 2


class ErrorV1(smp_error.ErrorV1):
    _GROUP_ID = GROUP


class ErrorV2(smp_error.ErrorV2[Status]):
    _GROUP_ID = GROUP


class InfoAnswer(message.ReadResponse):
    _GROUP_ID = GROUP
    _COMMAND_ID = Command.INFO
    protocol: int
    payload: int
    input: int
    output: int
    logits: int
    adapter: int
    training: int
    package: int
    arena: int
    target: int
    classes: int
    samples: int
    sample: int
    fingerprint: bytes
    name: str


class Info(message.ReadRequest):
    _GROUP_ID = GROUP
    _COMMAND_ID = Command.INFO
    _Response = InfoAnswer
    _ErrorV1 = ErrorV1
    _ErrorV2 = ErrorV2


class InferAnswer(message.WriteResponse):
    _GROUP_ID = GROUP
    _COMMAND_ID = Command.INFER
    output: bytes


class Infer(message.WriteRequest):
    _GROUP_ID = GROUP
    _COMMAND_ID = Command.INFER
    _Response = InferAnswer
    _ErrorV1 = ErrorV1
    _ErrorV2 = ErrorV2
    input: bytes


class TrainStepAnswer(message.WriteResponse):
    _GROUP_ID = GROUP
    _COMMAND_ID = Command.TRAIN_STEP
    loss: float
    sane: bool


class TrainStep(message.WriteRequest):
    _GROUP_ID = GROUP
    _COMMAND_ID = Command.TRAIN_STEP
    _Response = TrainStepAnswer
    _ErrorV1 = ErrorV1
    _ErrorV2 = ErrorV2
    input: bytes
    label: int
    rate: float


class ResetAdapterAnswer(message.WriteResponse):
    _GROUP_ID = GROUP
    _COMMAND_ID = Command.RESET_ADAPTER


class ResetAdapter(message.WriteRequest):
    _GROUP_ID = GROUP
    _COMMAND_ID = Command.RESET_ADAPTER
    _Response = ResetAdapterAnswer
    _ErrorV1 = ErrorV1
    _ErrorV2 = ErrorV2
    seed: int


class Unknown(message.ReadRequest):
    _GROUP_ID = GROUP
    _COMMAND_ID = 99
    _Response = InfoAnswer
    _ErrorV1 = ErrorV1
    _ErrorV2 = ErrorV2


@contextlib.contextmanager
def served(directory: Path, *arguments: object) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """(port, process) of `tinypeft serve`."""
    command = [sys.executable, "-m", "tinypeft", "serve", directory, "--json", *arguments]
    process = subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        text = ""
        assert process.stdout and process.stderr
        while not text.endswith("}\n") and (line := process.stdout.readline()):
            text += line
        assert text, process.stderr.read()
        yield json.loads(text)["port"], process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)


@contextlib.contextmanager
def on_qemu(directory: Path) -> Iterator[str]:
    with pty_board(directory, BOARD) as running:
        time.sleep(1.2)  # QEMU looks for the other end once a second
        yield running.port


@contextlib.contextmanager
def on_host(directory: Path) -> Iterator[str]:
    with served(directory) as (port, _):
        yield port


def work(port: str, sample: bytes, label: int) -> list[Any]:
    """What the client gets for each of its requests; the last resets the device."""

    async def ask() -> list[Any]:
        async with SMPClient(SMPSerialTransport(), port, timeout_s=20) as client:

            async def get(request: Any) -> Any:
                answer = await client.request(request)
                assert success(answer), answer
                return answer

            text = "grüezi " * 30
            assert (await get(EchoWrite(d=text))).r == text
            parameters = await get(MCUMgrParametersRead())
            assert (parameters.buf_size, parameters.buf_count) == (524, 1)
            await get(ResetAdapter(seed=3))
            found: list[Any] = [await get(Info()), (await get(OSApplicationInfoRead(format="so"))).output]
            for _ in range(3):
                found.append(await get(TrainStep(input=sample, label=label, rate=0.0625)))
            found.append((await get(Infer(input=sample))).output)
            wrong = await client.request(Infer(input=sample[:-1]))
            assert error(wrong) and wrong.err.rc is Status.SIZE and wrong.err.group == GROUP
            unknown = await client.request(Unknown())
            assert error(unknown) and unknown.rc is smp_error.MGMT_ERR.ENOTSUP
            old = await client.request(TrainStep(input=sample, label=99, rate=0.5, version=smp_header.Version.V1))
            assert error(old) and old.rc is smp_error.MGMT_ERR.EINVAL
            await get(ResetWrite())
            return found

    return asyncio.run(ask())


@pytest.mark.parametrize("where", [on_host, on_qemu])
def test_a_client_that_is_not_ours(project: Callable[[str], Built], where) -> None:
    """Everything in single requests, with the numbers that our own client gets; after the reset all starts anew."""
    built = project("plain")
    samples = built.samples(1)
    assert samples.y is not None
    sample, label = samples.x[0].tobytes(), int(samples.y[0])
    with where(built.directory) as port:
        info, application, *steps, output = work(port, sample, label)
        with find_emulator(f"serial:{port}").open(built.directory, load_board(BOARD)) as board:
            fresh = board.read("adapter")
    assert (info.name, info.fingerprint) == (built.model.name, built.model.fingerprint)
    assert application == f"{built.model.name} tinypeft"
    with EMULATORS["host"].open(built.directory, load_board("host")) as twin:
        assert fresh == twin.read("adapter")
        twin.reset_adapter(3)
        runs = [twin.train_step(sample, label, 0.0625) for _ in range(3)]
        assert [(step.loss, step.sane) for step in steps] == [(run.loss, run.masters_sane) for run in runs]
        assert output == twin.infer(sample).output
    assert len({step.loss for step in steps}) == 3


def test_serve_ends_with_ctrl_c_and_takes_its_link_away(project: Callable[[str], Built], tmp_path: Path) -> None:
    built, link = project("plain"), tmp_path / "board"
    link.symlink_to("/dev/pts/left-over")
    with served(built.directory, "--link", link) as (port, process):
        assert os.readlink(link) == port
        for _ in range(2):  # one client after the other
            with find_emulator(f"serial:{link}").open(built.directory, load_board(BOARD)) as board:
                assert board.info().fingerprint == built.model.fingerprint
                assert len(board.read("staging")) == board.info().arena_bytes
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=20)
        assert (process.returncode, "Traceback" in stderr) == (0, False)
    assert not link.is_symlink()


def test_what_nobody_reads_is_dropped(project: Callable[[str], Built]) -> None:
    """A client that asks and leaves does not keep the next one from being answered."""
    import serial

    from tinypeft.device.framing import READ, Message, encode

    built = project("plain")
    with served(built.directory) as (port, _):
        with serial.Serial(port, timeout=1) as rude:
            for number in range(60):
                rude.write(encode(Message(READ, Command.INFO, number)))
        with find_emulator(f"serial:{port}").open(built.directory, load_board(BOARD)) as board:
            assert board.info().fingerprint == built.model.fingerprint


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--on", "serial"], 2, "serial is a serial port already"),
        (["--link", "."], 1, "error: cannot make the link .: File exists"),
    ],
)
def test_refusals(project: Callable[[str], Built], arguments, code, message) -> None:
    command = [sys.executable, "-m", "tinypeft", "serve", str(project("plain").directory), *arguments]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert run.returncode == code and message in run.stderr and "Traceback" not in run.stderr


def test_serve_on_qemu(project: Callable[[str], Built]) -> None:
    if (reason := EMULATORS["qemu"].missing()) is not None:
        pytest.skip(reason)
    built = project("plain")
    with served(built.directory, "--on", "qemu") as (port, process):
        with find_emulator(f"serial:{port}").open(built.directory, load_board(BOARD)) as board:
            assert board.stats().guards_intact and board.stats().stack_bytes == 4096
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
        assert process.returncode == 0
