"""UF2, the format of boot loaders that appear as a USB drive: a linked ELF in, blocks out.

https://github.com/microsoft/uf2: a block is 512 bytes, little-endian, and stands for itself: magic numbers, flags,
address, payload size, its number, their count, family, 476 bytes of which the payload is the first, magic number.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

from tinypeft.errors import ToolError

PAYLOAD = 256
#: What the RP2040's boot loader erases at once. It decides by a block's number, not by its address, whether a sector
#: begins (pico-bootrom, virtual_disk.c), so all blocks of every sector but the last are there.
SECTOR = 4096

_MAGIC = (0x0A324655, 0x9E5D5157)
_MAGIC_END = 0x0AB16F30
_FAMILY_PRESENT = 0x2000
_BLOCK = struct.Struct("<8I476sI")


def loadable_segments(elf: Path) -> list[tuple[int, bytes]]:
    """(address in flash, content) of all that a loader of `elf` writes; ToolError where it is no readable ELF."""
    try:
        with elf.open("rb") as stream:
            segments = [s for s in ELFFile(stream).iter_segments("PT_LOAD") if s["p_filesz"]]
            return [(segment["p_paddr"], segment.data()) for segment in segments]
    except (OSError, ELFError) as error:
        raise ToolError(f"cannot read {elf}: {error}", "build the project again") from error


def encode(segments: Iterable[tuple[int, bytes]], family: int) -> bytes:
    """The UF2 blocks of (address, content) pairs, for chips of `family`; bytes that none gives are 0."""
    sectors: dict[int, bytearray] = {}
    end = 0
    for address, content in segments:
        end = max(end, address + len(content))
        done = 0
        while done < len(content):
            start = (address + done) // SECTOR * SECTOR
            offset = address + done - start
            part = content[done : done + SECTOR - offset]
            sectors.setdefault(start, bytearray(SECTOR))[offset : offset + len(part)] = part
            done += len(part)
    pages = [
        (start + offset, bytes(sector[offset : offset + PAYLOAD]))
        for start, sector in sorted(sectors.items())
        for offset in range(0, SECTOR, PAYLOAD)
        if start + offset < end
    ]
    return b"".join(
        _BLOCK.pack(*_MAGIC, _FAMILY_PRESENT, address, PAYLOAD, number, len(pages), family, page, _MAGIC_END)
        for number, (address, page) in enumerate(pages)
    )
