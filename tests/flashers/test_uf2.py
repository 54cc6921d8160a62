"""UF2: blocks decoded by a reader of its own, and the copy to a boot loader's drive."""

from __future__ import annotations

import errno
import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinypeft.errors import BoardError, ToolError
from tinypeft.flashers import FLASHERS, uf2
from tinypeft.flashers.uf2_blocks import SECTOR, encode, loadable_segments

RP2040 = 0xE48BFF56
FLASH = 0x1000_0000
SETTINGS = {"uf2": {"family": RP2040}}


def decode(data: bytes, family: int) -> dict[int, bytes]:
    """Address -> 256 bytes, read as the specification has it; everything that it fixes is checked."""
    assert len(data) % 512 == 0
    blocks = [data[at : at + 512] for at in range(0, len(data), 512)]
    pages: dict[int, bytes] = {}
    for number, block in enumerate(blocks):
        assert block[0:4] == b"UF2\n" and block[4:8] == bytes.fromhex("57515d9e") and block[508:] == b"\x30\x6f\xb1\x0a"
        flags, address, size, index, count, chip = struct.unpack("<6I", block[8:32])
        assert (flags, size, index, count, chip) == (0x2000, 256, number, len(blocks), family)
        assert address % 256 == 0 and address not in pages and block[32 + 256 : 508] == bytes(476 - 256)
        pages[address] = block[32 : 32 + 256]
    return pages


def content(pages: dict[int, bytes], address: int, length: int) -> bytes:
    return bytes(pages[at & ~255][at & 255] for at in range(address, address + length))


#: Segments that do not overlap, some side by side
SEGMENTS = st.lists(st.tuples(st.integers(0, 9000), st.binary(min_size=1, max_size=9000)), min_size=1, max_size=4)


@given(SEGMENTS, st.integers(0, (1 << 32) - 1))
def test_round_trip(gaps_and_contents, family):
    segments, address = [], FLASH
    for gap, data in gaps_and_contents:
        address += gap
        segments.append((address, data))
        address += len(data)
    pages = decode(encode(segments, family), family)
    for start, data in segments:
        assert content(pages, start, len(data)) == data
    given_bytes = {at for start, data in segments for at in range(start, start + len(data))}
    for page, data in pages.items():
        assert all(byte == 0 for at, byte in enumerate(data, page) if at not in given_bytes)
    addresses = list(pages)
    assert addresses == sorted(addresses) and addresses[-1] == (address - 1) & ~255
    for number, page in enumerate(addresses):  # the RP2040 erases a sector at every 16th block
        assert (number % 16 == 0) == (page % SECTOR == 0)
        assert page // SECTOR in {at // SECTOR for at in given_bytes}


@pytest.fixture
def elf(image) -> Path:
    """Code, constants and initialised data, linked as firmware is: the data's load address is in flash."""
    if shutil.which("arm-none-eabi-gcc") is None:
        pytest.skip("arm-none-eabi-gcc is not installed; apt install gcc-arm-none-eabi")
    source, script = image.build / "x.c", image.build / "x.ld"
    source.write_text(
        "const char text[300] = {1, 2, 3};\nint data[100] = {7, 8, 9};\nint zero[1000];\n"
        "int start(void);\nint start(void) { return data[2] + zero[3] + text[1]; }\n"
    )
    script.write_text(
        "ENTRY(start)\nMEMORY { f : ORIGIN = 0x10000000, LENGTH = 1M\n r : ORIGIN = 0x20000000, LENGTH = 64K }\n"
        "SECTIONS { .text : { *(.text*) *(.rodata*) } > f\n .data : { *(.data*) } > r AT > f\n"
        ".bss (NOLOAD) : { *(.bss*) } > r\n /DISCARD/ : { *(.ARM*) } }\n"
    )
    command = ["arm-none-eabi-gcc", "-mcpu=cortex-m0plus", "-mthumb", "-nostdlib", "-Wl,--no-warn-rwx-segments"]
    first = subprocess.run([*command, f"-T{script}", str(source), "-o", str(image.elf)], capture_output=True, text=True)
    if first.returncode:  # a linker that does not know the option does not warn either
        command.pop()
        subprocess.run([*command, f"-T{script}", str(source), "-o", str(image.elf)], check=True)
    return image.elf


def test_the_blocks_are_the_binary_that_objcopy_makes(elf, image):
    subprocess.run(["arm-none-eabi-objcopy", "-O", "binary", str(elf), str(image.bin)], check=True)
    binary = image.bin.read_bytes()
    pages = decode(encode(loadable_segments(elf), RP2040), RP2040)
    assert len(binary) > 700 and content(pages, FLASH, len(binary)) == binary
    assert all(FLASH <= page < FLASH + len(binary) for page in pages)


def test_no_elf(tmp_path):
    (tmp_path / "x.elf").write_text("no ELF")
    with pytest.raises(ToolError, match=r"cannot read .*x\.elf"):
        loadable_segments(tmp_path / "x.elf")


def mount(folder: Path, board_id: str = "RPI-RP2") -> Path:
    folder.mkdir(parents=True)
    info = f"UF2 Bootloader v3.0\r\nModel: Raspberry Pi RP2\r\nBoard-ID: {board_id}\r\n"
    (folder / "INFO_UF2.TXT").write_bytes(info.encode())
    return folder


@pytest.fixture
def media(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(uf2, "ROOTS", (str(tmp_path / "media"), str(tmp_path / "mnt")))
    return tmp_path / "media"


def flash(board, image, probe=None) -> list[str]:
    said: list[str] = []
    flasher = FLASHERS["uf2"]
    flasher.run(flasher.plan(image, board, probe), image, board, limit=20.0, echo=said.append)
    return said


@pytest.mark.parametrize("where", ["media/user/RPI-RP2", "media/RPI-RP2", "mnt"])
def test_the_firmware_is_copied_to_the_mounted_drive(media, make_board, image, elf, where):
    drive = mount(media.parent / where)
    mount(media / "user" / "OTHER", "Some-Other-Board-v1")
    board = make_board(flashers=SETTINGS)
    plan = FLASHERS["uf2"].plan(image, board, None)
    assert plan.commands == [["cp", str(image.uf2), str(drive / "FIRMWARE.UF2")]]
    assert flash(board, image) == ["3 blocks copied\n"]
    assert (drive / "FIRMWARE.UF2").read_bytes() == image.uf2.read_bytes() == encode(loadable_segments(elf), RP2040)


def test_which_drive(media, make_board, image, elf):
    board, flasher = make_board(flashers=SETTINGS), FLASHERS["uf2"]
    with pytest.raises(ToolError, match="no drive of a UF2 boot loader is mounted below .*media") as caught:
        flasher.plan(image, board, None)
    assert "BOOTSEL" in caught.value.hint and "--probe PATH" in caught.value.hint
    wanted = "<drive RPI-RP2>/FIRMWARE.UF2"
    assert flasher.plan(image, board, None, dry_run=True).commands == [["cp", str(image.uf2), wanted]]
    other = mount(media / "user" / "OTHER", "nice!nano")
    with pytest.raises(ToolError, match=r"no drive has the Board-ID RPI-RP2: .*OTHER is nice!nano"):
        flasher.plan(image, board, None)
    with pytest.raises(ToolError, match="no drive has the Board-ID RPI-RP2"):
        flasher.plan(image, board, str(other))
    assert flasher.plan(image, make_board(flashers={"uf2": {"family": 1}}), None).commands[0][2].startswith(str(other))
    drives = [mount(media / "user" / name) for name in ("RPI-RP2", "RPI-RP21")]
    with pytest.raises(ToolError, match=f"several drives of UF2 boot loaders: .*{drives[0]}"):
        flasher.plan(image, board, None)
    flash(board, image, str(drives[1]))
    assert not (drives[0] / "FIRMWARE.UF2").exists() and (drives[1] / "FIRMWARE.UF2").exists()
    (media / "empty").mkdir()
    with pytest.raises(ToolError, match=r"empty is no drive of a UF2 boot loader: it has no INFO_UF2\.TXT"):
        flasher.plan(image, board, str(media / "empty"))
    assert flasher.missing() is None


def test_firmware_outside_the_boards_flash_is_not_copied(media, make_board, image, elf):
    drive = mount(media / "RPI-RP2")
    ram_only = make_board(flashers=SETTINGS, memories=make_board().memories[1:])
    with pytest.raises(BoardError, match="at 0x10000000 are in no flash of board fake_board"):
        flash(ram_only, image)
    assert not (drive / "FIRMWARE.UF2").exists()


def test_a_board_that_restarts_with_the_last_block_has_got_it(media, make_board, image, elf, monkeypatch):
    drive = mount(media / "RPI-RP2")

    def restart(descriptor: int) -> None:
        (drive / "INFO_UF2.TXT").unlink()
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", restart)
    assert flash(make_board(flashers=SETTINGS), image) == ["3 blocks copied\n"]


@pytest.mark.parametrize("call", ["write", "fsync"])
def test_a_copy_that_fails(media, make_board, image, elf, monkeypatch, call):
    mount(media / "RPI-RP2")

    def fail(*arguments: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(ToolError, match="cannot copy to .*FIRMWARE.UF2: No space left on device"):
        flash(make_board(flashers=SETTINGS), image)
