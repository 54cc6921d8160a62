"""The host twin: the firmware's sources in a shared library of this computer, called directly."""

from __future__ import annotations

import _ctypes
import contextlib
import ctypes
import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tinypeft.device.client import Device
from tinypeft.device.link import NoAnswer
from tinypeft.emulators.base import TWIN, BoardLike, Emulator, register
from tinypeft.errors import DeviceError, ToolError


@register
class HostTwin(Emulator):
    """`build/libtwin.so` of any project, whatever its board.

    Of a project with a storage, host:FILE keeps it in FILE, which is made where there is none; else it is in memory,
    for the time of a session.
    """

    name = "host"
    builds = TWIN

    def __init__(self, storage: Path | None = None):
        self._storage = storage

    def at(self, address: str) -> Emulator:
        if not address:
            raise ToolError("host: names no file to keep the storage in", "--on host:adapters.bin, or --on host")
        return HostTwin(Path(address))

    def missing(self) -> str | None:
        return None

    @contextlib.contextmanager
    def open(self, project: Path, board: BoardLike, *, count_instructions: bool = False) -> Iterator[Device]:
        library = self.require(Path(project) / "build" / "libtwin.so")
        with contextlib.ExitStack() as stack:
            twin = stack.enter_context(_fresh_copy(library))
            if self._storage is not None:
                stack.enter_context(_storage_in(self._storage, twin, library))
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


class _Flash(ctypes.Structure):
    """The C struct tp_flash."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("context", "read", "prog", "erase")),
        *((name, ctypes.c_uint32) for name in ("sector_bytes", "sectors", "write_unit")),
        ("erased", ctypes.c_uint8),
    )


@contextlib.contextmanager
def _storage_in(path: Path, twin: ctypes.CDLL, library: Path) -> Iterator[None]:
    """Let the storage of `twin` be in `path`, which no other session uses meanwhile."""
    if not hasattr(twin, "tp_twin_storage"):
        raise ToolError(f"{library} keeps no adapters, so that {path} would stay empty", "leave it out: --on host")
    twin.tp_board_flash.restype = ctypes.POINTER(_Flash)
    twin.tp_twin_storage.argtypes = [ctypes.c_char_p]
    with _held(path):
        if twin.tp_twin_storage(str(path).encode()):
            flash, size = twin.tp_board_flash().contents, path.stat().st_size
            raise ToolError(
                f"{path} has {size:,} B, the storage has {flash.sectors * flash.sector_bytes:,} B: it is another's",
                "choose another file, or remove this one",
            )
        try:
            yield
        finally:
            twin.tp_twin_storage(None)


@contextlib.contextmanager
def _held(path: Path) -> Iterator[None]:
    """The file at `path`, made where there is none, for one process at a time."""
    with contextlib.ExitStack() as stack:
        try:
            held = stack.enter_context(path.open("ab"))
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ToolError(f"{path} is in use by another twin", "wait for it, or choose another file") from error
        except OSError as error:
            raise ToolError(f"cannot keep the storage in {path}: {error.strerror}", "choose another file") from error
        yield


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
            raise NoAnswer("the twin did not answer")  # nor will it: it has returned
        received, self._received = self._received, b""
        return received
