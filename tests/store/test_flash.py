"""The store and its flash: faults, wear, flash in memory and in a file, memory that holds anything."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest
from devices import CANDIDATE, CONFIRMED, FLASH, OK, STATE, Store, opened
from power_cuts import FIRMWARE, HERE, SANITIZED, SIMULATOR, STORE, WARNINGS, compile_c

DATA = bytes(range(1, 201))


def test_flash_that_fails(store) -> None:
    store.serve(b"a", DATA, 1)
    store.library.device_fails(store.device, 1)
    assert store.begin(b"b", CANDIDATE, 200) == OK and store.append(DATA, 200) == FLASH
    assert store.uploaded_bytes() == (0, 0)
    assert store.activate(None) == OK  # what reads back as programmed is
    store.library.device_fails(store.device, 0)
    assert store.mount() == OK and store.active_id() is None and store.read_part(b"a", CONFIRMED) == DATA


def test_cells_that_do_not_hold_what_was_programmed(store) -> None:
    store.serve(b"a", DATA, 1)
    store.library.device_bad(store.device, 1)
    assert store.activate(None) == OK  # the next log sector has it
    assert store.mount() == OK and store.active_id() is None
    store.library.device_bad(store.device, 100)
    assert store.activate(b"a") == FLASH
    store.library.device_bad(store.device, 0)
    later = [store.activate(b"a"), store.begin(b"b", CANDIDATE, 9), store.collect(), store.revert(b"a")]
    assert later == [STATE] * 4 and store.slot_counts() == (0, 0)
    assert store.mount() == OK and store.active_id() is None and store.read_part(b"a", CONFIRMED) == DATA
    store.serve(b"a", DATA, 2)


def test_memory_out_of_reach_is_not_formatted(library) -> None:
    store = Store(library)
    assert store.mount() == OK
    store.serve(b"a", DATA, 1)
    for sector in range(3):
        library.device_fault(store.device, sector * 1024, 1)
    assert store.mount() == FLASH and store.begin(b"a", CANDIDATE, 9) == STATE
    for sector in range(3):
        library.device_fault(store.device, sector * 1024, 0)
    assert store.mount() == OK and store.read_part(b"a", CONFIRMED) == DATA


def test_wear(library) -> None:
    """Log sectors take turns, and so do the slots of blocks in which nothing else counts, and the blocks under them."""
    store = Store(library)
    assert store.mount() == OK
    store.serve(b"a", DATA, 1)
    before, slots = store.erases(), []
    for i in range(1000):
        assert store.activate(b"a" if i % 2 else None) == OK
    log = [now - then for now, then in zip(store.erases(), before, strict=True)]
    assert min(log[:3]) > 20 and max(log[:3]) - min(log[:3]) <= 1 and not any(log[3:])
    for i in range(240):
        assert store.upload(b"b", DATA, i) == OK
        slots.append(store.entry(b"b").slot[CANDIDATE])
        assert i % 7 or store.mount() == OK
    assert store.entry(b"a").slot[CONFIRMED] == 0
    counts = [slots.count(slot) for slot in range(4, 24)]
    assert min(counts) > 10 and max(counts) - min(counts) <= 1, counts
    blocks = sorted(store.erases()[3:])  # that which holds "a" stays where it is
    assert blocks[0] == 1 and blocks[-1] - blocks[1] <= 1, blocks
    store.check_rules()


def test_after_a_collection_uploads_erase_nothing(store) -> None:
    for i in range(20):
        store.serve(b"a", DATA, i)
    assert store.begin(b"b", CANDIDATE, 200) == store.append(DATA, 150) == store.collect() == OK
    assert store.append(DATA[150:], 50) == store.commit(1) == OK and store.read_part(b"b", CANDIDATE) == DATA
    assert store.read_part(b"a", CONFIRMED) == DATA
    before = store.erases()[3:]
    for i in range(16):
        assert store.upload(b"c", DATA, i) == OK
    assert store.erases()[3:] == before


def test_flash_in_memory_is_strict(library) -> None:
    store = Store(library, sectors=10, unit=8)
    image = (ctypes.c_uint8 * 10240)(*[0x5A] * 10240)
    store.flash = ctypes.c_void_p(library.device_memory(store.device, image, *store.geometry))
    assert store.mount() == OK
    store.serve(b"a", DATA, 1)
    assert store.mount() == OK and store.read_part(b"a", CONFIRMED) == DATA
    callbacks = ctypes.cast(store.flash, ctypes.POINTER(ctypes.c_void_p * 4)).contents
    signature = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_void_p, ctypes.c_uint32)
    read, prog = (signature(callbacks[i]) for i in (1, 2))
    erase = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_uint32)(callbacks[3])
    data = ctypes.create_string_buffer(DATA)
    assert erase(callbacks[0], 9) == OK and prog(callbacks[0], 9216, data, 16) == OK
    assert prog(callbacks[0], 9216, data, 8) == prog(callbacks[0], 9236, data, 8) == FLASH
    assert prog(callbacks[0], 9240, data, 4) == prog(callbacks[0], 10240, data, 8) == FLASH
    assert read(callbacks[0], 10233, data, 8) == erase(callbacks[0], 10) == FLASH


def test_flash_in_a_file_outlives_the_process(library, tmp_path) -> None:
    path = tmp_path / "flash.bin"
    script = (
        f"import sys, pathlib; sys.path.insert(0, {str(HERE)!r}); import ctypes, devices\n"
        f"with devices.opened(devices.build(pathlib.Path({str(tmp_path)!r})), {str(path)!r}, erased=0) as store:\n"
        f"    assert store.mount() == 0; store.serve(b'a', {DATA!r}, 4)\n"
        "    import os; os._exit(7)\n"
    )
    assert subprocess.run([sys.executable, "-c", script]).returncode == 7
    assert path.stat().st_size == 10240
    with opened(library, path, erased=0) as store:
        assert store.mount() == OK and store.entry(b"a").version[CONFIRMED] == 4
        assert store.read_part(b"a", CONFIRMED) == DATA
    store = Store(library, sectors=9)
    assert library.device_open(store.device, str(path).encode(), *store.geometry) == -2
    assert library.device_open(store.device, str(tmp_path / "no" / "file").encode(), *store.geometry) == FLASH


def test_memory_with_anything_mounts(tmp_path) -> None:
    sources = [HERE / "fuzz_mount.c", *SIMULATOR, *STORE, FIRMWARE / "store" / "tp_flash_memory.c"]
    program = compile_c(tmp_path / "fuzz_mount", sources, *SANITIZED)
    run = subprocess.run([program, "6000"], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.startswith("6000 mounted")


@pytest.mark.parametrize("compiler", ["gcc", "clang", "arm-none-eabi-gcc"])
@pytest.mark.parametrize("source", [*STORE, *sorted(FIRMWARE.glob("store/tp_flash_*.c"))], ids=lambda path: path.name)
def test_compiles_without_a_warning(source, compiler) -> None:
    flags = ["-mcpu=cortex-m4", "-mthumb"] if compiler.startswith("arm") else []
    command = [compiler, *WARNINGS, *flags, "-Os", f"-I{FIRMWARE / 'include'}", "-c", "-o", "/dev/null"]
    result = subprocess.run([*command, str(source)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
