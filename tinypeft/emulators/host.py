"""The host twin: the firmware's sources in a shared library of this computer, called directly."""

from __future__ import annotations

import _ctypes
import contextlib
import ctypes
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tinypeft.device.client import Device
from tinypeft.emulators.base import TWIN, BoardLike, Emulator, register
from tinypeft.errors import DeviceError, ToolError


@register
class HostTwin(Emulator):
    """`build/libtwin.so` of any project, whatever its board."""

    name = "host"
    builds = TWIN

    def missing(self) -> str | None:
        return None

    @contextlib.contextmanager
    def open(self, project: Path, board: BoardLike, *, count_instructions: bool = False) -> Iterator[Device]:
        library = self.require(Path(project) / "build" / "libtwin.so")
        with _fresh_copy(library) as twin:
            twin.tp_twin_init()
            device = Device(_TwinTransport(twin), counter_reason="the host twin runs no Arm instructions")
            device.wait_ready(limit=10.0)
            yield device


@contextlib.contextmanager
def _fresh_copy(library: Path) -> Iterator[ctypes.CDLL]:
    """Load a copy: the loader gives the same file, and with it the same state, only once."""
    with tempfile.TemporaryDirectory(prefix="tinypeft-") as folder:
        copy = Path(shutil.copy(library, folder))
        try:
            twin = ctypes.CDLL(str(copy))
        except OSError as error:
            raise ToolError(f"cannot load {library}: {error}", "build the project again on this computer") from error
        try:
            _declare(twin, library)
            yield twin
        finally:
            _ctypes.dlclose(twin._handle)


def _declare(twin: ctypes.CDLL, library: Path) -> None:
    try:
        twin.tp_twin_init.restype = ctypes.c_int
        twin.tp_twin_exchange.restype = ctypes.c_size_t
        twin.tp_twin_exchange.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_size_t]
    except AttributeError as error:
        raise ToolError(f"{library} is not a twin of tinypeft: {error}", "build the project again") from error


class _TwinTransport:
    """Hands each request to the twin, which has answered when the call returns."""

    CAPACITY = 1 << 24

    def __init__(self, twin: ctypes.CDLL):
        self._twin = twin
        self._buffer = ctypes.create_string_buffer(self.CAPACITY)
        self._received = b""

    def send(self, data: bytes) -> None:
        size = self._twin.tp_twin_exchange(data, len(data), self._buffer, self.CAPACITY)
        if size > self.CAPACITY:
            raise DeviceError(f"the twin's answer exceeds {self.CAPACITY:,} B", "read less at once")
        self._received += ctypes.string_at(self._buffer, size)

    def receive(self, timeout: float) -> bytes:
        if not self._received:
            raise DeviceError("the twin did not answer")  # nor will it: it has returned
        received, self._received = self._received, b""
        return received
