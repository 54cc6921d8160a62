"""A real board: its console on a serial port, `serial:/dev/ttyACM0` or `serial:/dev/ttyACM0:BAUD`.

The board runs what was flashed into it; nothing is started or reset. It may be in any state when the port is opened.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import pwd
import select
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tinypeft.device.client import Device
from tinypeft.device.link import NotTaken
from tinypeft.device.session import Unanswered
from tinypeft.emulators.base import NOTHING, BoardLike, Emulator, register
from tinypeft.errors import BoardError, DeviceError, ToolError

#: Seconds for a board that is still starting or computing to answer
READY_LIMIT = 20.0
#: Seconds without a byte in which a board computes: a training step on a slow core takes minutes
COMPUTING_LIMIT = 300.0
SEND_LIMIT = 10.0


@register
class SerialPort(Emulator):
    """A board on a serial port, which `at` gives; its baud rate is the board file's unless the address has one."""

    name = "serial"
    builds = NOTHING

    def __init__(self, port: str = "", baud: int | None = None):
        self.port, self.baud = port, baud

    def missing(self) -> str | None:
        try:
            importlib.import_module("serial")
        except ImportError:
            return "the Python package pyserial is not installed; pip install pyserial"
        return None

    def at(self, address: str) -> Emulator:
        port, _, baud = address.rpartition(":")
        if port and baud.isascii() and baud.isdigit() and not Path(address).exists():
            if not 50 <= int(baud) <= 20_000_000:
                raise ToolError(f"serial:{address} asks for {baud} baud", "leave it out to use the board file's")
            return SerialPort(port, int(baud))
        return SerialPort(address)

    def settings(self, board: BoardLike, *keys: str) -> Mapping[str, Any]:
        """Nothing: any board that has a console will do."""
        if board.console is None:
            raise BoardError(f"board {board.name} has no console to connect a serial port to", "run it with --on host")
        if not self.port:
            raise ToolError("--on serial lacks the port", f"--on serial:PORT; {_ports_here()}")
        return {}

    @contextlib.contextmanager
    def open(self, project: Path, board: BoardLike, *, count_instructions: bool = False) -> Iterator[Device]:
        self.settings(board)
        reason = self.missing()
        if reason is not None:
            raise ToolError(f"serial cannot run here: {reason}")
        assert board.console is not None
        baud = self.baud or board.console.baud
        with _open_port(self.port, baud) as transport:
            device = Device(
                transport,
                timeout=COMPUTING_LIMIT,
                counter_reason="a real board does not count instructions",
                lossy=True,
                sequence=os.urandom(1)[0],
            )
            try:
                device.wait_ready(READY_LIMIT)
            except Unanswered as error:
                raise DeviceError(
                    f"{self.port}, {baud} baud: {error.message}",
                    f"flash the firmware (tinypeft flash {project}), press its reset, check port and baud rate; "
                    + _ports_here(),
                ) from error
            yield device


class PortTransport:
    """A byte stream over an open pyserial port."""

    def __init__(self, port: Any, name: str):
        self._port, self._name = port, name

    def send(self, data: bytes) -> None:
        import serial

        try:
            self._port.write(data)
        except serial.SerialTimeoutException as error:
            raise NotTaken(
                f"the board does not read its console: bytes wait for {SEND_LIMIT:g} s on {self._name}",
                "press the board's reset, and check that the firmware was built for this board",
            ) from error
        except (OSError, TypeError) as error:  # a SerialException is an OSError
            raise self._gone(error) from error

    def receive(self, timeout: float) -> bytes:
        try:
            ready, _, _ = select.select([self._port.fileno()], [], [], timeout)
            return self._port.read(65536) if ready else b""
        except (OSError, TypeError, ValueError) as error:
            raise self._gone(error) from error

    def _gone(self, error: Exception) -> DeviceError:
        return DeviceError(
            f"{self._name} is gone ({error}): the board was unplugged, lost its power or restarted its USB",
            "plug it in, then start again: what it had not handed over is lost",
        )


@contextlib.contextmanager
def _open_port(port: str, baud: int) -> Iterator[PortTransport]:
    """The port, for this process alone, its buffer emptied; ToolError where it cannot be opened."""
    import serial

    try:
        opened = serial.Serial(port, baud, timeout=0, write_timeout=SEND_LIMIT, exclusive=True)
    except (OSError, ValueError, OverflowError) as error:
        raise _refused(port, baud, error) from error
    try:
        with contextlib.suppress(OSError):  # what is not dropped here is skipped later
            opened.reset_input_buffer()
        yield PortTransport(opened, port)
    finally:
        with contextlib.suppress(OSError, TypeError):
            opened.close()


def _refused(port: str, baud: int, error: Exception) -> ToolError:
    """Why the port cannot be opened, and what to do."""
    number = getattr(error, "errno", None)
    if number in (errno.ENOENT, errno.ENXIO, errno.ENODEV):
        return ToolError(f"there is no serial port {port}", _ports_here())
    if number in (errno.EACCES, errno.EPERM):
        return ToolError(
            f"this user may not open {port}",
            f"sudo usermod -aG {_group(port)} {_user()}, then log out and in again",
        )
    if number in (errno.EBUSY, errno.EAGAIN):
        return ToolError(
            f"{port} is in use by another program",
            f"end it: fuser {port} shows which; often a terminal or ModemManager",
        )
    if number in (errno.ENOTTY, errno.EINVAL, errno.EISDIR) or "configure port" in str(error):
        return ToolError(f"{port} is no serial port, or cannot do {baud} baud ({error})", _ports_here())
    return ToolError(f"cannot open {port} with {baud} baud: {error}", _ports_here())


def _ports_here() -> str:
    """The serial ports of this computer, in words."""
    try:
        from serial.tools import list_ports
    except ImportError:
        return "pip install pyserial"
    known = [(info.device, info.description) for info in list_ports.comports()]
    ports = [device if description in ("", "n/a") else f"{device} ({description})" for device, description in known]
    return "ports here: " + (", ".join(sorted(ports)) or "none; plug the board in with a cable that carries data")


def _group(port: str) -> str:
    """The group that may open the port."""
    try:
        return Path(port).group()
    except (OSError, KeyError):
        return "dialout"


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return "$USER"
