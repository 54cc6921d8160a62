"""Boards on a serial port: QEMU on a pseudo-terminal through pyserial, and every way a port can refuse."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
import threading
import time
import tty

import cbor2
import pytest
import serial
from click.testing import CliRunner
from projects import BOARD, Built
from qemu_pty import pty_board
from serial.tools import list_ports
from serial.tools.list_ports_common import ListPortInfo

from tinypeft.boards import load_board
from tinypeft.cli import main
from tinypeft.device.framing import WRITE, Message, encode
from tinypeft.device.protocol import Command
from tinypeft.emulators import EMULATORS, find_emulator
from tinypeft.emulators import serial as serial_port
from tinypeft.errors import BoardError, DeviceError, ToolError


def invoke(*arguments: object):
    return CliRunner().invoke(main, [*map(str, arguments)])


def succeeded(*arguments: object) -> dict:
    result = invoke(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture
def board():
    return load_board(BOARD)


@pytest.fixture
def quick(monkeypatch) -> None:
    monkeypatch.setattr(serial_port, "READY_LIMIT", 1.5)


@pytest.fixture
def terminal():
    """(our end, the port's name) of a pseudo-terminal with nothing behind it."""
    ours, theirs = os.openpty()
    tty.setraw(theirs)
    yield ours, os.ttyname(theirs)
    os.close(theirs)
    os.close(ours)


@pytest.mark.parametrize("name", ["plain", "batches"])
def test_parity_training_and_running(project, tmp_path, name):
    """The same comparison as on the host, and the adapter that the twin learns."""
    built: Built = project(name)
    data = built.save_samples(tmp_path / "data.npz", 20)
    with pty_board(built.directory, BOARD) as running:
        on = ["--on", f"serial:{running.port}", "--data", data]
        report = succeeded("test", built.directory, *on, "--limit", 10, "--train-steps", 24)
        assert report["parity"] is True and report["steps_compared"] == 24 and report["first_divergence"] is None
        training = ["--data", data, "--epochs", 2, "--lr", built.learning_rate]
        trained = succeeded("train", built.directory, "--on", f"serial:{running.port}:115200", *training)
        twin = succeeded("train", built.directory, *training)
        for key in ("adapter_sha256", "loss_per_epoch", "accuracy_after", "steps"):
            assert trained[key] == twin[key]
        assert trained["instructions_per_step"] is None and trained["guards_intact"] is True
        run = succeeded("run", built.directory, *on)
        assert run["outputs_sha256"] == succeeded("run", built.directory, "--data", data)["outputs_sha256"]


LEFT_OVER = {
    "half a request": encode(Message(WRITE, Command.WRITE, 1, bytes(400)))[:200],
    "a false length": b"\x06\x09AgA\n\x04\x14",
    "half a start": b"\x06",
    "text": b"AT\r\n~~~~",
    "a training step": encode(Message(WRITE, Command.TRAIN_STEP, 1, cbor2.dumps({"rate": 0.0}))),
    "nothing": b"",
}


@pytest.mark.parametrize("left", LEFT_OVER)
def test_whatever_came_before(project, board, left):
    """Another program has sent this and has not read the answer."""
    built: Built = project("plain")
    with pty_board(built.directory, BOARD) as running:
        with serial.Serial(running.port, 115200, timeout=1) as other:
            time.sleep(1.2)  # QEMU looks for the other end once a second
            other.write(LEFT_OVER[left])
            time.sleep(0.2)
        with find_emulator(f"serial:{running.port}").open(built.directory, board) as device:
            assert device.info().fingerprint == built.model.fingerprint
            assert device.instructions() is None and "does not count" in device.counter_reason
            sample = built.samples(1).x[0].tobytes()
            first = device.infer(sample).output
            assert [device.infer(sample).output for _ in range(5)] == [first] * 5


def test_the_firmware_of_another_project(project, tmp_path):
    one, other = project("plain"), project("residual")
    smaller = project("batches")  # of the same base model, with another adapter
    with pty_board(one.directory, BOARD) as running:
        for wrong in (other, smaller):
            data = wrong.save_samples(tmp_path / f"{wrong.name}.npz")
            result = invoke("run", wrong.directory, "--on", f"serial:{running.port}", "--data", data)
            assert result.exit_code == 1 and result.stdout == ""
            assert f"error: serial:{running.port} runs the firmware of another project: model plain" in result.stderr
            assert f"try: flash this project: tinypeft flash {wrong.directory}" in result.stderr


def test_unplugged(project, board):
    built: Built = project("plain")
    sample = built.samples(1).x[0].tobytes()
    with pty_board(built.directory, BOARD) as running:
        began = time.monotonic()
        with (
            pytest.raises(DeviceError, match=rf"{running.port} is gone \(.*\): the board was unplugged") as caught,
            find_emulator(f"serial:{running.port}").open(built.directory, board) as device,
        ):
            device.train_step(sample, 0, 0.01)
            running.unplug()
            device.train_step(sample, 0, 0.01)
        assert "plug it in" in caught.value.hint and time.monotonic() - began < 20


def test_unplugged_while_the_command_runs(project, tmp_path):
    built: Built = project("plain")
    data = built.save_samples(tmp_path / "data.npz")
    with pty_board(built.directory, BOARD) as running:
        command = [sys.executable, "-m", "tinypeft", "test", str(built.directory), "--data", data]
        command += ["--on", f"serial:{running.port}", "--train-steps", "100000", "--json"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        timer = threading.Timer(6.0, running.unplug)
        timer.start()
        stdout, stderr = process.communicate(timeout=60)
        timer.join()
    assert process.returncode == 1 and stdout == "" and "Traceback" not in stderr
    assert stderr.count("error: ") == 1 and f"{running.port} is gone" in stderr and "\ntry: " in stderr


def test_a_board_that_stops_answering(project, board, monkeypatch):
    monkeypatch.setattr(serial_port, "COMPUTING_LIMIT", 4.0)
    built: Built = project("plain")
    with pty_board(built.directory, BOARD) as running:
        began = time.monotonic()
        with (
            pytest.raises(DeviceError, match=r"TRAIN_STEP.*no answer within 4 s.*; it may have run") as caught,
            find_emulator(f"serial:{running.port}").open(built.directory, board) as device,
        ):
            device.write("input", built.samples(1).x[0].tobytes())
            running.freeze()
            device.train_step(None, 0, 0.01)
        assert caught.value.hint and time.monotonic() - began < 30


def test_silence_and_noise(quick, terminal, board, tmp_path):
    ours, port = terminal
    with (
        pytest.raises(DeviceError, match=rf"{port}, 115200 baud: no answer to INFO within 1.5 s") as caught,
        find_emulator(f"serial:{port}").open(tmp_path, board),
    ):
        pass
    assert "tinypeft flash" in caught.value.hint and "ports here" in caught.value.hint

    def babble() -> None:
        for _ in range(8):
            os.write(ours, b"\x06\x09\xfe baud?")
            time.sleep(0.2)

    thread = threading.Thread(target=babble)
    thread.start()
    with (
        pytest.raises(DeviceError, match=r"9600 baud: no answer.*its last output: .*baud\?"),
        find_emulator(f"serial:{port}:9600").open(tmp_path, board),
    ):
        pass
    thread.join()


def test_a_port_in_use(terminal, board, tmp_path):
    _, port = terminal
    with (
        serial.Serial(port, exclusive=True),
        pytest.raises(ToolError, match=f"{port} is in use by another program") as caught,
        find_emulator(f"serial:{port}").open(tmp_path, board),
    ):
        pass
    assert f"fuser {port}" in caught.value.hint


@pytest.mark.parametrize(
    ("make", "message", "hint"),
    [
        (lambda folder: folder / "absent", "there is no serial port", "ports here: /dev/ttyACM7 .board., /dev/ttyS9$"),
        (lambda folder: (folder / "file").write_text("") or folder / "file", "is no serial port", "ports here"),
        (lambda folder: folder, "is no serial port", "ports here"),
    ],
)
def test_no_such_port(board, tmp_path, monkeypatch, make, message, hint):
    known = [ListPortInfo("/dev/ttyS9"), ListPortInfo("/dev/ttyACM7")]
    known[0].description, known[1].description = "n/a", "board"
    monkeypatch.setattr(list_ports, "comports", lambda: known)
    with (
        pytest.raises(ToolError, match=message) as caught,
        find_emulator(f"serial:{make(tmp_path)}").open(tmp_path, board),
    ):
        pass
    assert re.search(hint, caught.value.hint), caught.value.hint


def test_a_port_that_this_user_may_not_open(board, tmp_path, monkeypatch):
    def refuse(*arguments: object, **options: object) -> None:
        raise serial.SerialException(errno.EACCES, "could not open port: Permission denied")

    monkeypatch.setattr(serial, "Serial", refuse)
    port = tmp_path / "ttyACM0"
    port.write_text("")
    with (
        pytest.raises(ToolError, match="this user may not open") as caught,
        find_emulator(f"serial:{port}").open(tmp_path, board),
    ):
        pass
    assert caught.value.hint.startswith(f"sudo usermod -aG {port.group()} ")
    assert serial_port._group(str(tmp_path / "absent")) == "dialout"


def test_without_pyserial(monkeypatch, terminal, project, tmp_path):
    built: Built = project("plain")
    data = built.save_samples(tmp_path / "data.npz")
    monkeypatch.setitem(sys.modules, "serial", None)
    monkeypatch.setitem(sys.modules, "serial.tools", None)
    result = invoke("run", built.directory, "--on", f"serial:{terminal[1]}", "--data", data)
    assert result.exit_code == 1
    assert "error: serial:" in result.stderr and "pyserial is not installed; pip install pyserial" in result.stderr
    assert EMULATORS["host"].missing() is None


def test_addresses(tmp_path):
    def parts(on: str) -> tuple[str, int | None]:
        emulator = find_emulator(on)
        assert isinstance(emulator, serial_port.SerialPort)
        return emulator.port, emulator.baud

    assert parts("serial:/dev/ttyACM0") == ("/dev/ttyACM0", None)
    assert parts("serial:/dev/ttyACM0:921600") == ("/dev/ttyACM0", 921600)
    by_path = "/dev/serial/by-path/pci-0000:00:14.0-usb-0:1:1.0"
    assert parts(f"serial:{by_path}") == (by_path, None)
    odd = tmp_path / "port:9600"
    odd.write_text("")
    assert parts(f"serial:{odd}") == (str(odd), None)
    with pytest.raises(ToolError, match="asks for 3 baud"):
        find_emulator("serial:/dev/ttyACM0:3")
    with pytest.raises(ToolError, match="qemu takes no address, is given 'x'"):
        find_emulator("qemu:x")
    with pytest.raises(ToolError, match="there is no 'serail' to run on") as caught:
        find_emulator("serail:/dev/x")
    assert caught.value.hint == "did you mean serial?"
    with pytest.raises(BoardError, match="board host has no console"):
        find_emulator("serial:/dev/x").settings(load_board("host"))
    assert find_emulator("host") is EMULATORS["host"]


@pytest.mark.parametrize(
    ("on", "message"),
    [
        ("serail:/dev/x", "did you mean serial?"),
        ("qemu:1", "qemu takes no address"),
        ("serial:/dev/x:1", "asks for 1 baud"),
    ],
)
def test_a_bad_target_is_a_usage_error(on, message, tmp_path):
    result = invoke("run", tmp_path, "--data", "x.npz:x", "--on", on)
    assert result.exit_code == 2 and message in result.stderr and "Traceback" not in result.output


def test_serial_without_a_port_lists_those_there_are(project, tmp_path):
    built: Built = project("plain")
    data = built.save_samples(tmp_path / "data.npz")
    result = invoke("run", built.directory, "--data", data, "--on", "serial")
    assert result.exit_code == 1 and "--on serial lacks the port" in result.stderr
    assert "try: --on serial:PORT; ports here: " in result.stderr


def test_help_says_what_on_takes():
    assert "serial:PORT[:BAUD]" in invoke("test", "--help").stdout
