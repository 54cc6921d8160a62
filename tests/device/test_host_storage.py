"""The storage of the host twin: in memory for a session, or in a file that `--on host:FILE` names."""

from __future__ import annotations

import contextlib
import ctypes
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tinypeft.boards import load_board
from tinypeft.emulators import EMULATORS, find_emulator
from tinypeft.errors import ToolError
from tinypeft.project import build_twin, write_project

SOURCE = (Path(__file__).parents[1] / "project" / "fake_model.c").read_text()
#: Calls for the test, and a model that counts its starts in the storage: a programmed unit a start.
PLAIN_INIT = "tp_status tp_device_init(void) { return scale > 0.0f ? TP_OK : TP_ERR_FORMAT; }"
COUNTING = """
#include "tinypeft/tp_board.h"
tp_status tp_device_init(void) {
  const tp_flash *flash = tp_board_flash();
  uint8_t unit[TP_STORAGE_WRITE_UNIT] = {TP_STORAGE_ERASED};
  uint32_t starts = 0;
  for (; starts < 9; starts++) {
    (void)flash->read(flash->context, starts * TP_STORAGE_WRITE_UNIT, unit, sizeof unit);
    if (unit[0] == TP_STORAGE_ERASED) {
      break;
    }
  }
  memset(unit, 0x11, sizeof unit);
  model.adapter[0] = (int32_t)starts;
  return flash->prog(flash->context, starts * TP_STORAGE_WRITE_UNIT, unit, sizeof unit);
}
"""


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """(storage, board) -> a project of the fake model with its twin."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    assert PLAIN_INIT in SOURCE

    def build(storage: bool = True, board: str = "host") -> Path:
        project = write_project(
            tmp_path_factory.mktemp("twin") / "project",
            load_board(board),
            model_name="fake",
            sources={"fake.c": SOURCE.replace(PLAIN_INIT, COUNTING) if storage else SOURCE},
            kernels=[],
            stack_bytes=2048,
            manifest={},
            files={},
            storage=storage,
        )
        build_twin(project)
        return project

    return build


@contextlib.contextmanager
def starts(on: str, project: Path) -> Iterator[int]:
    """How many starts of the twin its storage knew of when it started."""
    with find_emulator(on).open(project, load_board("host")) as device:
        yield device.read("adapter")[0]


def test_memory_is_new_in_every_session(twin, tmp_path: Path) -> None:
    project = twin()
    for _ in range(2):
        with starts("host", project) as count:
            assert count == 0


def test_a_file_lasts(twin, tmp_path: Path) -> None:
    """It is made where there is none, holds every byte, and is what the next session starts from."""
    project, file = twin(), tmp_path / "adapters.bin"
    for expected in range(3):
        with starts(f"host:{file}", project) as count:
            assert count == expected
            content = file.read_bytes()  # before the session ends: as if the power failed now
        assert content == b"\x11" * 4 * (expected + 1) + b"\xff" * (32 * 4096 - 4 * (expected + 1))
    assert file.read_bytes() == content


def test_a_restart_keeps_it(twin) -> None:
    library = ctypes.CDLL(str(twin() / "build" / "libtwin.so"))
    assert [library.tp_twin_init() for _ in range(9)] == [0] * 9
    assert library.tp_twin_init() == 0 and library.tp_twin_init() != 0  # the tenth unit is programmed twice
    assert library.tp_twin_storage(None) == 0 and library.tp_twin_init() == 0


def test_the_sectors_are_the_boards(twin, tmp_path: Path) -> None:
    file = tmp_path / "adapters.bin"
    with starts(f"host:{file}", twin(board="stm32f4_discovery")):
        assert file.stat().st_size == 4 * 0x2_0000


def test_a_file_that_does_not_fit_is_refused(twin, tmp_path: Path) -> None:
    file = tmp_path / "other.bin"
    file.write_bytes(b"somebody's")
    with (
        pytest.raises(ToolError, match="other.bin has 10 B, the storage has 131,072 B"),
        starts(f"host:{file}", twin()),
    ):
        pass
    assert file.read_bytes() == b"somebody's"


def test_a_file_that_cannot_be_made(twin, tmp_path: Path) -> None:
    with (
        pytest.raises(ToolError, match="cannot keep the storage in .*: No such file"),
        starts(f"host:{tmp_path}/none/adapters.bin", twin()),
    ):
        pass
    with pytest.raises(ToolError, match="Is a directory"), starts(f"host:{tmp_path}", twin()):
        pass
    with pytest.raises(ToolError, match="names no file"):
        find_emulator("host:")


def test_one_session_at_a_time(twin, tmp_path: Path) -> None:
    project, on = twin(), f"host:{tmp_path / 'adapters.bin'}"
    with starts(on, project), pytest.raises(ToolError, match="in use by another twin"), starts(on, project):
        pass
    with pytest.raises(OSError, match="mine"), starts(on, project) as count:
        assert count == 1
        raise OSError("mine")
    with starts(on, project) as count:
        assert count == 2


def test_a_twin_without_a_storage_says_so(twin, tmp_path: Path) -> None:
    project, file = twin(storage=False), tmp_path / "adapters.bin"
    with EMULATORS["host"].open(project, load_board("host")):
        pass
    with pytest.raises(ToolError, match="keeps no adapters"), starts(f"host:{file}", project):
        pass
    assert not file.exists()
