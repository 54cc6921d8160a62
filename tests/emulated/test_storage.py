"""Restarting on every machine of QEMU: what lasts and what does not, the console's last byte, storages."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from emulation import console_until

from tinypeft.boards import Board, board_names, board_on, load_board
from tinypeft.emulators import EMULATORS
from tinypeft.emulators.qemu import machine_command
from tinypeft.project import build_firmware, retarget_project, write_project

SOURCE = (Path(__file__).parents[1] / "project" / "fake_model.c").read_text()
PLAIN_INIT = "tp_status tp_device_init(void) { return scale > 0.0f ? TP_OK : TP_ERR_FORMAT; }"
MACHINES = [name for name in board_names() if "qemu" in load_board(name).emulators]
WITH_STORAGE = [name for name in board_names() if load_board(name).storage and not load_board(name).is_host]

#: Prints a line a start, and restarts twice; `word` survives, `changed` and `zeroed` must not.
RESTART = """
#include "tinypeft/tp_board.h"
static volatile uint32_t changed = 7u, zeroed;
tp_status tp_device_init(void) {
  volatile uint32_t *word = (volatile uint32_t *)0x%08Xu;
  char line[] = "start 0 of a line that is long enough to fill a buffer\\n";
  if (*word < 0x5EED0000u || *word > 0x5EED0002u) {
    *word = 0x5EED0000u;
  }
  line[6] = (char)('0' + (*word - 0x5EED0000u));
  if (changed != 7u || zeroed != 0u) {
    line[6] = '!';
  }
  tp_board_write((const uint8_t *)line, sizeof line - 1);
  if (*word == 0x5EED0002u) {
    return TP_OK;
  }
  ++*word;
  changed = 8u;
  zeroed = 1u;
  tp_board_reset();
}
"""

#: Every sector is erased, and its number programmed at both ends; after a restart all is read again.
KEEP = """
#include "tinypeft/tp_board.h"
static void say(const char *text) { tp_board_write((const uint8_t *)text, (uint32_t)strlen(text)); }
static const uint8_t *unit(uint32_t number) {
  static uint8_t bytes[TP_STORAGE_WRITE_UNIT];
  for (uint32_t i = 0; i < sizeof bytes; i++) {
    bytes[i] = (uint8_t)(number + 3u * i + 1u);
  }
  return bytes;
}
static uint32_t place(uint32_t sector, uint32_t end) {
  return sector * TP_STORAGE_SECTOR_BYTES + end * (TP_STORAGE_SECTOR_BYTES - TP_STORAGE_WRITE_UNIT);
}
static int holds(const tp_flash *flash, uint32_t offset, const uint8_t *bytes) {
  uint8_t found[TP_STORAGE_WRITE_UNIT];
  return flash->read(flash->context, offset, found, sizeof found) == TP_OK && memcmp(found, bytes, sizeof found) == 0;
}
static int kept(const tp_flash *flash) {
  for (uint32_t sector = 0; sector < flash->sectors; sector++) {
    if (!holds(flash, place(sector, 0), unit(sector)) || !holds(flash, place(sector, 1), unit(sector + 99u))) {
      return 0;
    }
  }
  return 1;
}
static int programmed(const tp_flash *flash, uint32_t offset, const uint8_t *bytes) {
  return flash->prog(flash->context, offset, bytes, TP_STORAGE_WRITE_UNIT) == TP_OK;
}
tp_status tp_device_init(void) {
  const tp_flash *flash = tp_board_flash();
  if (flash->sectors != TP_STORAGE_SECTORS || flash->sector_bytes != TP_STORAGE_SECTOR_BYTES) {
    return TP_ERR_SIZE;
  }
  if (kept(flash)) {
    say("kept\\n");
    uint8_t erased[TP_STORAGE_WRITE_UNIT];
    memset(erased, TP_STORAGE_ERASED, sizeof erased);
    const int good = flash->erase(flash->context, 1) == TP_OK && holds(flash, place(1, 0), erased) &&
                     holds(flash, place(1, 1), erased) && holds(flash, place(0, 1), unit(99u)) &&
                     holds(flash, place(2, 0), unit(2u));
    return good ? TP_OK : TP_ERR_FLASH;
  }
  for (uint32_t sector = 0; sector < flash->sectors; sector++) {
    if (flash->erase(flash->context, sector) != TP_OK || !programmed(flash, place(sector, 0), unit(sector)) ||
        !programmed(flash, place(sector, 1), unit(sector + 99u))) {
      return TP_ERR_FLASH;
    }
  }
  if (programmed(flash, place(1, 0), unit(0u)) || programmed(flash, 1u, unit(0u))) {
    return TP_ERR_ARGUMENT;
  }
  say("written\\n");
  tp_board_reset();
}
"""


@pytest.fixture(autouse=True)
def needs_tools() -> None:
    reason = EMULATORS["qemu"].missing()
    if reason is not None:
        pytest.skip(reason)
    if shutil.which("arm-none-eabi-gcc") is None:
        pytest.skip("arm-none-eabi-gcc is not installed; apt install gcc-arm-none-eabi")


def write(folder: Path, board: Board, init: str, storage: bool) -> Path:
    assert PLAIN_INIT in SOURCE
    return write_project(
        folder / "project",
        board,
        model_name="fake",
        sources={"fake.c": SOURCE.replace(PLAIN_INIT, init)},
        kernels=[],
        stack_bytes=2048,
        manifest={},
        files={},
        storage=storage,
    )


def console(board: Board, project: Path) -> str:
    elf = build_firmware(project, board)
    return console_until([*machine_command(board.emulators["qemu"]), "-serial", "stdio", "-kernel", str(elf)], "\r\n")


@pytest.mark.parametrize("name", MACHINES)
def test_a_restart(tmp_path: Path, name: str) -> None:
    """RAM beside .data and .bss keeps what it holds; those start anew; every line arrives whole."""
    board = load_board(name)
    text = console(board, write(tmp_path, board, RESTART % (board.ram.end - 16), storage=False))
    line = "start {} of a line that is long enough to fill a buffer\n"
    assert text == "".join(line.format(number) for number in range(3)) + "tinypeft fake ready\r\n"


@pytest.mark.parametrize("name", WITH_STORAGE)
def test_a_storage_outlasts_a_restart(tmp_path: Path, name: str) -> None:
    """On the board or its twin, by the driver that stands in for flash; the board's own firmware builds as well."""
    board = load_board(name).with_storage()
    project, target = write(tmp_path, board, KEEP, storage=True), board_on(board, "qemu")
    if target is not board:
        build_firmware(project, board)
        project = retarget_project(project, target)
    assert console(target, project) == "written\nkept\ntinypeft fake ready\r\n"


def test_flash_without_a_controller_is_told(tmp_path: Path) -> None:
    """The driver of the F4's flash on a machine that has none: an error, no fault and no endless loop."""
    board = load_board("stm32f4_discovery")
    project = write(tmp_path, board, KEEP, storage=True)
    assert console(board, project) == "tinypeft fake failed: the flash memory reports a fault\r\n"
