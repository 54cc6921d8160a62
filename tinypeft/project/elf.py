"""Measure a linked ELF: bytes of flash and RAM from its section headers, sizes of its symbols."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from elftools.common.exceptions import ELFError
from elftools.elf.constants import SH_FLAGS
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from tinypeft.errors import ToolError

_STACK = ".stack"
_ARENA_PART = ".arena_"
_STORAGE = ("tp_storage_start", "tp_storage_end")


@dataclass(frozen=True)
class ElfSizes:
    """Bytes that the firmware occupies; `ram_bytes` is all of it: data, zeroed data and the reserved stack.

    flash_bytes     code, constants and the initial values of data: the size of the binary
    data_bss_bytes  static data, arena included
    stack_bytes     the reserved stack
    arena_parts     by the memory's name, the part of data_bss_bytes in a section of its own for a RAM beside the first
    storage_bytes   what the linker keeps free for adapters, in none of the others: flash, or RAM that stands for it
    symbols         name -> size of every sized symbol
    """

    flash_bytes: int
    data_bss_bytes: int
    stack_bytes: int
    ram_bytes: int
    symbols: dict[str, int] = field(repr=False)
    arena_parts: dict[str, int] = field(default_factory=dict)
    storage_bytes: int = 0


def measure(elf: Path | str) -> ElfSizes:
    """The sizes of a linked firmware; raises ToolError where `elf` is not a readable ELF."""
    flash = data_bss = stack = 0
    symbols: dict[str, int] = {}
    parts: dict[str, int] = {}
    storage: dict[str, int] = {}
    try:
        with Path(elf).open("rb") as stream:
            for section in ELFFile(stream).iter_sections():
                if isinstance(section, SymbolTableSection):
                    for symbol in section.iter_symbols():
                        if symbol["st_size"]:
                            symbols[symbol.name] = symbol["st_size"]
                        if symbol.name in _STORAGE:
                            storage[symbol.name] = symbol["st_value"]
                if not section["sh_flags"] & SH_FLAGS.SHF_ALLOC:
                    continue
                size = section["sh_size"]
                if section["sh_type"] != "SHT_NOBITS":
                    flash += size
                if section.name == _STACK:
                    stack += size
                elif section["sh_flags"] & SH_FLAGS.SHF_WRITE:
                    data_bss += size
                if size and section.name.startswith(_ARENA_PART):
                    parts[section.name.removeprefix(_ARENA_PART)] = size
    except (OSError, ELFError) as error:
        raise ToolError(f"cannot read {elf}: {error}", "build the project again") from error
    start, end = (storage.get(name, 0) for name in _STORAGE)
    return ElfSizes(flash, data_bss, stack, data_bss + stack, symbols, parts, end - start)


def symbol_size(elf: Path | str, name: str) -> int:
    """The size of symbol `name` in bytes; raises ToolError where the ELF has none."""
    symbols = measure(elf).symbols
    if name not in symbols:
        raise ToolError(f"{elf} has no symbol {name}", "build the project again")
    return symbols[name]
