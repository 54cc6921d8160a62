"""Drivers of real flash against models of their controllers: content, sequences, faults. No silicon is involved."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest

from tinypeft.boards import Board, board_names, load_board
from tinypeft.project.render import render_board, storage_defines
from tinypeft.resources import resource_path

MODELS = Path(__file__).parent / "flash_model"
WARNINGS = ["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Werror"]
#: Drivers of flash that a model stands for
BOARDS = [n for n in board_names() if (s := load_board(n).storage) is not None and s.driver not in ("ram", "host")]
OK, FLASH = 0, -16


class Counts(ctypes.Structure):
    """The C struct model_counts."""

    _fields_ = (
        *((name, ctypes.c_uint32) for name in ("programmed", "erased", "polls", "cache_resets", "violations")),
        ("first", ctypes.c_char * 80),
    )


class Model:
    """A driver and the model of its controller, at rest and with an erased memory."""

    def __init__(self, library: ctypes.CDLL, board: Board):
        assert board.storage is not None and board.storage_memory is not None
        self.library, self.storage, self.address = library, board.storage, board.storage_memory.origin
        memory = (ctypes.c_uint8 * self.storage.length).in_dll(library, "model_memory")
        ctypes.memset(memory, self.storage.erased, self.storage.length)
        self.number("model_absent", ctypes.c_int).value = 0
        self.number("model_fails_at").value = 0
        library.model_reset()

    def number(self, name: str, kind: type = ctypes.c_uint32):
        return kind.in_dll(self.library, name)

    @property
    def seen(self) -> Counts:
        return Counts.in_dll(self.library, "model_seen")

    def read(self, offset: int, length: int) -> bytes:
        data = ctypes.create_string_buffer(length)
        assert self.library.storage_read(offset, data, length) == OK
        return data.raw

    def prog(self, offset: int, data: bytes) -> int:
        status = self.library.storage_prog(offset, data, len(data))
        self.check()
        return status

    def erase(self, sector: int) -> int:
        status = self.library.storage_erase(sector)
        self.check()
        return status

    def check(self) -> None:
        assert self.seen.violations == 0, self.seen.first.decode()
        assert self.library.model_at_rest(), "the controller was left unlocked or at work"


@pytest.fixture(params=BOARDS)
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Model:
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    board = load_board(request.param).with_storage()
    assert board.storage is not None
    (tmp_path / "tp_board_config.h").write_bytes(render_board(board, 2048)["board/tp_board_config.h"])
    library = tmp_path / "model.so"
    driver = board.storage.driver
    sources = [resource_path("firmware", "storages", f"{driver}.c"), MODELS / "model.c", MODELS / f"{driver}.c"]
    includes = [f"-I{folder}" for folder in (MODELS, resource_path("firmware", "include"), tmp_path)]
    defines = [f"-D{define}" for define in storage_defines(board)]
    command = ["gcc", "-shared", "-fPIC", *WARNINGS, *includes, *defines, *map(str, sources), "-o", str(library)]
    subprocess.run([*command, "-fsanitize=undefined", "-fno-sanitize-recover=all"], check=True)
    return Model(ctypes.CDLL(str(library)), board)


def test_geometry_is_the_boards(model: Model) -> None:
    storage = model.storage
    found = [model.library.storage_geometry(which) for which in range(4)]
    assert found == [storage.sector_bytes, storage.sectors, storage.write_unit, storage.erased]


def test_what_is_programmed_is_read(model: Model) -> None:
    """At both ends and across sectors, from data at any address; what lies beside stays erased."""
    storage = model.storage
    data = bytes(range(1, 65))
    places = [0, storage.sector_bytes - 32, storage.length - 64]
    for place in places:
        held = ctypes.create_string_buffer(b"x" + data)  # not aligned
        status = model.library.storage_prog(place, ctypes.byref(held, 1), len(data))
        model.check()
        assert status == OK and model.read(place, 64) == data
    assert model.seen.programmed == 48 and model.seen.erased == 0 and model.seen.polls > 48
    whole = model.read(0, storage.length)
    assert len(whole) - whole.count(0xFF) == 3 * 64 and model.read(64, 1) == b"\xff"
    assert model.read(places[1] + 1, 5) == data[1:6]


def test_a_sector_is_erased_and_no_other(model: Model) -> None:
    storage = model.storage
    for sector in range(storage.sectors):
        assert model.prog(sector * storage.sector_bytes, b"\x12\x34\x56\x78") == OK
        assert model.prog((sector + 1) * storage.sector_bytes - 4, b"\x9a\xbc\xde\xf0") == OK
    for sector in (1, storage.sectors - 1, 0):
        assert model.erase(sector) == OK
        assert model.read(sector * storage.sector_bytes, storage.sector_bytes) == b"\xff" * storage.sector_bytes
    assert model.seen.erased == 3
    kept = model.read(2 * storage.sector_bytes, storage.sector_bytes)
    assert (kept[:4], kept[-4:]) == (b"\x12\x34\x56\x78", b"\x9a\xbc\xde\xf0")
    assert model.prog(0, b"again!!!") == OK and model.read(0, 8) == b"again!!!"


def test_caches_are_reset_after_every_erasure(model: Model) -> None:
    if model.storage.driver != "stm32f4":
        pytest.skip("its caches are off")
    assert (model.erase(0), model.erase(1), model.prog(0, b"data")) == (OK, OK, OK)
    assert model.seen.cache_resets == 2


def test_what_is_not_erased_is_not_programmed(model: Model) -> None:
    assert model.prog(8, b"\x01\x02\x03\x04") == OK
    assert model.prog(4, b"\x00" * 12) == FLASH
    assert model.read(4, 12) == b"\x00\x00\x00\x00\x01\x02\x03\x04\xff\xff\xff\xff"
    assert model.seen.programmed == 2


@pytest.mark.parametrize(("offset", "length"), [(2, 4), (4, 3), (1, 1)])
def test_parts_of_words_are_refused(model: Model, offset: int, length: int) -> None:
    assert model.prog(offset, bytes(length)) == FLASH
    assert model.seen.programmed == 0


def test_a_fault_is_told_and_ends_the_call(model: Model) -> None:
    model.number("model_fails_at").value = model.address + 8
    assert model.prog(0, bytes(32)) == FLASH
    assert model.read(0, 8) == bytes(8) and model.read(12, 20) == b"\xff" * 20
    model.number("model_fails_at").value = 0
    assert model.prog(16, b"fine") == OK, "an error of before must not count"


def test_an_erasure_that_fails_is_told(model: Model) -> None:
    if model.storage.driver == "stm32f4":
        pytest.skip("the controller reports it as it reports a word's")
    model.number("model_fails_at").value = model.address
    assert model.erase(0) == FLASH and model.erase(1) == OK


def test_no_controller_is_told(model: Model) -> None:
    """As on a machine of QEMU that has the flash as ROM and nothing to program it."""
    model.number("model_absent", ctypes.c_int).value = 1
    assert model.library.storage_erase(0) == FLASH
    assert model.library.storage_prog(0, b"data", 4) == FLASH
    assert model.seen.programmed == 0


def test_a_controller_left_unlocked_is_locked_first(model: Model) -> None:
    """A debugger may have; its keys would then be wrong ones."""
    if model.storage.driver != "stm32f4":
        pytest.skip("there are no keys")
    write = model.library.tp_register_write
    for value in (0x45670123, 0xCDEF89AB):
        write(ctypes.c_uint32(model.storage.settings["base"] + 4), ctypes.c_uint32(value))
    assert model.prog(0, b"data") == OK and model.read(0, 4) == b"data"
