"""A store in a shared library, driven from Python."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from power_cuts import FIRMWARE, HERE, STORE, compile_c

CONFIRMED, CANDIDATE, CHECKPOINT, PARTS = range(4)
NO_SLOT = 0xFFFF
OK, ARGUMENT = 0, -1
ROLLBACK, TRUNCATED, TOO_LARGE, FULL, FLASH, NOT_FOUND, STATE, ID = range(-12, -20, -1)
GEOMETRY = -21
SOURCES = ["tp_flash_memory.c", "tp_flash_file.c"]


class Entry(ctypes.Structure):
    """tp_store_entry."""

    _fields_ = [
        ("id", ctypes.c_char * 16),
        ("slot", ctypes.c_uint16 * 3),
        ("on_test", ctypes.c_uint8),
        ("boots", ctypes.c_uint8),
        ("bytes", ctypes.c_uint32 * 3),
        ("version", ctypes.c_uint32 * 3),
        ("counter", ctypes.c_uint32),
    ]


def build(folder: Path) -> ctypes.CDLL:
    """The library of the store, its flash memories and binding.c."""
    sources = [HERE / "binding.c", HERE / "sim_flash.c", *STORE, *(FIRMWARE / "store" / name for name in SOURCES)]
    library = ctypes.CDLL(str(compile_c(folder / "libstore.so", sources, "-O2", "-shared", "-fPIC")))
    for name in ("device_new", "device_store", "device_flash", "device_memory", "device_file"):
        getattr(library, name).restype = ctypes.c_void_p
    for name in ("tp_store_find", "tp_store_entry_at", "tp_store_active"):
        getattr(library, name).restype = ctypes.POINTER(Entry)
    library.device_violation.restype = ctypes.c_char_p
    return library


class Store:
    """A store on erased simulated flash, or on `flash`; methods give the status of the function of their name."""

    def __init__(self, library: ctypes.CDLL, sector_bytes=1024, sectors=10, unit=8, erased=0xFF) -> None:
        self.library = library
        self.geometry = (sector_bytes, sectors, unit, erased)
        self.device = ctypes.c_void_p(library.device_new(*self.geometry))
        self.store = ctypes.c_void_p(library.device_store(self.device))
        self.flash = ctypes.c_void_p(library.device_flash(self.device))

    def mount(self, log_sectors: int = 3, slot_bytes: int = 256, test_boots: int = 2) -> int:
        self.reverted = ctypes.c_int(9)
        config = (log_sectors, slot_bytes, test_boots)
        return self.library.device_mount(self.device, self.flash, *config, ctypes.byref(self.reverted))

    def __getattr__(self, name: str):
        function = getattr(self.library, f"tp_store_{name}")
        return lambda *arguments: function(self.store, *arguments)

    def entry(self, name: bytes) -> Entry | None:
        found = self.find(name)
        return found.contents if found else None

    def active_id(self) -> bytes | None:
        found = self.active()
        return found.contents.id if found else None

    def upload(self, name: bytes, data: bytes, version: int, part: int = CANDIDATE) -> int:
        for status in (self.begin(name, part, len(data)), self.append(data, len(data))):
            if status != OK:
                return status
        return self.commit(version)

    def serve(self, name: bytes, data: bytes, version: int, counter: int = 0) -> None:
        """Upload, activate, confirm."""
        assert self.upload(name, data, version) == OK
        assert self.activate(name) == OK
        assert self.confirm(name, counter) == OK

    def read_part(self, name: bytes, part: int) -> bytes:
        found = self.find(name)
        data = ctypes.create_string_buffer(found.contents.bytes[part])
        assert self.read(found, part, 0, data, len(data)) == OK
        return data.raw

    def slot_counts(self) -> tuple[int, int]:
        """(slots, unused)."""
        unused = ctypes.c_uint32()
        return self.slots(ctypes.byref(unused)), unused.value

    def uploaded_bytes(self) -> tuple[int, int]:
        """(appended, of)."""
        of = ctypes.c_uint32()
        return self.uploaded(ctypes.byref(of)), of.value

    def erases(self) -> list[int]:
        return [self.library.device_erases(self.device, sector) for sector in range(self.geometry[1])]

    def check_rules(self) -> None:
        assert self.library.device_violation(self.device) == b""


@contextmanager
def opened(library: ctypes.CDLL, path: Path, **geometry: int) -> Iterator[Store]:
    """A store whose flash is the file at `path`."""
    store = Store(library, **geometry)
    assert library.device_open(store.device, str(path).encode(), *store.geometry) == OK
    store.flash = ctypes.c_void_p(library.device_file(store.device))
    try:
        yield store
    finally:
        library.device_close(store.device)
