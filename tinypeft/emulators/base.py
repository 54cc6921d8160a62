"""What an emulator declares, and the stream and process that emulators of firmware share."""

from __future__ import annotations

import contextlib
import difflib
import os
import select
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar, Protocol

from tinypeft.device.client import Device
from tinypeft.device.link import NotTaken
from tinypeft.errors import BoardError, DeviceError, ToolError

#: name -> the emulator's only instance
EMULATORS: dict[str, Emulator] = {}

#: `builds`: what of a project must be built to run it
FIRMWARE, TWIN, NOTHING = "firmware", "twin", "nothing"

#: `capabilities`: exact counts from `Device.instructions()`
INSTRUCTIONS = "instructions"


class ConsoleLike(Protocol):
    """The UART of a board that carries the protocol."""

    @property
    def baud(self) -> int: ...


class BoardLike(Protocol):
    """What an emulator needs of a board; `emulators` maps an emulator's name to its settings."""

    @property
    def name(self) -> str: ...

    @property
    def emulators(self) -> Mapping[str, Mapping[str, Any]]: ...

    @property
    def console(self) -> ConsoleLike | None: ...


def find_emulator(on: str) -> Emulator:
    """What `--on` names: NAME or NAME:ADDRESS, such as serial:/dev/ttyACM0; ToolError where there is none."""
    name, separator, address = on.partition(":")
    if name not in EMULATORS:
        nearest = difflib.get_close_matches(name, EMULATORS, n=1)
        hint = f"did you mean {nearest[0]}?" if nearest else "choose one of " + ", ".join(sorted(EMULATORS))
        raise ToolError(f"there is no {name!r} to run on", hint)
    return EMULATORS[name].at(address) if separator else EMULATORS[name]


def register(cls: type[Emulator]) -> type[Emulator]:
    """Class decorator: put the emulator into the registry; a second of the same name is a KeyError."""
    if cls.name in EMULATORS:
        raise KeyError(f"emulator {cls.name} is registered twice")
    EMULATORS[cls.name] = cls()
    return cls


class Emulator(ABC):
    """A way to run a built project. `builds` and the set `capabilities` are of the constants above."""

    name: ClassVar[str]
    builds: ClassVar[str] = FIRMWARE
    capabilities: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def missing(self) -> str | None:
        """Why it cannot run on this computer and how to install it; None where it can."""

    @abstractmethod
    def open(
        self, project: Path, board: BoardLike, *, count_instructions: bool = False
    ) -> AbstractContextManager[Device]:
        """Run the built `project` for the time of a `with` block, which gets a freshly started `Device`.

        Whatever ends the block also ends the emulator. BoardError where the board has no settings for it, ToolError
        where it is missing, fails, or nothing was built, DeviceError where the firmware does not answer.
        """

    def at(self, address: str) -> Emulator:
        """This emulator for `--on NAME:ADDRESS`; ToolError where it takes no address."""
        raise ToolError(f"{self.name} takes no address, is given {address!r}", f"--on {self.name}")

    def prepare(self, project: Path, board: BoardLike) -> None:
        """Write beside the built firmware what runs it by hand, such as scripts; nothing by default."""
        return None

    def settings(self, board: BoardLike, *keys: str) -> Mapping[str, Any]:
        """The board's settings for this emulator, with all of `keys`; BoardError without."""
        if self.name not in board.emulators:
            others = ", ".join(sorted(board.emulators)) or "none"
            raise BoardError(f"board {board.name} does not run on {self.name}", f"emulators of this board: {others}")
        settings = board.emulators[self.name]
        for key in keys:
            if key not in settings:
                raise BoardError(f"board {board.name}: emulators.{self.name} lacks {key!r}", "add it to board.toml")
        return settings

    def require(self, built: Path) -> Path:
        """`built`, a file of the project, absolute; ToolError where it or the emulator is missing."""
        reason = self.missing()
        if reason is not None:
            raise ToolError(f"{self.name} cannot run here: {reason}")
        if not built.is_file():
            raise ToolError(f"{built} does not exist", "build the project first")
        return built.resolve()


class EmulatorEnded(DeviceError):
    """The emulator closed the console: its process has ended or is about to."""


class SocketTransport:
    """A byte stream over a socket. `failure` gives the reason to report when the other end is gone."""

    SEND_LIMIT = 10.0

    def __init__(self, connection: socket.socket, failure: Callable[[], str]):
        self._connection = connection
        self._failure = failure
        connection.settimeout(self.SEND_LIMIT)

    def send(self, data: bytes) -> None:
        try:
            self._connection.sendall(data)
        except TimeoutError as error:
            raise NotTaken(
                f"the firmware does not read its console: bytes wait for {self.SEND_LIMIT:g} s{self._failure()}",
                "check that the firmware was built for this board and is running",
            ) from error
        except OSError as error:
            raise EmulatorEnded(f"the emulator ended ({error}){self._failure()}") from error

    def receive(self, timeout: float) -> bytes:
        ready, _, _ = select.select([self._connection], [], [], timeout)
        if not ready:
            return b""
        try:
            data = self._connection.recv(65536)
        except OSError as error:
            raise EmulatorEnded(f"the emulator ended ({error}){self._failure()}") from error
        if not data:
            raise EmulatorEnded(f"the emulator ended{self._failure()}")
        return data


@contextlib.contextmanager
def running(command: list[str], log: Path, *, open_input: bool = False) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command in a process group of its own, its output in the file `log`; kill the group at the end.

    Its input is empty; with `open_input` it is a silent pipe, for a monitor that ends with its input.
    """
    source = subprocess.PIPE if open_input else subprocess.DEVNULL
    with log.open("wb") as output:
        try:
            process = subprocess.Popen(command, stdin=source, stdout=output, stderr=output, start_new_session=True)
        except OSError as error:
            raise ToolError(f"cannot run {command[0]}: {error}") from error
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdin is not None:
            process.stdin.close()


def last_lines(log: Path, count: int = 5) -> str:
    """The end of an emulator's log, as a suffix of an error message; empty where there is none."""
    text = log.read_text(errors="replace") if log.exists() else ""
    lines = text.strip().splitlines()[-count:]
    return "; it said:\n" + "\n".join(lines) if lines else ""


def connect(
    attempt: Callable[[], socket.socket], process: subprocess.Popen[bytes], log: Path, limit: float
) -> socket.socket:
    """Call `attempt` until it gives a connection; ToolError when the process ends or `limit` seconds have passed."""
    name = Path(str(process.args[0] if isinstance(process.args, list) else process.args)).name
    deadline = time.monotonic() + limit
    while True:
        try:
            return attempt()
        except OSError as error:
            if process.poll() is not None:
                raise ToolError(f"{name} ended with code {process.returncode}{last_lines(log)}") from error
            if time.monotonic() > deadline:
                raise ToolError(f"{name} opened no console within {limit:g} s{last_lines(log)}") from error
            time.sleep(0.02)
