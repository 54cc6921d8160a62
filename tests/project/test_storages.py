"""Storages: what a board with one is, firmware and twin with its driver, and that others stay as they are."""

from __future__ import annotations

import ctypes
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from tinypeft.boards import Board, board_names, board_on, load_board
from tinypeft.errors import BoardError, FitError, VerifyError
from tinypeft.project import build_firmware, build_twin, measure, read_manifest, retarget_project
from tinypeft.resources import resource_path

ALL = [load_board(name) for name in board_names() if name != "host"]
WITH = [board.name for board in ALL if board.storage]
WITHOUT = [board.name for board in ALL if not board.storage]
#: What keeps the driver from being left out
PLAIN_INIT = "tp_status tp_device_init(void) { return scale > 0.0f ? TP_OK : TP_ERR_FORMAT; }"
USE = """
#include "tinypeft/tp_board.h"
tp_status tp_device_init(void) {
  const tp_flash *flash = tp_board_flash();
  return flash->erase(flash->context, TP_STORAGE_LOG_SECTORS);
}
"""
SOURCE = (Path(__file__).parent / "fake_model.c").read_text()


@pytest.fixture(autouse=True)
def needs_compilers() -> None:
    for program in ("make", "gcc", "arm-none-eabi-gcc"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")


def make_keeper(make_project, board: Board, **changes) -> Path:
    assert PLAIN_INIT in SOURCE
    return make_project(board, source=SOURCE.replace(PLAIN_INIT, USE), storage=True, **changes)


def geometry(twin: Path) -> tuple[int, int, int]:
    """Sector's bytes, sectors and write unit of a twin's storage."""
    library = ctypes.CDLL(str(twin))
    library.tp_board_flash.restype = ctypes.POINTER(ctypes.c_uint32)
    numbers = library.tp_board_flash()
    behind = 4 * ctypes.sizeof(ctypes.c_void_p) // 4
    return numbers[behind], numbers[behind + 1], numbers[behind + 2]


def test_boards_that_keep_adapters() -> None:
    assert set(WITH) == {
        *("mps2_an385", "mps2_an386", "mps2_an500", "mps2_an505", "mps3_an547", "qemu_cortex_m0"),
        *("stm32f4_discovery", "nrf52840dk"),
    }
    assert {path.stem for path in resource_path("firmware", "storages").glob("*.c")} == {
        *(board.storage.driver for board in ALL if board.storage),
        "host",
    }


@pytest.mark.parametrize("name", WITH)
def test_a_board_that_keeps_adapters(name: str) -> None:
    """The memory that holds the storage ends where it begins; nothing overlaps; asking twice changes nothing."""
    board = load_board(name)
    keeper, storage = board.with_storage(), board.storage
    assert storage is not None and board.storage_memory is None
    taken = keeper.storage_memory
    assert taken is not None and keeper.with_storage() is keeper
    assert taken.length == storage.length == storage.sectors * storage.sector_bytes
    (before,) = (r for r in board.memories if r.name == storage.region)
    (after,) = (r for r in keeper.memories if r.name == storage.region)
    assert (after.origin, after.end) == (before.origin, taken.origin) and taken.end <= before.end
    assert [r for r in keeper.memories if r not in (after, taken)] == [r for r in board.memories if r != before]
    assert taken.origin % storage.sector_bytes == 0 or storage.driver == "ram"
    assert (keeper.flash.name, keeper.ram.name) == (board.flash.name, board.ram.name)


@pytest.mark.parametrize("name", WITHOUT)
def test_a_board_that_keeps_none(make_project, name: str) -> None:
    board = load_board(name)
    with pytest.raises(BoardError, match=f"{name} keeps no adapters: it has no storage"):
        board.with_storage()
    with pytest.raises(BoardError, match="has no storage"):
        make_project(board, storage=True)


@pytest.mark.parametrize("name", WITH)
def test_firmware_with_a_storage(make_project, name: str) -> None:
    """Linked beside it, with the board's driver; measured; nothing that a loader would write lies there."""
    board = load_board(name)
    project = make_keeper(make_project, board)
    keeper, elf = board.with_storage(), build_firmware(project, board)
    storage, taken = keeper.storage, keeper.storage_memory
    assert storage is not None and taken is not None
    drivers = {path.name for path in (project / "firmware" / "storages").iterdir()}
    assert drivers == {"host.c", f"{storage.driver}.c"} and read_manifest(project)["storage"] is True
    script = (project / "board" / "linker.ld").read_text()
    for region in keeper.memories:
        assert re.search(
            rf"{region.name} \(\w+\) : ORIGIN = 0x{region.origin:08X}, LENGTH = 0x{region.length:08X}", script
        )
    sizes = measure(elf)
    assert sizes.storage_bytes == taken.length
    assert sizes.ram_bytes == sizes.data_bss_bytes + sizes.stack_bytes < 16384
    with elf.open("rb") as stream:
        segments = [(s["p_paddr"], s["p_vaddr"], s["p_memsz"]) for s in ELFFile(stream).iter_segments("PT_LOAD")]
    for start, size in [(at, size) for loaded, run, size in segments for at in (loaded, run)]:
        assert start + size <= taken.origin or start >= taken.end
    assert f"`0x{taken.origin:08X}` | {taken.length:,} |" in (project / "README.md").read_text()
    assert geometry(build_twin(project)) == (storage.sector_bytes, storage.sectors, storage.write_unit)


@pytest.mark.parametrize("name", ["mps2_an386", "nrf52840dk"])
def test_firmware_without_one_is_as_before(make_project, tmp_path, name: str) -> None:
    project = make_project(load_board(name))
    text = b"".join(path.read_bytes() for path in (project / "board").iterdir()) + (project / "Makefile").read_bytes()
    assert b"storage" not in text.lower() and not (project / "firmware" / "storages").exists()
    assert measure(build_firmware(project, load_board(name))).storage_bytes == 0
    assert read_manifest(project)["storage"] is False


def test_what_would_reach_into_the_storage_does_not_fit(make_project) -> None:
    board = load_board("nrf52840dk")
    data = "const unsigned char big[0xE0000] = {1};\n"
    use = USE.replace("  return ", "  if (big[flash->sectors]) { return TP_OK; }\n  return ")
    project = make_project(board, data, source=SOURCE.replace(PLAIN_INIT, use), storage=True)
    with pytest.raises(FitError, match=r"flash needs 9\d\d,\d+ B, nrf52840dk has 917,504 B"):
        build_firmware(project, board.with_storage())


@pytest.mark.parametrize("name", ["nrf52840dk", "stm32f4_discovery"])
def test_the_twin_keeps_as_much(make_project, name: str) -> None:
    """Another driver, the same sectors, in a memory of the twin that nothing else uses."""
    board = load_board(name).with_storage()
    twin = board_on(board, "qemu")
    storage, taken = twin.storage, twin.storage_memory
    assert storage is not None and taken is not None and board.storage is not None
    assert storage.driver == "ram" and storage.sector_bytes == board.storage.sector_bytes
    assert taken.length == board.storage.length and twin.with_storage() is twin
    for region in twin.memories:
        assert region is taken or region.end <= taken.origin or region.origin >= taken.end
    project = make_keeper(make_project, board)
    folder = retarget_project(project, twin)
    assert {path.name for path in (folder / "firmware" / "storages").iterdir()} == {"host.c", "ram.c"}
    assert measure(build_firmware(folder, twin)).storage_bytes == taken.length
    assert read_manifest(folder)["storage"] is True
    assert geometry(build_twin(folder)) == geometry(build_twin(project))


def test_without_a_storage_the_twin_has_none() -> None:
    assert board_on(load_board("nrf52840dk"), "qemu").storage is None
    board = load_board("stm32f4_discovery")
    assert board_on(board, "qemu") is board and board_on(board.with_storage(), "renode").name == board.name
    with pytest.raises(BoardError, match="nrf52840dk does not run on renode"):
        board_on(load_board("nrf52840dk").with_storage(), "renode")


def test_twins_that_cannot_keep_it(monkeypatch: pytest.MonkeyPatch) -> None:
    board = load_board("stm32f4_discovery").with_storage()
    none = replace(board, twin="nrf51", storage=board.storage)
    twin = load_board("mps2_an386")
    monkeypatch.setattr("tinypeft.boards.load_board", lambda name: replace(twin, storage=None))
    with pytest.raises(BoardError, match="mps2_an386, twin of stm32f4_discovery, has no storage"):
        board_on(none, "qemu")
    small = replace(twin, memories=(twin.flash, replace(twin.ram, length=0x9_0000)))
    monkeypatch.setattr("tinypeft.boards.load_board", lambda name: small)
    with pytest.raises(BoardError, match="has no 524,288 B left in ram for a storage"):
        board_on(none, "qemu")


def test_the_host_has_its_own(make_project) -> None:
    host = load_board("host")
    assert host.with_storage() is host
    project = make_keeper(make_project, host)
    assert [path.name for path in (project / "firmware" / "storages").iterdir()] == ["host.c"]
    assert geometry(build_twin(project)) == (4096, 32, 4)


def test_the_key_is_the_writers_own(make_project, board) -> None:
    with pytest.raises(VerifyError, match="storage"):
        make_project(board, manifest={"storage": {}})
